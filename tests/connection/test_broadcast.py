"""One message to many connections: whom it reaches, and that it is compressed once."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

from tests.support import Echo, connected, serving, until
from tornado_ws import WebSocketClientConnection, WebSocketHandler, broadcast, deflate

TEXTS = [f'{{"topic": "news", "number": {number}, "text": "much the same each time"}}' for number in range(40)]


class Group:
    """A server with one handler for each client."""

    def __init__(self, stack: contextlib.AsyncExitStack, **attributes: Any) -> None:
        self.handlers: list[WebSocketHandler] = []
        self.clients: list[WebSocketClientConnection] = []
        self.stack = stack
        group = self

        class Member(Echo):
            def open(self, *args: str, **kwargs: str) -> None:
                group.handlers.append(self)

        self.handler = type("Member", (Member,), attributes)

    async def join(self, **options: Any) -> None:
        if not hasattr(self, "url"):
            self.url = await self.stack.enter_async_context(serving(self.handler))
        self.clients.append(await self.stack.enter_async_context(connected(self.url, **options)))
        await until(lambda: len(self.handlers) == len(self.clients))

    async def received(self) -> list[Any]:
        return [await client.read_message() for client in self.clients]


@pytest.mark.gen_test
async def test_everybody_gets_it_and_those_that_are_gone_are_left_out() -> None:
    async with contextlib.AsyncExitStack() as stack:
        group = Group(stack)
        for _ in range(4):
            await group.join()
        group.clients.pop(2).close()
        await until(lambda: group.handlers[2].ws_connection is None)
        assert broadcast(group.handlers, "text") == 3
        assert broadcast(group.handlers, b"bytes", binary=True) == 3
        assert broadcast(group.handlers, {"a": 1}) == 3
        for expected in ("text", b"bytes", '{"a": 1}'):
            assert await group.received() == [expected] * 3
        # From the clients' side, where every frame is masked by itself.
        assert broadcast(group.clients, "hello") == 3
        assert await group.received() == ["hello"] * 3


@pytest.mark.gen_test
async def test_what_is_wrong_is_sent_to_nobody() -> None:
    async with contextlib.AsyncExitStack() as stack:
        group = Group(stack)
        await group.join()
        with pytest.raises(TypeError, match="int"):
            broadcast(group.handlers, 1)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="utf-8"):
            broadcast(group.handlers, b"\xff")
        broadcast(group.handlers, "after")
        assert await group.received() == ["after"]


@pytest.mark.gen_test
@pytest.mark.parametrize("backend", ["zlib", "zlib_ng", "isal"])
async def test_it_is_compressed_once_for_all_that_agreed_on_the_same(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = deflate.compress_alone
    compressed: list[bytes] = []

    def counted(data: bytes, options: Any = None, max_wbits: int = 15) -> bytes:
        compressed.append(data)
        return alone(data, options, max_wbits)

    async with contextlib.AsyncExitStack() as stack:
        group = Group(stack, get_compression_options=lambda self: {"backend": backend})
        for wbits in (15, 15, 10, 10, 15):
            await group.join(compression_options={"max_wbits": wbits})
        await group.join()
        monkeypatch.setattr(deflate, "compress_alone", counted)
        assert broadcast(group.handlers, TEXTS[0] * 10) == 6
        assert await group.received() == [TEXTS[0] * 10] * 6
        # One for each of two windows; the last client has no compression.
        assert compressed == [TEXTS[0].encode() * 10] * 2


@pytest.mark.gen_test
@pytest.mark.parametrize("backend", ["zlib", "zlib_ng", "isal"])
@pytest.mark.parametrize("takeover", [True, False])
async def test_messages_of_one_and_of_all_go_through_each_other(backend: str, takeover: bool) -> None:
    """What each connection's compressor knows has to be what its peer has seen."""
    options = {"backend": backend, "server_no_context_takeover": not takeover, "threshold": 0}
    randomly = random.Random(7)
    async with contextlib.AsyncExitStack() as stack:
        group = Group(stack, get_compression_options=lambda self: options)
        for _ in range(3):
            await group.join(compression_options={})
        expected: list[list[str]] = [[], [], []]
        for _ in range(200):
            text = randomly.choice(TEXTS) * randomly.choice([1, 3, 100])
            if randomly.random() < 0.4:
                broadcast(group.handlers, text)
                for messages in expected:
                    messages.append(text)
            else:
                number = randomly.randrange(3)
                group.handlers[number].write_message(text)
                expected[number].append(text)
        for client, messages in zip(group.clients, expected, strict=True):
            assert [await client.read_message() for _ in messages] == messages


@pytest.mark.gen_test
async def test_a_small_message_below_the_threshold_goes_as_it_is() -> None:
    async with contextlib.AsyncExitStack() as stack:
        group = Group(stack, get_compression_options=lambda self: {"threshold": 1000})
        await group.join(compression_options={})
        connection: Any = group.handlers[0].ws_connection
        before = connection.counters.wire_bytes_out
        broadcast(group.handlers, "x" * 100)
        assert await group.received() == ["x" * 100]
        assert connection.counters.wire_bytes_out == before + 102
