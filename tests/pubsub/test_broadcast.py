"""One message to many connections: whom it reaches, and that it is compressed once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import Any

import pytest

from tests.peer import RawPeer, StallingEcho, raw_client
from tests.support import Echo, connected, serving, until
from tests.wire import BINARY, TEXT, Frame
from tornado_ws import WebSocketClientConnection, WebSocketHandler, broadcast
from tornado_ws.connection.interfaces import WebSocketParams
from tornado_ws.connection.protocol13 import WebSocketProtocol13
from tornado_ws.deflate import codec

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
    alone = codec.compress_alone
    compressed: list[bytes] = []

    def counted(data: bytes, options: Any = None, max_wbits: int = 15) -> bytes:
        compressed.append(data)
        return alone(data, options, max_wbits)

    async with contextlib.AsyncExitStack() as stack:
        group = Group(stack, get_compression_options=lambda self: {"backend": backend})
        for wbits in (15, 15, 10, 10, 15):
            await group.join(compression_options={"max_wbits": wbits})
        await group.join()
        monkeypatch.setattr(codec, "compress_alone", counted)
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


@pytest.mark.gen_test
async def test_a_protocol_with_a_write_message_of_its_own_is_asked() -> None:
    class Marking(WebSocketProtocol13):
        def write_message(self, message: Any, binary: bool = False, *, compress: bool = True) -> Any:
            return super().write_message(f"marked {message}", binary)

    protocols = itertools.cycle([WebSocketProtocol13, Marking])

    def make(handler: WebSocketHandler) -> WebSocketProtocol13:
        return next(protocols)(handler, False, WebSocketParams())

    async with contextlib.AsyncExitStack() as stack:
        group = Group(stack, get_websocket_protocol=make)
        for _ in range(4):
            await group.join()
        assert broadcast(group.handlers, "text") == 4
        assert await group.received() == ["text", "marked text"] * 2


@pytest.mark.gen_test
async def test_it_is_counted_and_waits_behind_what_waits_already() -> None:
    calls: list[Any] = []
    large = bytes(1 << 20)

    class Handler(StallingEcho):
        def open(self) -> None:
            super().open()
            calls.append(self)

    async def check(handlers: list[Any], slow: RawPeer, fast: RawPeer) -> None:
        handlers[0].write_message(large, binary=True)
        assert broadcast(handlers, "behind") == 2
        assert broadcast(iter(handlers), large, binary=True) == 2
        counters = [handler.ws_connection.counters for handler in handlers]
        assert [each.messages_out for each in counters] == [3, 2]
        assert [each.message_bytes_out for each in counters] == [2 * len(large) + 6, len(large) + 6]
        assert [each.wire_bytes_out for each in counters] == [2 * (len(large) + 10) + 8, len(large) + 18]
        assert [await fast.receive(), await fast.receive()] == [Frame(TEXT, b"behind"), Frame(BINARY, large)]
        expected = [Frame(BINARY, large), Frame(TEXT, b"behind"), Frame(BINARY, large)]
        assert [await slow.receive() for _ in expected] == expected

    async with serving(Handler) as url, raw_client(url, stalling=True) as slow:
        await until(lambda: calls)
        async with raw_client(url) as fast:
            await until(lambda: len(calls) == 2)
            await check(calls, slow, fast)


@pytest.mark.gen_test
async def test_in_a_callback_it_goes_out_in_its_turn() -> None:
    class Handler(Echo):
        def on_message(self, message: str | bytes) -> Any:
            self.write_message("before")
            broadcast([self], "to all")
            self.write_message("after")

    async with serving(Handler) as url, connected(url) as client:
        await client.write_message("go")
        assert [await client.read_message() for _ in range(3)] == ["before", "to all", "after"]


@pytest.mark.gen_test
async def test_another_thread_is_told_off() -> None:
    async with contextlib.AsyncExitStack() as stack:
        group = Group(stack)
        await group.join()
        with pytest.raises(RuntimeError, match="write_message_threadsafe"):
            await asyncio.get_running_loop().run_in_executor(None, broadcast, group.handlers, "text")
        assert broadcast(group.handlers, "after") == 1
        assert await group.received() == ["after"]


@pytest.mark.gen_test
@pytest.mark.parametrize("policy", ["raise", "drop", "close"])
@pytest.mark.parametrize("compression", [None, {}])
async def test_those_that_refuse_it_are_not_counted(policy: str, compression: dict[str, Any] | None) -> None:
    handlers: list[Any] = []

    class Handler(StallingEcho):
        websocket_write_limit = 1 << 20
        websocket_write_limit_policy = policy

        def get_compression_options(self) -> dict[str, Any] | None:
            return compression

        def open(self) -> None:
            super().open()
            handlers.append(self)

    extensions = "permessage-deflate" if compression is not None else None
    async with serving(Handler) as url, raw_client(url, stalling=True, Sec_WebSocket_Extensions=extensions):
        await until(lambda: handlers)
        async with connected(url) as reading:
            await until(lambda: len(handlers) == 2)
            while handlers[0].ws_connection.buffered_amount < 1 << 20:
                handlers[0].write_message(random.randbytes(300_000), binary=True)
            assert broadcast(handlers, "news") == 1
            assert await reading.read_message() == "news"


@pytest.mark.gen_test
async def test_a_stream_that_has_no_room_keeps_it_from_nobody() -> None:
    handlers: list[Any] = []

    class Handler(StallingEcho):
        def open(self) -> None:
            super().open()
            handlers.append(self)

    async with serving(Handler) as url, raw_client(url, stalling=True):
        await until(lambda: handlers)
        async with connected(url) as reading:
            await until(lambda: len(handlers) == 2)
            handlers[0].ws_connection.stream.max_write_buffer_size = 1 << 20
            handlers[0].write_message(bytes(1 << 20), binary=True)
            assert handlers[0].ws_connection.buffered_amount > 1 << 19
            assert broadcast(handlers, "x" * (1 << 20)) == 1
            assert await reading.read_message() == "x" * (1 << 20)
