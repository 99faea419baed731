"""What is different when bytes come and go through OpenSSL. That wss works is in ``tests/test_transports.py``."""

from __future__ import annotations

import _ssl
import asyncio
import errno
import importlib
import os
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.iostream import SSLIOStream, StreamBufferFullError

from tests.conftest import Log, Tls
from tests.peer import Recording, tls_client
from tests.support import Echo, connected, serving, until
from tests.tls_wire import wire_client
from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, Frame
from tornado_ws import WebSocketClosedError, WebSocketHandler, engine
from tornado_ws.transport.stream import unread


@pytest.fixture(params=["TLSv1.2", "TLSv1.3"])
def tls(request: pytest.FixtureRequest, tls: Tls) -> Iterator[Tls]:
    """The contexts of all tests, held to one version."""
    version = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}[request.param]
    before = tls.client.maximum_version
    tls.client.maximum_version = version
    yield tls
    tls.client.maximum_version = before


@pytest.fixture(params=["ssl module", "OpenSSL itself"], autouse=engine.name == "native")
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The native engine goes through Python's ssl module where it cannot have its session."""
    native = importlib.import_module("tornado_ws.engine._native")
    assert native.direct_tls
    monkeypatch.setattr(native, "direct_tls", request.param == "OpenSSL itself")


#: More than the buffers of two sockets take.
LARGE = bytes(range(256)) * 32 * 1024


def wss_request(url: str, tls: Tls) -> HTTPRequest:
    return HTTPRequest(url.replace("ws://", "wss://"), ssl_options=tls.client)


@pytest.mark.gen_test
async def test_each_engine_goes_the_way_that_it_is_told(tls: Tls) -> None:
    async with serving(Echo, ssl_options=tls.server) as url, connected(wss_request(url, tls)) as conn:
        connection: Any = conn.protocol
        await until(lambda: connection._transport)
        # The pure engine has the ssl module alone.
        told = engine.name == "native" and importlib.import_module("tornado_ws.engine._native").direct_tls
        assert getattr(connection._transport, "has_tls_session", False) == told


@pytest.mark.gen_test
async def test_messages_of_all_sizes_against_the_records(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pure engine reads fewer bytes at once here than a record has; the native one always reads more."""
    monkeypatch.setattr("tornado_ws.engine.channel.READ_SIZE", 1000)
    sizes = [0, 1, 999, 1000, 1001, 16383, 16384, 16385, 32768, 300000]
    async with serving(Echo, ssl_options=tls.server) as url, connected(wss_request(url, tls)) as conn:
        for size in sizes:
            conn.write_message(bytes(size), binary=True)
        for size in sizes:
            assert await conn.read_message() == bytes(size)


@pytest.mark.gen_test
async def test_messages_inside_the_tls_layer_are_not_forgotten_over_a_pause(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What OpenSSL has decrypted already gives no readiness."""
    monkeypatch.setattr("tornado_ws.engine.channel.READ_SIZE", 100)

    class Slow(Echo):
        websocket_read_ahead_messages = 2

        async def on_message(self, message: str | bytes) -> None:
            await asyncio.sleep(0)
            self.write_message(message)

    async with serving(Slow, ssl_options=tls.server) as url, tls_client(url, tls.client) as client:
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(200)])
        for number in range(200):
            assert await client.receive() == Frame(TEXT, b"%d" % number)


@pytest.mark.gen_test
async def test_frames_sent_together_with_the_request(tls: Tls) -> None:
    async with serving(Echo, ssl_options=tls.server) as url:
        early = b"\x81\x85\0\0\0\0hello" + b"\x89\x80\0\0\0\0"
        async with tls_client(url, tls.client, early=early) as client:
            received = [await client.receive(), await client.receive()]
            assert sorted(filter(None, received)) == [Frame(TEXT, b"hello"), Frame(PONG)]


@pytest.mark.gen_test
async def test_a_violation_is_answered_and_the_message_before_it_too(tls: Tls, log: Log) -> None:
    calls: list[Any] = []
    async with (
        serving(Recording, calls=calls, ssl_options=tls.server) as url,
        tls_client(url, tls.client) as client,
    ):
        await client.send(client.frame(TEXT, b"before"), client.frame(0x3), client.frame(BINARY, bytes(100)) * 1000)
        assert await client.receive() == Frame(TEXT, b"before")
        answer = await client.receive()
        assert answer is not None
        assert (answer.opcode, answer.payload[:2]) == (CLOSE, b"\x03\xea")
        assert await client.receive() is None
        await until(lambda: len(calls) == 3)
    assert calls[2][:2] == ("close", 1002)
    assert "reserved opcode" in log.only().getMessage()


@pytest.mark.gen_test
async def test_the_closing_handshake(tls: Tls) -> None:
    calls: list[Any] = []
    async with (
        serving(Recording, calls=calls, ssl_options=tls.server) as url,
        tls_client(url, tls.client) as client,
    ):
        await client.send_frame(CLOSE, b"\x03\xe9")
        assert await client.receive_rest() == [Frame(CLOSE, b"\x03\xe9")]
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 1001, None)]


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["close_notify", "RST"])
async def test_the_end_without_a_closing_handshake(way: str, tls: Tls, log: Log) -> None:
    calls: list[Any] = []
    async with (
        serving(Recording, calls=calls, ssl_options=tls.server) as url,
        tls_client(url, tls.client) as client,
    ):
        await until(lambda: calls)
        if way == "close_notify":
            client.close()
        else:
            client.reset()
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", None, None)]
    assert log.lines == []


@pytest.mark.gen_test
async def test_garbage_in_the_place_of_a_record(tls: Tls, log: Log) -> None:
    calls: list[Any] = []
    async with (
        serving(Recording, calls=calls, ssl_options=tls.server) as url,
        tls_client(url, tls.client) as client,
    ):
        await until(lambda: calls)
        os.write(client.sock.fileno(), b"this is no TLS record at all")
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", None, None)]
    assert log.lines == []


@pytest.mark.gen_test
async def test_large_writes_wait_and_arrive_in_order(tls: Tls) -> None:
    handlers: list[WebSocketHandler] = []

    class Handler(Echo):
        def open(self) -> None:
            handlers.append(self)

    async with serving(Handler, ssl_options=tls.server) as url, tls_client(url, tls.client) as client:
        await until(lambda: handlers)
        futures = [handlers[0].write_message(b"%d" % number + LARGE, binary=True) for number in range(2)]
        handlers[0].ping(b"behind")
        futures.append(handlers[0].write_message("small"))
        await asyncio.sleep(0.02)
        assert not any(future.done() for future in futures)
        for number in range(2):
            assert await client.receive() == Frame(BINARY, b"%d" % number + LARGE)
        assert await client.receive() == Frame(PING, b"behind")
        assert await client.receive() == Frame(TEXT, b"small")
        await asyncio.gather(*futures)


@pytest.mark.gen_test
async def test_a_write_that_the_stream_has_no_room_for_leaves_the_session_whole(tls: Tls) -> None:
    handlers: list[WebSocketHandler] = []

    class Handler(Echo):
        def open(self) -> None:
            handlers.append(self)
            connection: Any = self.ws_connection
            connection.stream.max_write_buffer_size = len(LARGE) + 1000

    async with serving(Handler, ssl_options=tls.server) as url, tls_client(url, tls.client) as client:
        await until(lambda: handlers)
        first = handlers[0].write_message(LARGE, binary=True)
        with pytest.raises(StreamBufferFullError):
            handlers[0].write_message(LARGE, binary=True)
        assert await client.receive() == Frame(BINARY, LARGE)
        await first
        handlers[0].write_message("after")
        assert await client.receive() == Frame(TEXT, b"after")


@pytest.mark.gen_test
async def test_large_writes_fail_when_the_connection_is_lost(tls: Tls) -> None:
    handlers: list[WebSocketHandler] = []
    closed: list[bool] = []

    class Handler(Echo):
        def open(self) -> None:
            handlers.append(self)

        def on_close(self) -> None:
            closed.append(True)

    async with serving(Handler, ssl_options=tls.server) as url, tls_client(url, tls.client) as client:
        await until(lambda: handlers)
        future = handlers[0].write_message(LARGE, binary=True)
        await asyncio.sleep(0.02)
        client.reset()
        with pytest.raises(WebSocketClosedError):
            await future
        await until(lambda: closed)


@pytest.mark.gen_test
async def test_the_socket_goes_on_answering_questions(tls: Tls) -> None:
    answers: list[Any] = []

    class Asking(Echo):
        def on_message(self, message: str | bytes) -> None:
            connection: Any = self.ws_connection
            sock = connection.stream.socket
            answers.extend([sock.version(), sock.cipher()[0] != "", sock.pending(), sock.getpeername()[0]])
            # Whoever writes to the stream writes behind what was written before.
            self.write_message("first")
            connection.stream.write(b"\x81\x06second")
            # Whoever writes to the socket itself knows what they do.
            answers.append(sock.send(b"\x81\x05third"))
            super().on_message(message)

    async with serving(Asking, ssl_options=tls.server) as url, tls_client(url, tls.client) as client:
        await client.send_frame(TEXT, b"fourth")
        received = [await client.receive() for _ in range(4)]
    assert answers == [tls.client.maximum_version.name.replace("_", "."), True, 0, "127.0.0.1", 7]
    # What was corked goes out when the callback is done.
    assert received == [Frame(TEXT, text) for text in (b"first", b"third", b"second", b"fourth")]


@pytest.mark.gen_test
async def test_a_loop_inside_a_callback_reads_on(tls: Tls) -> None:
    """As with nest_asyncio: a buffer of the loop that is in use already is left alone."""
    transports: list[Any] = []
    handled: list[str | bytes] = []

    class Nesting(Echo):
        def open(self) -> None:
            connection: Any = self.ws_connection
            transports.append(connection._transport)

        def on_message(self, message: str | bytes) -> None:
            if message == b"outer" * 1000:
                transports[1].resume_reading()
                for _ in range(1000):
                    transports[1].handle_events()
            handled.append(message)
            super().on_message(message)

    async with (
        serving(Nesting, ssl_options=tls.server) as url,
        tls_client(url, tls.client) as outer,
        tls_client(url, tls.client) as inner,
    ):
        await until(lambda: len(transports) == 2)
        transports[1].pause_reading()
        await inner.send_frame(BINARY, b"inner" * 10000)
        await asyncio.sleep(0.02)
        await outer.send(outer.frame(BINARY, b"outer" * 1000), outer.frame(BINARY, b"behind"))
        assert await outer.receive() == Frame(BINARY, b"outer" * 1000)
        assert await outer.receive() == Frame(BINARY, b"behind")
        assert await inner.receive() == Frame(BINARY, b"inner" * 10000)
    assert handled == [b"inner" * 10000, b"outer" * 1000, b"behind"]


def leave_an_error() -> None:
    """Do to OpenSSL's queue of errors what a reset does with OpenSSL 3.4 and later."""
    with pytest.raises(ValueError, match="unknown object"):
        _ssl.txt2obj("9.9.9.9", name=False)


@pytest.mark.gen_test
async def test_an_error_of_another_connection_does_not_end_one_that_has_to_wait_for_bytes(tls: Tls, log: Log) -> None:
    connections: list[Any] = []

    class Noting(Echo):
        def open(self) -> None:
            connections.append(self.ws_connection)

    async with serving(Noting, ssl_options=tls.server) as url, wire_client(url, tls.client) as client:
        await until(lambda: connections)

        async def between() -> None:
            leave_an_error()
            await until(lambda: unread(connections[0].stream) is None)

        await client.send_in_two(client.frame(TEXT, b"whole"), between)
        assert await client.receive() == Frame(TEXT, b"whole")
    assert log.lines == []


@pytest.mark.gen_test
async def test_an_error_of_another_connection_does_not_end_one_that_has_to_wait_for_room(tls: Tls, log: Log) -> None:
    class Much(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            leave_an_error()
            self.write_message(LARGE, binary=True)

    async with serving(Much, ssl_options=tls.server) as url, wire_client(url, tls.client) as client:
        await client.send_frame(TEXT, b"now")
        assert await client.receive() == Frame(BINARY, LARGE)
    assert log.lines == []


@pytest.mark.gen_test
async def test_no_error_is_left_to_other_connections(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenSSL 3.4 and later do it at a reset, for which CPython raises and leaves the error."""
    calls: list[Any] = []

    def fail(*args: Any) -> Any:
        leave_an_error()
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    async with (
        serving(Recording, calls=calls, ssl_options=tls.server) as url,
        wire_client(url, tls.client) as other,
        wire_client(url, tls.client) as client,
    ):
        await until(lambda: len(calls) == 2)
        monkeypatch.setattr(SSLIOStream, "write_to_fd", fail)
        monkeypatch.setattr(SSLIOStream, "read_from_fd", fail)
        monkeypatch.setattr(ssl.SSLSocket, "unwrap", fail)
        client.half_close()
        await until(lambda: len(calls) == 3)
        with pytest.raises(ssl.SSLWantReadError):
            other._session.read(1)
