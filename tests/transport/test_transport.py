"""Bytes between a connection and its socket: writes that wait, whoever closes the stream, both pollers, TLS."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import weakref
import zlib
from typing import Any

import pytest
from tornado.iostream import IOStream, StreamBufferFullError, StreamClosedError

from tests.conftest import Log
from tests.peer import (
    SMALL_BUFFER,
    Recording,
    Sockets,
    StallingEcho,
    opening_request,
    raw_client,
    raw_pair,
    raw_server,
    unanswered_client,
)
from tests.support import Echo, serving, until
from tests.wire import BINARY, CLOSE, PING, PONG, RSV1, TEXT, Frame
from tornado_ws import WebSocketClosedError, websocket_connect
from tornado_ws.engine.channel import plain_socket


class Keeping(StallingEcho):
    """Puts itself into a list, for the test to act on."""

    def initialize(self, handlers: list[Any], calls: list[Any]) -> None:
        self.handlers = handlers
        self.calls = calls

    def open(self) -> None:
        super().open()
        self.handlers.append(self)

    def on_close(self) -> None:
        self.calls.append((self.close_code, self.close_reason))

    @property
    def stream_of_it(self) -> Any:
        protocol: Any = self.ws_connection
        return protocol.stream


class Compressing(Keeping):
    def get_compression_options(self) -> dict[str, Any]:
        return {}


class Kept:
    """A server with one `Keeping` handler, and a raw client of it."""

    def __init__(self, handler: type[Keeping] = Keeping) -> None:
        self.handlers: list[Keeping] = []
        self.calls: list[Any] = []
        self.routes = [("/", handler, {"handlers": self.handlers, "calls": self.calls})]

    async def handler(self) -> Keeping:
        await until(lambda: self.handlers)
        return self.handlers[0]


#: More than the small buffers of a stalling pair take.
LARGE = b"%0999999d" % 7


# Writing


@pytest.mark.gen_test
async def test_a_write_that_the_kernel_takes_is_done_at_once(each_poller: str) -> None:
    kept = Kept()
    async with serving(kept.routes) as url, raw_client(url) as client:
        handler = await kept.handler()
        future = handler.write_message("hello")
        assert future.done()
        await future
        assert await client.receive() == Frame(TEXT, b"hello")


@pytest.mark.gen_test
@pytest.mark.rfc("6455-6.1-transmitted")
async def test_writes_to_a_stalled_reader_wait_and_arrive_in_order(each_poller: str) -> None:
    kept = Kept()
    async with serving(kept.routes) as url, raw_client(url, stalling=True) as client:
        handler = await kept.handler()
        futures = [handler.write_message(f"{number}".encode() + LARGE, binary=True) for number in range(4)]
        await asyncio.sleep(0.05)
        assert not any(future.done() for future in futures)
        finished: list[int] = []
        for number, future in enumerate(futures):
            future.add_done_callback(lambda _, number=number: finished.append(number))  # type: ignore[misc]
        # While some wait no other may overtake them, small as it is.
        handler.ping(b"behind")
        futures.append(handler.write_message("small"))
        assert not futures[-1].done()
        for number in range(4):
            assert await client.receive() == Frame(BINARY, f"{number}".encode() + LARGE)
        assert await client.receive() == Frame(PING, b"behind")
        assert await client.receive() == Frame(TEXT, b"small")
        await asyncio.gather(*futures)
        assert finished == [0, 1, 2, 3]
        # And once all is sent, writes are done at once again.
        assert handler.write_message("x").done()


@pytest.mark.gen_test
async def test_waiting_for_each_write_keeps_the_memory_small() -> None:
    kept = Kept()
    async with serving(kept.routes) as url, raw_client(url, stalling=True) as client:
        handler = await kept.handler()
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                await handler.write_message(bytes(10000), binary=True)
                written += 1

        writing = asyncio.ensure_future(write())
        stalled_at = -1
        while stalled_at != written:
            stalled_at = written
            await asyncio.sleep(0.05)
        assert stalled_at < 100
        for _ in range(stalled_at + 20):
            assert await client.receive() == Frame(BINARY, bytes(10000))
        await until(lambda: written >= stalled_at + 20)
        writing.cancel()
        await asyncio.wait([writing])


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["RST", "stream.close", "abort"])
@pytest.mark.rfc("6455-6.1-open")
async def test_writes_that_wait_fail_when_the_connection_is_lost(way: str, log: Log, each_poller: str) -> None:
    kept = Kept()
    async with serving(kept.routes) as url, raw_client(url, stalling=True) as client:
        handler = await kept.handler()
        stream = handler.stream_of_it
        awaited = handler.write_message(LARGE)
        handler.write_message(LARGE)
        cancelled = handler.write_message(LARGE)
        cancelled.cancel()
        if way == "RST":
            client.reset()
        elif way == "abort":
            handler.ws_connection._abort()  # type: ignore[union-attr]
        else:
            stream.close()
        with pytest.raises(WebSocketClosedError):
            await awaited
        await until(lambda: kept.calls)
        with pytest.raises(WebSocketClosedError):
            handler.write_message("x")
        with pytest.raises(StreamClosedError):
            stream.write(b"x")
    del awaited
    gc.collect()
    assert kept.calls == [(None, None)]
    # The write that nobody waited for left no "exception was never retrieved".
    assert " bytes unsent, 2 writes waiting" in log.only().getMessage()


@pytest.mark.gen_test
async def test_a_write_that_finds_the_peer_gone() -> None:
    """Reading is paused, so that nothing but the write can find it out."""
    calls: list[Any] = []
    released = asyncio.Event()

    class Busy(Recording):
        async def on_message(self, message: str | bytes) -> None:
            self.ws_connection._transport.pause_reading()  # type: ignore[union-attr]
            self.calls.append(message)
            await released.wait()
            self.write_message("into the void")
            await asyncio.sleep(0.02)
            try:
                await self.write_message("again")
            except WebSocketClosedError:
                self.calls.append("closed")

    async with serving(Busy, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        await until(lambda: "x" in calls)
        client.reset()
        await asyncio.sleep(0.01)
        released.set()
        await until(lambda: len(calls) == 4)
    assert calls == ["open", "x", "closed", ("close", None, None)]


@pytest.mark.gen_test
async def test_what_is_written_in_one_callback_is_sent_together_and_in_order() -> None:
    class Talking(Echo):
        def on_message(self, message: str | bytes) -> None:
            for number in range(200):
                # Some too large to be gathered with others.
                size = 30000 if number % 50 == 7 else 3
                self.write_message(b"%03d" % number + bytes(size), binary=True)
            self.ping(b"last")

    async with serving(Talking) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        for number in range(200):
            received = await client.receive()
            assert received is not None
            assert int(received.payload[:3]) == number
        assert await client.receive() == Frame(PING, b"last")


@pytest.mark.gen_test
async def test_the_application_may_write_to_the_stream() -> None:
    class Mixing(Echo):
        def on_message(self, message: str | bytes) -> None:
            stream: Any = self.ws_connection.stream  # type: ignore[union-attr]
            self.write_message("1")
            stream.write(b"\x81\x012")
            self.write_message("3")
            stream.write(memoryview(b"\x82\x014"))
            self.write_message("5")

    async with serving(Mixing) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        received = [await client.receive() for _ in range(5)]
        assert received == [Frame(BINARY if text == b"4" else TEXT, text) for text in (b"1", b"2", b"3", b"4", b"5")]


@pytest.mark.gen_test
async def test_the_applications_writes_to_the_stream_wait_in_order() -> None:
    kept = Kept()
    async with serving(kept.routes) as url, raw_client(url, stalling=True) as client:
        handler = await kept.handler()
        stream = handler.stream_of_it
        first = handler.write_message(LARGE, binary=True)
        second = stream.write(b"\x81\x06middle")
        handler.write_message("last")
        assert not first.done()
        assert await client.receive() == Frame(BINARY, LARGE)
        assert await client.receive() == Frame(TEXT, b"middle")
        assert await client.receive() == Frame(TEXT, b"last")
        await second


# Closing


@pytest.mark.gen_test
@pytest.mark.parametrize("inside", [False, True], ids=["outside a callback", "in on_message"])
async def test_closing_the_stream_closes_the_connection(inside: bool, each_poller: str) -> None:
    class Closing(Keeping):
        def on_message(self, message: str | bytes) -> None:
            self.write_message("goodbye")
            self.stream_of_it.close()

    kept = Kept()
    routes = [("/", Closing, {"handlers": kept.handlers, "calls": kept.calls})]
    async with serving(routes) as url, raw_client(url) as client:
        handler = await kept.handler()
        protocol: Any = handler.ws_connection
        if inside:
            await client.send_frame(TEXT, b"x")
            assert await client.receive() == Frame(TEXT, b"goodbye")
        else:
            protocol.stream.close()
        assert await client.receive() is None
        await until(lambda: kept.calls)
        assert protocol.is_closing()
        assert protocol.stream.socket is None
    assert kept.calls == [(None, None)]


@pytest.mark.gen_test
async def test_what_waits_is_sent_before_the_connection_is_closed_in_good_order(each_poller: str) -> None:
    kept = Kept()
    async with serving(kept.routes) as url, raw_client(url, stalling=True) as client:
        handler = await kept.handler()
        future = handler.write_message(LARGE, binary=True)
        await client.send_frame(CLOSE, b"\x03\xe8")
        await asyncio.sleep(0.02)
        assert await client.receive_rest() == [Frame(BINARY, LARGE), Frame(CLOSE, b"\x03\xe8")]
        await future
        await until(lambda: kept.calls)
    assert kept.calls == [(1000, None)]


@pytest.mark.gen_test
async def test_a_peer_that_takes_nothing_more_is_cut_off_after_the_closing_handshake() -> None:
    kept = Kept()
    async with serving(kept.routes, websocket_close_timeout=0.05) as url, raw_client(url, stalling=True) as client:
        handler = await kept.handler()
        future = handler.write_message(LARGE, binary=True)
        await client.send_frame(CLOSE, b"\x03\xe8")
        with pytest.raises(WebSocketClosedError):
            await future
        await until(lambda: kept.calls)
    assert kept.calls == [(1000, None)]


@pytest.mark.gen_test
async def test_nothing_is_kept_of_a_connection_that_had_to_wait_for_its_peer_at_the_end() -> None:
    references: list[weakref.ref[Any]] = []

    class Sending(StallingEcho):
        def on_message(self, message: str | bytes) -> None:
            references.append(weakref.ref(self))
            self.write_message(LARGE, binary=True)

    def is_gone() -> bool:
        gc.collect()
        return references[0]() is None

    async with serving(Sending, websocket_close_timeout=1000) as url, raw_client(url, stalling=True) as client:
        await client.send_frame(TEXT, b"go")
        await until(lambda: references)
        await client.send_frame(CLOSE, b"\x03\xe8")
        assert await client.receive_rest() == [Frame(BINARY, LARGE), Frame(CLOSE, b"\x03\xe8")]
        await until(is_gone, timeout=20)


@pytest.mark.gen_test
async def test_a_peer_that_sends_for_ever_after_the_end_is_cut_off(each_poller: str) -> None:
    async with serving(Echo, websocket_close_timeout=0.05) as url, raw_client(url) as client:
        await client.send_frame(0x3)
        assert [frame.opcode for frame in await client.receive_rest()] == [CLOSE]
        assert await client.is_cut_off(bytes(1000))


@pytest.mark.gen_test
async def test_a_reset_while_the_rest_is_read_is_the_end_of_it() -> None:
    async with serving(Echo, websocket_close_timeout=1000) as url:
        sockets = Sockets()
        async with raw_client(url) as client:
            await client.send_frame(0x3)
            assert [frame.opcode for frame in await client.receive_rest()] == [CLOSE]
            client.reset()
        await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_writes_on_a_stream_that_the_application_has_just_closed() -> None:
    """Nobody else knows of it yet, so it is the write that finds out."""
    raised: list[str] = []

    class Closing(Recording):
        def on_message(self, message: str | bytes) -> None:
            protocol: Any = self.ws_connection
            protocol.stream.close()
            for name, argument in (("write_message", "x"), ("write_message", "x" * 100_000), ("write_ping", b"x")):
                try:
                    getattr(protocol, name)(argument)
                except WebSocketClosedError:
                    raised.append(name)

    calls: list[Any] = []
    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        # The ping in the same segment cannot be answered any more.
        await client.send(client.frame(TEXT, b"x"), client.frame(PING, b"x"), client.frame(TEXT, b"y"))
        await until(lambda: len(calls) == 2)
    assert raised == ["write_message", "write_message", "write_ping"]
    assert calls == ["open", ("close", None, None)]


@pytest.mark.gen_test
async def test_a_pong_that_waits_when_the_connection_is_lost(log: Log) -> None:
    kept = Kept()
    async with serving(kept.routes) as url, raw_client(url, stalling=True) as client:
        handler = await kept.handler()
        handler.write_message(LARGE)
        await client.send(client.frame(PING, b"1"), client.frame(PING, b"2"))
        await asyncio.sleep(0.01)
        client.reset()
        await until(lambda: kept.calls)
    assert " bytes unsent, 2 writes waiting" in log.only().getMessage()


@pytest.mark.gen_test
async def test_a_limit_of_the_streams_write_buffer_holds() -> None:
    kept = Kept()
    async with serving(kept.routes) as url, raw_client(url, stalling=True) as client:
        handler = await kept.handler()
        handler.stream_of_it.max_write_buffer_size = 2 * len(LARGE)
        handler.write_message(LARGE, binary=True)
        handler.write_message("between")
        with pytest.raises(StreamBufferFullError):
            handler.write_message(LARGE + LARGE)
        handler.write_message("behind")
        assert await client.receive() == Frame(BINARY, LARGE)
        assert await client.receive() == Frame(TEXT, b"between")
        assert await client.receive() == Frame(TEXT, b"behind")


@pytest.mark.gen_test
async def test_a_compressed_message_that_the_stream_has_no_room_for_is_forgotten() -> None:
    """What comes behind refers to nothing that the peer did not get."""
    kept = Kept(Compressing)
    headers: dict[str, Any] = {"Sec_WebSocket_Extensions": "permessage-deflate"}
    lost = os.urandom(20_000)
    async with serving(kept.routes) as url, raw_client(url, stalling=True, **headers) as client:
        handler = await kept.handler()
        handler.write_message(LARGE, binary=True, compress=False)
        handler.write_message("before")
        connection: Any = handler.ws_connection
        connection.stream.max_write_buffer_size = connection.buffered_amount + 10_000
        with pytest.raises(StreamBufferFullError):
            handler.write_message(lost, binary=True)
        handler.write_message(lost[:1000], binary=True)
        assert await client.receive() == Frame(BINARY, LARGE)
        inflater = zlib.decompressobj(-15)
        for expected in (b"before", lost[:1000]):
            frame = await client.receive()
            assert frame is not None
            assert frame.rsv == RSV1
            assert inflater.decompress(frame.payload + b"\x00\x00\xff\xff") == expected


# What the stream had read or not written before


@pytest.mark.gen_test
async def test_bytes_in_the_hands_of_http_are_taken_over_by_the_client() -> None:
    """A long 101 with much behind it comes in more than one chunk of the HTTP reader."""
    early = b"".join(b"\x82\x7e\x03\xe8" + b"%01000d" % number for number in range(200))
    async with raw_pair(early=early, headers={"X_Long": "x" * 3000}) as (conn, peer):
        for number in range(200):
            assert int(await conn.read_message() or b"") == number
        await peer.send_frame(PING, b"still there?")
        assert await peer.receive() == Frame(PONG, b"still there?")


@pytest.mark.gen_test
async def test_a_server_that_ends_right_after_its_101() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        peer = await server.accept(early=b"\x81\x03bye")
        peer.half_close()
        conn = await connecting
        assert await conn.read_message() == "bye"
        assert await conn.read_message() is None
        assert conn.close_code is None
        conn.close()


class LongAnswer(Recording):
    """Answers the opening handshake with more than a socket takes at once."""

    def set_default_headers(self) -> None:
        connection: Any = self.request.connection
        connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        self.set_header("X-Long", "x" * 1_000_000)


@pytest.mark.gen_test
async def test_frames_follow_an_answer_that_has_to_wait() -> None:
    calls: list[Any] = []

    class Handler(LongAnswer):
        def open(self) -> None:
            super().open()
            self.write_message("welcome")

    async with serving(Handler, calls=calls) as url:
        async with raw_client(url, stalling=True) as client:
            assert len(client.header("X-Long") or "") == 1_000_000
            assert await client.receive() == Frame(TEXT, b"welcome")
        await until(lambda: len(calls) == 2)


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["RST", "FIN"])
async def test_a_client_that_leaves_with_the_answer_unread(way: str, log: Log) -> None:
    calls: list[Any] = []
    async with serving(LongAnswer, calls=calls) as url:
        async with unanswered_client(url, stalling=True) as client:
            await client.send(opening_request(url))
            await until(lambda: calls)
            if way == "RST":
                client.reset()
        await until(lambda: len(calls) == 2)
    assert (calls[0], calls[1][0]) == ("open", "close")
    assert " bytes unsent, 1 writes waiting" in log.only().getMessage()


class Reading(IOStream):
    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        return super().read_from_fd(buf)


class Writing(IOStream):
    def write_to_fd(self, data: memoryview) -> int:
        return super().write_to_fd(data)


class OwnSocket(socket.socket):
    pass


@pytest.mark.gen_test
async def test_the_pure_engine_goes_past_streams_that_do_nothing_to_the_bytes() -> None:
    for stream_class, socket_class, is_plain in (
        (IOStream, socket.socket, True),
        (Reading, socket.socket, False),
        (Writing, socket.socket, False),
        (IOStream, OwnSocket, False),
    ):
        ours, theirs = socket.socketpair()
        with theirs:
            stream = stream_class(socket_class(fileno=ours.detach()))
            assert plain_socket(stream) is (stream.socket if is_plain else None)
            stream.close()
