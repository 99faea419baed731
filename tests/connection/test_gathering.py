"""What is written in one callback goes out together, but for what may not wait: the application may block, or exit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.peer import end, raw_client, raw_server
from tests.support import PATIENCE, Echo, serving
from tests.wire import BINARY, PING, PONG, TEXT, Frame
from tornado_ws import WebSocketHandler, websocket_connect


class Handler(WebSocketHandler):
    """Hands each message to ``answer``."""

    def initialize(self, calls: list[Callable[[Handler, str | bytes], Any]]) -> None:
        self.answer = calls[0]

    def get_compression_options(self) -> dict[str, Any]:
        return {"threshold": 0}

    def on_message(self, message: str | bytes) -> Any:
        self.answer(self, message)


class CoroutineHandler(Handler):
    async def on_message(self, message: str | bytes) -> None:
        super().on_message(message)


DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate"}


@pytest.mark.gen_test
@pytest.mark.parametrize("handler_class", [Handler, CoroutineHandler])
@pytest.mark.parametrize("headers", [{}, DEFLATE], ids=["plain", "deflate"])
async def test_the_first_write_is_with_the_kernel_before_the_callback_returns(
    handler_class: type[Handler], headers: dict[str, Any]
) -> None:
    seen: list[bool] = []

    def answer(handler: Handler, message: str | bytes) -> None:
        handler.write_message("bye")
        seen.append(client.has_unread(PATIENCE))

    async with serving(handler_class, calls=[answer]) as url, raw_client(url, **headers) as client:
        for _ in range(2):
            await client.send_frame(TEXT, b"x")
            assert await client.receive() is not None
        await end(client)
    assert seen == [True, True]


@pytest.mark.gen_test
async def test_other_writes_of_the_callback_wait_for_its_end_or_for_flush() -> None:
    seen: list[bool] = []

    def answer(handler: Handler, message: str | bytes) -> None:
        assert handler.ws_connection is not None
        for number in range(3):
            handler.write_message(f"{number}")
            seen.append(client.has_unread(0 if number else PATIENCE))
            client.sock.recv(100) if seen[-1] else None
        handler.ws_connection.flush()
        seen.append(client.has_unread(PATIENCE))
        handler.write_message("last")

    async with serving(Handler, calls=[answer]) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert [await client.receive() for _ in range(3)] == [Frame(TEXT, text) for text in (b"1", b"2", b"last")]
        await end(client)
    assert seen == [True, False, False, True]


@pytest.mark.gen_test
@pytest.mark.parametrize("handler_class", [Handler, CoroutineHandler])
async def test_answers_to_messages_that_came_together_go_out_at_the_last(handler_class: type[Handler]) -> None:
    seen: list[bool] = []

    def answer(handler: Handler, message: str | bytes) -> None:
        handler.write_message(message)
        seen.append(client.has_unread(PATIENCE if message == "2" else 0))

    async with serving(handler_class, calls=[answer]) as url, raw_client(url) as client:
        await client.send(*(client.frame(TEXT, b"%d" % number) for number in range(3)))
        assert [await client.receive() for _ in range(3)] == [Frame(TEXT, b"%d" % number) for number in range(3)]
        await end(client)
    assert seen == [False, False, True]


@pytest.mark.gen_test
async def test_answers_to_messages_that_waited_for_a_coroutine_go_out_at_the_last() -> None:
    seen: list[tuple[str | bytes, bool]] = []
    may_go_on = asyncio.Event()

    class Slow(Echo):
        async def on_message(self, message: str | bytes) -> None:
            if message == "0":
                await may_go_on.wait()
                return
            await self.write_message(message)
            seen.append((message, client.has_unread(PATIENCE if message == "3" else 0)))

    async with serving(Slow) as url, raw_client(url) as client:
        await client.send(*(client.frame(TEXT, b"%d" % number) for number in range(4)), client.frame(PING))
        assert await client.receive() == Frame(PONG)
        may_go_on.set()
        assert [await client.receive() for _ in range(3)] == [Frame(TEXT, b"%d" % number) for number in (1, 2, 3)]
        await end(client)
    assert seen == [("1", False), ("2", False), ("3", True)]


@pytest.mark.gen_test
async def test_a_client_s_callback_sends_its_first_write_at_once() -> None:
    seen: list[bool] = []

    def on_message(message: str | bytes | None) -> None:
        if message is not None:
            conn.write_message(b"answer", binary=True)
            seen.append(peer.has_unread(PATIENCE))

    async with raw_server() as server:
        connecting = websocket_connect(server.url, on_message_callback=on_message)
        peer = await server.accept()
        conn = await connecting
        await peer.send_frame(TEXT, b"x")
        assert await peer.receive() == Frame(BINARY, b"answer")
        conn.close()
        peer.close()
    assert seen == [True]
