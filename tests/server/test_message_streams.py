"""Handlers that read messages in parts (``on_message_stream``)."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from typing import Any, ClassVar

import pytest

from tests.conftest import Log, Tls
from tests.connection.violations import MAX_MESSAGE_SIZE, UNMASKED, VIOLATIONS, Violation, each
from tests.peer import Recording, end, raw_client, tls_client
from tests.support import connected, serving, until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, Frame, close_payload, deflated
from tornado_ws import MessageStream, WebSocketClosedError, WebSocketHandler, close_all, websocket_connect

KIB = 1024


class Streaming(Recording):
    """Writes down what it reads: for each message its kind and its parts, and what ended it."""

    def get_compression_options(self) -> dict[str, Any] | None:
        return {}

    def on_message(self, message: str | bytes) -> Any:
        raise AssertionError("on_message was called")

    async def on_message_stream(self, stream: MessageStream) -> None:
        parts: list[Any] = []
        self.calls.append((stream.is_binary, parts))
        async for part in stream:
            parts.append(part)
        self.calls.append("read")
        await self.write_message("read")


def joined(calls: list[Any]) -> list[Any]:
    """Return the messages among ``calls``."""
    found = [call[1] for call in calls if isinstance(call, tuple) and isinstance(call[1], list)]
    return [parts[0][:0].join(parts) for parts in found]


@pytest.mark.gen_test
async def test_parts_come_before_their_frame_is_whole() -> None:
    calls: list[Any] = []
    async with serving(Streaming, calls=calls) as url, raw_client(url) as client:
        frame = client.frame(BINARY, b"abcdefgh")
        await client.send(frame[:-5])
        await until(lambda: calls[-1] == (True, [b"abc"]))
        await client.send(frame[-5:])
        assert await client.receive() == Frame(TEXT, b"read")
        assert calls == ["open", (True, [b"abc", b"defgh"]), "read"]
        await end(client)


@pytest.mark.gen_test
async def test_whole_messages_fragments_and_empty_ones() -> None:
    calls: list[Any] = []
    async with serving(Streaming, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"whole")
        await client.send_frame(BINARY, b"")
        await client.send(client.frame(TEXT, b"\xe2", fin=False), client.frame(PING, b"between"))
        await client.send(client.frame(CONTINUATION, b"\x82", fin=False), client.frame(CONTINUATION, b"\xac"))
        await client.send(client.frame(TEXT, b"", fin=False), client.frame(CONTINUATION, b""))
        frames = [await client.receive() for _ in range(5)]
        assert [frame.opcode for frame in frames if frame] == [TEXT, TEXT, PONG, TEXT, TEXT]
        parts: list[Any] = [call for call in calls if isinstance(call, tuple)]
        assert parts == [(False, ["whole"]), (True, []), (False, ["€"]), (False, [])]
        await end(client)


@pytest.mark.gen_test
@pytest.mark.parametrize("takeover", [True, False])
async def test_compressed_messages_of_our_own_client(takeover: bool) -> None:
    calls: list[Any] = []

    class Handler(Streaming):
        websocket_max_part_size = 1000

        def get_compression_options(self) -> dict[str, Any]:
            return {"client_no_context_takeover": not takeover}

    message = "some text, ünd more of it " * 5000
    async with serving(Handler, calls=calls) as url, connected(url, compression_options={}) as conn:
        for _ in range(2):
            await conn.write_message(message)
            assert await conn.read_message() == "read"
        counters = conn._ws_protocol.counters  # type: ignore[union-attr]
        assert counters.wire_bytes_out < counters.message_bytes_out / 10
    assert joined(calls) == [message, message]
    assert max(len(part.encode()) for part in calls[1][1]) == 1000


@pytest.mark.gen_test
async def test_parts_over_tls(tls: Tls) -> None:
    calls: list[Any] = []
    data = os.urandom(500 * KIB)
    async with serving(Streaming, calls=calls, ssl_options=tls.server) as url, tls_client(url, tls.client) as client:
        await client.send_frame(BINARY, data)
        assert await client.receive() == Frame(TEXT, b"read")
        await end(client)
    assert joined(calls) == [data]


class Held(WebSocketHandler):
    """Reads a part for each token that a test gives."""

    made: ClassVar[list[Held]] = []

    def initialize(self) -> None:
        self.tokens = asyncio.Semaphore(0)
        self.got = 0
        self.made.append(self)

    async def on_message_stream(self, stream: MessageStream) -> None:
        await self.tokens.acquire()
        async for part in stream:
            self.got += len(part)
            await self.tokens.acquire()


@pytest.mark.gen_test
async def test_nothing_is_read_from_the_socket_while_no_part_is_asked_for() -> None:
    Held.made.clear()
    size = 32 * KIB * KIB
    async with serving([("/", Held)]) as url, raw_client(url) as client:
        sending = asyncio.ensure_future(client.send_frame(BINARY, bytes(size)))
        await until(lambda: Held.made)
        handler = Held.made[0]
        protocol: Any = handler.ws_connection
        await until(lambda: protocol._transport is not None and not protocol._transport.reading)
        for _ in range(3):
            # The reader has a chunk, the stream two parts, and the application has had one for each token.
            got = handler.got
            assert protocol.counters.wire_bytes_in <= got + 4 * 64 * KIB
            handler.tokens.release()
            await until(functools.partial(lambda before: handler.got > before, got))
            await until(lambda: not protocol._transport.reading)
        assert not sending.done()
        for _ in range(size // KIB):
            handler.tokens.release()
        await until(lambda: handler.got == size)
        await sending
        await end(client)


@pytest.mark.gen_test
async def test_what_a_coroutine_leaves_of_its_message_is_dropped_and_the_next_message_waits() -> None:
    calls: list[Any] = []

    class Handler(Recording):
        async def on_message_stream(self, stream: MessageStream) -> None:
            self.calls.append(("begins", await stream.read()))
            await self.write_message("begun")
            self.calls.append("ends")
            self.left = stream

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        for number in (b"1", b"2"):
            await client.send(client.frame(BINARY, number, fin=False))
            await client.receive()
            for _ in range(10):
                await client.send(client.frame(CONTINUATION, bytes(50 * KIB), fin=False))
            await client.send(client.frame(CONTINUATION, bytes(50 * KIB)))
        await client.send_frame(TEXT, b"3")
        await client.receive()
        await end(client)
    read = [("begins", b"1"), "ends", ("begins", b"2"), "ends", ("begins", "3"), "ends"]
    assert calls == ["open", *read, ("close", None, None)]


@pytest.mark.gen_test
async def test_a_message_that_was_left_cannot_be_read_and_is_checked_all_the_same() -> None:
    calls: list[Any] = []

    class Handler(Recording):
        def on_message_stream(self, stream: MessageStream) -> None:
            self.calls.append(stream)

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"a", fin=False)
        await until(lambda: len(calls) == 2)
        with pytest.raises(RuntimeError, match="was left before its end"):
            await calls[1].read()
        await client.send_frame(CONTINUATION, b"\xff", fin=False)
        frames = await client.receive_rest()
        assert [(frame.opcode, frame.payload[:2]) for frame in frames] == [(CLOSE, (1007).to_bytes(2, "big"))]


@pytest.mark.gen_test
async def test_a_plain_function_may_return_what_is_awaited() -> None:
    calls: list[Any] = []

    class Handler(Streaming):
        def on_message_stream(self, stream: MessageStream) -> Any:
            return asyncio.ensure_future(super().on_message_stream(stream))

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(BINARY, b"ab", fin=False)
        await client.send_frame(CONTINUATION, b"cd")
        assert await client.receive() == Frame(TEXT, b"read")
        await end(client)
    assert joined(calls) == [b"abcd"]


@pytest.mark.gen_test
async def test_a_message_that_begins_while_open_is_busy_waits_for_it() -> None:
    calls: list[Any] = []
    opened = asyncio.Event()
    protocols: list[Any] = []

    class Handler(Streaming):
        async def open(self) -> None:  # type: ignore[override]
            protocols.append(self.ws_connection)
            await opened.wait()
            self.calls.append("open")

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        sending = asyncio.ensure_future(client.send_frame(BINARY, bytes(16 * KIB * KIB)))
        # Parts of it wait, and no more is read.
        await until(lambda: protocols and protocols[0].counters.wire_bytes_in and not protocols[0]._transport.reading)
        assert not sending.done()
        assert calls == []
        opened.set()
        await sending
        assert await client.receive() == Frame(TEXT, b"read")
        await end(client)
    assert sum(len(part) for part in calls[1][1]) == 16 * KIB * KIB


# Ends


class Ended(Recording):
    async def on_message_stream(self, stream: MessageStream) -> None:
        try:
            while True:
                self.calls.append(await stream.read())
        except WebSocketClosedError as error:
            self.calls.append((error.close_code, error.close_reason))
            # And again, as often as it is asked for.
            raise


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["close frame", "FIN", "RST"])
async def test_the_end_of_the_connection_inside_a_message(way: str, log: Log) -> None:
    calls: list[Any] = []
    async with serving(Ended, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(BINARY, b"half", fin=False)
        await until(lambda: len(calls) == 2)
        if way == "close frame":
            await client.send_frame(CLOSE, close_payload(1001, "gone"))
            await client.receive_rest()
        elif way == "FIN":
            client.half_close()
        else:
            client.reset()
        await until(lambda: len(calls) == 4)
    closed = (1001, "gone") if way == "close frame" else (None, None)
    assert calls == ["open", b"half", closed if closed[0] else (1006, None), ("close", *closed)]
    assert all(record.levelno < logging.ERROR for record in log.records)


@pytest.mark.gen_test
@each(*VIOLATIONS, UNMASKED)
@pytest.mark.rfc("6455-7.1.7-close-frame", "6455-7.1.7-nothing-more")
async def test_a_violation_is_answered_as_in_whole_messages(violation: Violation, log: Log) -> None:
    calls: list[Any] = []
    offer: dict[str, Any] = {"Sec_WebSocket_Extensions": "permessage-deflate"} if violation.deflate else {}
    async with (
        serving(Streaming, calls=calls, websocket_max_stream_size=MAX_MESSAGE_SIZE) as url,
        raw_client(url, **offer) as client,
    ):
        rsv = RSV1 if violation.deflate else 0
        before = client.frame(TEXT, deflated(b"before") if rsv else b"before", rsv=rsv)
        await client.send(before, violation.build(client.frame), client.frame(PING, b"no answer to this"))
        frames = [frame for frame in await client.receive_rest() if frame.opcode != PONG or frame.payload]
        assert frames.pop(0).opcode == TEXT
        assert [(frame.opcode, frame.payload[:2]) for frame in frames] == [(CLOSE, violation.code.to_bytes(2, "big"))]
        reason = frames[0].payload[2:].decode()
        await until(lambda: calls[-1] == ("close", violation.code, reason))
    assert calls[:3] == ["open", (False, ["before"]), "read"]
    # That of a message which ends is not said.
    assert calls.count("read") == 1
    assert violation.says in log.only().getMessage()


@pytest.mark.gen_test
async def test_a_large_frame_is_read_though_larger_than_a_whole_message_may_be() -> None:
    calls: list[Any] = []
    async with serving(Streaming, calls=calls, websocket_max_message_size=1000) as url, raw_client(url) as client:
        # Nobody has to have the memory that a header announces.
        await client.send(client.frame(BINARY, b"begun", length=10 * KIB**3))
        await until(lambda: calls[-1] == (True, [b"begun"]))


@pytest.mark.gen_test
@pytest.mark.parametrize("size", [1000, 1001])
async def test_read_all_keeps_to_the_size_of_whole_messages(size: int, log: Log) -> None:
    class Handler(Recording):
        async def on_message_stream(self, stream: MessageStream) -> None:
            try:
                self.calls.append(await stream.read_all())
            except WebSocketClosedError as error:
                self.calls.append(error.close_code)
                # What there is of it is no message.
                await stream.read()

    calls: list[Any] = []
    async with serving(Handler, calls=calls, websocket_max_message_size=1000) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"x" * 600, fin=False), client.frame(CONTINUATION, b"x" * (size - 600)))
        if size == 1000:
            await client.send_frame(TEXT, b"")
            await until(lambda: len(calls) == 3)
            await end(client)
            assert calls == ["open", "x" * 1000, "", ("close", None, None)]
        else:
            assert [frame.payload[:2] for frame in await client.receive_rest()] == [(1009).to_bytes(2, "big")]
            await until(lambda: len(calls) == 3)
            assert calls == ["open", 1009, ("close", 1009, "message too big")]
            assert all(record.levelno < logging.ERROR for record in log.records)


@pytest.mark.gen_test
async def test_an_exception_aborts_as_in_on_message(log: Log) -> None:
    class Handler(Recording):
        async def on_message_stream(self, stream: MessageStream) -> None:
            await stream.read()
            await asyncio.sleep(0)
            raise ZeroDivisionError

    calls: list[Any] = []
    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x", fin=False)
        assert await client.receive_rest() == []
        await until(lambda: len(calls) == 2)
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in log.records)


@pytest.mark.gen_test
async def test_close_all_does_not_wait_for_the_rest_of_a_message() -> None:
    calls: list[Any] = []
    handlers: list[Any] = []

    class Handler(Ended):
        def open(self) -> None:
            handlers.append(self)

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(BINARY, b"half", fin=False)
        await until(lambda: calls)
        closing = asyncio.ensure_future(close_all(handlers[0].application, timeout=60))
        assert await client.receive() == Frame(CLOSE, close_payload(1001))
        await client.send_frame(CLOSE, close_payload(1001))
        assert await closing == (1, 0)
    assert calls == [b"half", (1001, None), ("close", 1001, None)]


# Reading


class Told(WebSocketHandler):
    """Has a test read."""

    streams: ClassVar[list[MessageStream]] = []
    done: ClassVar[list[asyncio.Event]] = []

    async def on_message_stream(self, stream: MessageStream) -> None:
        self.streams.append(stream)
        self.done.append(asyncio.Event())
        await self.done[-1].wait()


@pytest.mark.gen_test
async def test_a_cancelled_read_loses_nothing() -> None:
    Told.streams.clear()
    Told.done.clear()
    async with serving(Told) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"a", fin=False)
        await until(lambda: Told.streams)
        (stream,), (done,) = Told.streams, Told.done
        assert await stream.read() == "a"
        for read in (stream.read, stream.read_all):
            reading = asyncio.ensure_future(read())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another coroutine is reading"):
                await stream.read()
            # A part is there, as if it had come, and the one who waits for it is cancelled before it runs on.
            stream.put("b", 1, False)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        await client.send_frame(CONTINUATION, b"c")
        assert await stream.read() == "b"
        assert await stream.read_all() == "bc"
        assert await stream.read() is None
        assert await stream.read_all() == ""
        done.set()
        await end(client)


class Busy(Streaming):
    """Busy until it is told, and takes whole messages then."""

    websocket_read_ahead_bytes = 1000
    free: ClassVar[asyncio.Event]

    async def on_message_stream(self, stream: MessageStream) -> None:
        self.calls.append(self)
        await self.free.wait()
        self.calls.append(await stream.read_all())


@pytest.mark.gen_test
async def test_all_parts_of_messages_that_are_read_ahead_count() -> None:
    Busy.free = asyncio.Event()
    calls: list[Any] = []
    async with serving(Busy, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"first")
        await until(lambda: isinstance(calls[-1], Busy))
        protocol: Any = calls[-1].ws_connection
        message = client.frame(BINARY, b"x", fin=False) + client.frame(CONTINUATION, bytes(99))
        await client.send(message * 30)
        await until(lambda: not protocol._transport.reading)
        assert 1000 <= protocol.counters.message_bytes_in <= 1200
        Busy.free.set()
        await until(lambda: len(calls) == 2 + 2 * 30 + 1)
        assert [call for call in calls if isinstance(call, bytes)] == [b"x" + bytes(99)] * 30
        await end(client)


@pytest.mark.gen_test
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_many_small_parts_are_put_together_in_parts_of_no_more_than_their_size(opcode: int) -> None:
    Told.streams.clear()
    Told.done.clear()
    size = 5000
    protocols: list[Any] = []

    class Handler(Told):
        def open(self) -> None:
            protocols.append(self.ws_connection)

    async with serving(Handler, websocket_max_part_size=1000) as url, raw_client(url) as client:
        await client.send(
            client.frame(opcode, b"x", fin=False), client.frame(CONTINUATION, b"x", fin=False) * (size - 1)
        )
        await until(lambda: Told.streams)
        (stream,), (done,) = Told.streams, Told.done
        reading = asyncio.ensure_future(stream.read_all())
        await until(lambda: protocols[0].counters.message_bytes_in == size and not stream._parts)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        # What is not put together yet are those after the last 1024.
        assert len(stream._parts) <= 8 + 1024
        assert max(len(part) for part, _ in stream._parts) == 1000
        assert sum(part_size for _, part_size in stream._parts) == size
        await client.send_frame(CONTINUATION, b"y")
        whole = b"x" * size + b"y"
        assert await stream.read_all() == (whole if opcode == BINARY else whole.decode())
        done.set()
        await end(client)


@pytest.mark.gen_test
async def test_text_as_bytes_is_no_binary_message() -> None:
    class Handler(Streaming):
        websocket_decode_text = False

    calls: list[Any] = []
    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        for opcode in (TEXT, BINARY):
            await client.send_frame(opcode, b"x")
            await client.receive()
        await end(client)
    assert calls == ["open", (False, [b"x"]), "read", (True, [b"x"]), "read", ("close", None, None)]


@pytest.mark.gen_test
async def test_counters_and_a_rate_limit_count_messages_and_not_parts() -> None:
    class Handler(Streaming):
        websocket_message_rate_limit = 0.001
        websocket_message_rate_burst = 2
        websocket_rate_limit_policy = "close"

    calls: list[Any] = []
    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        for _ in range(2):
            pieces = [client.frame(CONTINUATION, b"b", fin=False) for _ in range(9)]
            await client.send(client.frame(BINARY, b"a", fin=False), *pieces, client.frame(CONTINUATION, b"c"))
            assert await client.receive() == Frame(TEXT, b"read")
        await client.send_frame(TEXT, b"one too many")
        frames = await client.receive_rest()
        assert [frame.payload[:2] for frame in frames] == [(1008).to_bytes(2, "big")]
    assert joined(calls) == [b"abbbbbbbbbc"] * 2


@pytest.mark.gen_test
async def test_counters() -> None:
    Held.made.clear()
    async with serving([("/", Held)]) as url, raw_client(url) as client:
        await until(lambda: Held.made)
        (handler,) = Held.made
        await client.send_frame(TEXT, b"abc", fin=False)
        protocol: Any = handler.ws_connection

        def counted() -> tuple[int, int]:
            return protocol.counters.messages_in, protocol.counters.message_bytes_in

        await until(lambda: counted() == (0, 3))
        await client.send_frame(CONTINUATION, b"de")
        await until(lambda: counted() == (1, 5))
        await client.send_frame(TEXT, b"f")
        await until(lambda: protocol._delivery._read_ahead)
        for _ in range(5):
            handler.tokens.release()
        await until(lambda: counted() == (2, 6))
        await end(client)


@pytest.mark.gen_test
async def test_a_codec_is_refused(log: Log) -> None:
    class Handler(Streaming):
        websocket_codec = "json"

    async with serving(Handler, calls=[]) as url:
        with pytest.raises(Exception, match="500"):
            await websocket_connect(url)
    errors = [str(record.exc_info[1]) for record in log.records if record.exc_info]
    assert errors == ["websocket_codec is 'json'; it has to be None where messages are read in parts"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("websocket_max_part_size", 3, "3; it has to be a whole number of bytes, 4 or more"),
        ("websocket_max_stream_size", 0, "0; it has to be a whole number of bytes above 0, or None"),
    ],
)
def test_a_wrong_limit_is_refused_when_the_class_is_made(name: str, value: int, words: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is {words}"):
        type("Handler", (WebSocketHandler,), {name: value})
