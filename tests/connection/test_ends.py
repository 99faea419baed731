"""Ends of connections that meet a busy application, much unsent data, or the end of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.netutil import bind_unix_socket
from tornado.testing import bind_unused_port
from tornado.web import Application

from tests.conftest import Log, Tls
from tests.peer import (
    RawPeer,
    RawServer,
    Recording,
    StallingEcho,
    end,
    opening_answer,
    opening_request,
    raw_client,
    raw_pair,
    raw_server,
    unanswered_client,
)
from tests.support import HTTPServer, serving, until
from tests.tls_wire import TlsWire, connected, wire_client
from tests.wire import BINARY, CLOSE, PONG, TEXT, Frame, close_payload
from tornado_ws import WebSocketClosedError, engine, websocket_connect
from tornado_ws.engine.contract import MESSAGES_PER_TURN

#: More than the buffers of two sockets take.
MUCH = 8 * 1024 * 1024


class Busy(Recording):
    """Is busy with each message until ``go_on`` of the test is set, and then writes down whether it may write."""

    go_on: asyncio.Event

    async def on_message(self, message: str | bytes) -> None:
        self.calls.append(message)
        await self.go_on.wait()
        try:
            await self.write_message(message)
        except WebSocketClosedError:
            self.calls.append("closed")


@pytest.fixture
def busy() -> type[Busy]:
    """A class of the test's own, since an event belongs to a loop."""
    return type("BusyOfThisTest", (Busy,), {"go_on": asyncio.Event()})


@contextlib.asynccontextmanager
async def busy_server(handler: type[Busy]) -> AsyncIterator[tuple[RawPeer, list[Any]]]:
    calls: list[Any] = []
    async with serving(handler, calls=calls) as url, raw_client(url) as client:
        yield client, calls
        handler.go_on.set()


def violation(client: RawPeer) -> bytes:
    return client.frame(TEXT, b"reserved", rsv=0x20)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.1-answered-soon")
async def test_a_close_frame_is_answered_while_the_application_is_busy(busy: type[Busy]) -> None:
    async with busy_server(busy) as (client, calls):
        await client.send(client.frame(TEXT, b"a"), client.frame(TEXT, b"b"), client.frame(CLOSE, close_payload(1000)))
        assert await client.receive_rest() == [Frame(CLOSE, close_payload(1000))]
        # The application has not even begun with the second one, which is not lost.
        assert calls == ["open", "a"]
        busy.go_on.set()
        await until(lambda: len(calls) == 6)
    assert calls == ["open", "a", "closed", "b", "closed", ("close", 1000, None)]


@pytest.mark.gen_test
async def test_a_violation_is_answered_while_the_application_is_busy(busy: type[Busy]) -> None:
    async with busy_server(busy) as (client, calls):
        await client.send(client.frame(TEXT, b"a"), client.frame(TEXT, b"b"), violation(client))
        (answer,) = await client.receive_rest()
        assert (answer.opcode, answer.payload[:2]) == (CLOSE, close_payload(1002))
        assert calls == ["open", "a"]
        busy.go_on.set()
        await until(lambda: len(calls) == 6)
    assert calls[:5] == ["open", "a", "closed", "b", "closed"]
    assert calls[5][1] == 1002


@pytest.mark.gen_test
async def test_a_half_closed_connection_ends_while_the_application_is_busy(busy: type[Busy]) -> None:
    async with busy_server(busy) as (client, calls):
        await client.send(client.frame(TEXT, b"a"), client.frame(TEXT, b"b"))
        client.half_close()
        assert await client.receive_rest() == []
        assert calls == ["open", "a"]
        busy.go_on.set()
        await until(lambda: len(calls) == 6)
    assert calls == ["open", "a", "closed", "b", "closed", ("close", None, None)]


@pytest.mark.gen_test
async def test_what_came_in_one_segment_with_the_request_and_the_end_is_handed_out() -> None:
    """The kernel has nothing more of such a peer, but it waits for the answers."""
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url, unanswered_client(url) as client:
        frames = client.frame(TEXT, b"a") + client.frame(TEXT, b"b")
        # Before the server has a turn of the loop, so that it reads all at once.
        client.sock.send(opening_request(url) + frames)
        client.half_close()
        await client.receive_head()
        assert client.status == 101
        assert await client.receive_rest() == [Frame(TEXT, b"a"), Frame(TEXT, b"b")]
        await until(lambda: len(calls) == 4)
    assert calls == ["open", "a", "b", ("close", None, None)]


@pytest.mark.gen_test
async def test_no_message_is_lost_behind_a_close_of_ours_while_the_application_is_busy() -> None:
    """They may be more than are read ahead."""
    messages = [b"%d" % number for number in range(500)]
    calls: list[Any] = []
    closed = asyncio.Event()
    go_on = asyncio.Event()

    class Closing(Recording):
        async def on_message(self, message: str | bytes) -> None:
            self.calls.append(message)
            self.close(1000)
            closed.set()
            await go_on.wait()

    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(BINARY, messages[0])
        await closed.wait()
        await client.send(*[client.frame(BINARY, message) for message in messages[1:]], client.frame(CLOSE))
        # They are read as far as they ever are when the loop has nothing more to do.
        for _ in range(100):
            await asyncio.sleep(0)
        go_on.set()
        await until(lambda: len(calls) > len(messages) + 1)
    assert calls[1:-1] == messages


@pytest.mark.gen_test
async def test_keepalive_ends_a_half_closed_connection_that_is_not_read_from(busy: type[Busy]) -> None:
    """Reading stops before the end is seen, and the application takes what it asks for."""
    calls: list[Any] = []
    settings: dict[str, Any] = {"websocket_read_ahead_messages": 1, "websocket_ping_interval": 0.05}
    async with serving(busy, calls=calls, **settings) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"a"), client.frame(TEXT, b"b"))
        await until(lambda: calls == ["open", "a"])
        client.half_close()
        assert (await client.receive_rest())[-1] == Frame(CLOSE, close_payload(1000, "ping timed out"))
        busy.go_on.set()
        await until(lambda: len(calls) == 4)
    assert calls == ["open", "a", "closed", ("close", 1006, "ping timed out")]


@pytest.mark.gen_test
async def test_a_quick_coroutine_answers_what_came_before_a_close_frame() -> None:
    class Quick(Recording):
        async def on_message(self, message: str | bytes) -> None:
            await asyncio.sleep(0)
            await self.write_message(message)

    calls: list[Any] = []
    async with serving(Quick, calls=calls) as url, raw_client(url) as client:
        messages = [Frame(TEXT, b"%d" % number) for number in range(20)]
        await client.send(*(client.frame(*frame[:2]) for frame in messages), client.frame(CLOSE))
        assert await client.receive_rest() == [*messages, Frame(CLOSE)]
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", None, None)]


class Sending(StallingEcho):
    """Sends much, and then closes."""

    websocket_close_timeout = 1.0

    def initialize(self, calls: list[Any]) -> None:
        self.calls = calls

    def on_message(self, message: str | bytes) -> None:
        self.write_message(bytes(MUCH), binary=True)
        self.close(1000)

    def on_close(self) -> None:
        self.calls.append((self.close_code, self.close_reason))


async def receive_slowly(client: RawPeer, seconds: float) -> bytes:
    """Receive ``MUCH`` bytes and a header in about ``seconds``, in many small steps."""
    size = MUCH + 14
    received = bytearray()
    while len(received) < size:
        piece = await client.receive_bytes()
        assert piece, f"cut off after {len(received)} bytes"
        received += piece
        await asyncio.sleep(seconds * len(piece) / size)
    return bytes(received)


@pytest.mark.gen_test(timeout=100)
async def test_a_peer_that_takes_what_waits_slowly_gets_it_and_the_close_frame() -> None:
    calls: list[Any] = []
    async with (
        serving(Sending, calls=calls) as url,
        raw_client(url, stalling=True) as first,
        raw_client(url, stalling=True) as second,
    ):
        await first.send_frame(TEXT, b"go")
        await second.send_frame(TEXT, b"go")
        # The handshake is complete for the second one when it has just begun to read.
        await second.send_frame(CLOSE, close_payload(1000))
        for data in await asyncio.gather(receive_slowly(first, 3), receive_slowly(second, 3)):
            assert data.endswith(b"\x88\x02\x03\xe8")
        await first.send_frame(CLOSE, close_payload(1000))
        await until(lambda: len(calls) == 2)
    assert calls == [(1000, None)] * 2


#: Bytes that a socket takes at once, and a peer that stalls does not.
SOME = 200_000


class Answering(Recording):
    """Answers with ``SOME`` bytes."""

    def on_message(self, message: str | bytes) -> None:
        self.write_message(bytes(SOME), binary=True)
        connection: Any = self.ws_connection
        assert connection.buffered_amount == 0, "the socket does not take it at once"


@pytest.mark.gen_test(timeout=100)
@pytest.mark.parametrize("close_timeout", [0.25, 1000])
@pytest.mark.rfc("6455-5.5.1-tcp-closed")
async def test_a_pong_behind_the_peers_close_frame_costs_it_nothing(close_timeout: float) -> None:
    """The kernel resets a connection on which something comes for a socket that is closed, and drops what it holds."""
    calls: list[Any] = []
    async with (
        serving(Answering, calls=calls, websocket_close_timeout=close_timeout) as url,
        raw_client(url, stalling=True) as client,
    ):
        await client.send_frame(TEXT, b"go")
        await client.send_frame(CLOSE, close_payload(1000))
        await until(lambda: len(calls) == 2)
        received = await client.receive_bytes()
        while not received.endswith(b"\x88\x02\x03\xe8"):
            with contextlib.suppress(ConnectionError):
                await client.send_frame(PONG)
            await asyncio.sleep(0.05)
            piece = await client.receive_bytes()
            assert piece, f"cut off after {len(received)} bytes"
            received += piece
        assert len(received) == SOME + 14
    assert calls == ["open", ("close", 1000, None)]


STALL: dict[str, Any] = {"write_stall_limit": 1024, "write_stall_timeout": 0.2}


@pytest.mark.gen_test
async def test_a_peer_that_takes_nothing_while_much_waits_is_closed() -> None:
    async with raw_pair(stalling=True, **STALL) as (conn, peer):
        connection: Any = conn.protocol
        conn.write_message(bytes(MUCH), binary=True)
        while not connection.is_closing():
            conn.write_message(b"", binary=True)
            await asyncio.sleep(0.02)
        await peer.answer_close()
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (1013, "too slow")


@pytest.mark.gen_test(timeout=100)
async def test_a_peer_that_takes_something_while_much_waits_is_kept() -> None:
    async with raw_pair(stalling=True, **STALL) as (conn, peer):
        connection: Any = conn.protocol
        conn.write_message(bytes(MUCH), binary=True)
        for _ in range(3):
            conn.write_message(b"", binary=True)
            before = connection._transport.taken()
            while connection._transport.taken() == before:
                await peer.receive_bytes()
                await asyncio.sleep(0.01)
            # Longer than the peer may take nothing.
            await asyncio.sleep(0.3)
        conn.write_message(b"", binary=True)
        assert not connection.is_closing()


@pytest.mark.gen_test
async def test_the_code_of_the_write_limit_stays_whatever_the_peer_answers() -> None:
    async with raw_pair(stalling=True, write_limit=1024) as (conn, peer):
        conn.write_message(bytes(MUCH), binary=True)
        conn.write_message(b"one too many", binary=True)
        while (frame := await peer.receive()) is not None and frame.opcode == BINARY:
            pass
        assert frame is not None
        assert frame.payload == close_payload(1013, "too slow")
        await peer.send_frame(CLOSE, close_payload(1001, "otherwise"))
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (1013, "too slow")


@pytest.mark.gen_test
async def test_a_loop_that_stood_still_looks_for_the_close_frame() -> None:
    calls: list[Any] = []
    handler = type("Closing", (Recording,), {"websocket_close_timeout": 0.1})
    handler.on_message = lambda self, message: self.close(1000) if message == "close" else None  # type: ignore[attr-defined]
    async with serving(handler, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"close")
        assert await client.receive() == Frame(CLOSE, close_payload(1000))
        answer = client.frame(BINARY, bytes(1 << 20)) + client.frame(CLOSE, close_payload(1000))
        client.sock.setblocking(True)
        sending = threading.Thread(target=client.sock.sendall, args=(answer,))
        sending.start()
        time.sleep(0.5)
        await until(lambda: not sending.is_alive())
        await until(lambda: len(calls) == 2)
        client.sock.setblocking(False)
    assert calls == ["open", ("close", 1000, None)]


@pytest.fixture(params=["ssl module", "OpenSSL itself"] if engine.name == "native" else ["ssl module"])
def each_tls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine.name == "native":
        native = importlib.import_module("tornado_ws.engine._native")
        monkeypatch.setattr(native, "direct_tls", request.param == "OpenSSL itself")


@pytest.mark.gen_test
@pytest.mark.usefixtures("each_tls")
@pytest.mark.parametrize("first", ["server", "client"])
@pytest.mark.rfc("6455-7.1.1-clean")
async def test_close_notify_follows_a_closing_handshake(first: str, tls: Tls) -> None:
    class Handler(Recording):
        def on_message(self, message: str | bytes) -> None:
            self.close(1000)

    def talk(port: int) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            tls.client.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as sock,
        ):
            peer = RawPeer.__new__(RawPeer)
            peer._is_client = True
            sock.settimeout(60)
            sock.sendall(opening_request(f"ws://127.0.0.1:{port}"))
            while not sock.recv(4096).endswith(b"\r\n\r\n"):
                pass
            if first == "server":
                sock.sendall(peer.frame(TEXT, b"close"))
                assert sock.recv(100) == b"\x88\x02\x03\xe8"
                sock.sendall(peer.frame(CLOSE, close_payload(1000)))
            else:
                sock.sendall(peer.frame(CLOSE, close_payload(1000)))
                assert sock.recv(100) == b"\x88\x02\x03\xe8"
            # Without close_notify this is ssl.SSLEOFError.
            return sock.recv(100)

    calls: list[Any] = []
    async with serving(Handler, calls=calls, ssl_options=tls.server) as url:
        port = int(url.rpartition(":")[2])
        assert await asyncio.get_running_loop().run_in_executor(None, talk, port) == b""
        await until(lambda: len(calls) == 2)


#: More messages than a turn of the loop delivers.
MANY = 3 * MESSAGES_PER_TURN


class Receiving(Recording):
    def on_message(self, message: str | bytes) -> None:
        self.calls.append(message)


def many_and_close(peer: RawPeer) -> bytes:
    messages = b"".join(peer.frame(TEXT, b"%d" % number) for number in range(MANY))
    return messages + peer.frame(CLOSE, close_payload(4000, "done"))


@pytest.mark.gen_test
@pytest.mark.usefixtures("each_tls")
async def test_a_server_delivers_all_that_came_in_one_read_with_close_notify(tls: Tls) -> None:
    calls: list[Any] = []
    async with (
        serving(Receiving, calls=calls, ssl_options=tls.server) as url,
        wire_client(url, tls.client) as client,
    ):
        await client.send_with_end(many_and_close(client))
        await until(lambda: isinstance(calls[-1], tuple))
    assert calls == ["open", *map(str, range(MANY)), ("close", 4000, "done")]


@pytest.mark.gen_test
@pytest.mark.usefixtures("each_tls")
async def test_a_client_delivers_all_that_came_in_one_read_with_close_notify(tls: Tls) -> None:
    messages: list[Any] = []
    async with raw_server() as server:
        request = HTTPRequest(server.url.replace("ws", "wss", 1), ssl_options=tls.client)
        connecting = websocket_connect(request, on_message_callback=messages.append)
        plain = await server.accept_tcp()
        peer = await connected(plain.sock, tls.server, is_client=False)
        assert isinstance(peer, TlsWire)
        await peer.receive_head()
        await peer.send(opening_answer(peer))
        conn = await connecting
        await peer.send_with_end(many_and_close(peer))
        await until(lambda: messages and messages[-1] is None)
    assert messages == [*map(str, range(MANY)), None]
    assert (conn.close_code, conn.close_reason) == (4000, "done")


class Full(Recording):
    """Answers with more than its socket has room for once that is in it, and closes."""

    ANSWER = bytes(200_000)

    def open(self) -> None:
        super().open()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(self.ANSWER))
        self.calls.append(self.ws_connection)

    @property
    def sock(self) -> socket.socket:
        assert self.ws_connection is not None
        stream: Any = self.ws_connection.stream
        return stream.socket  # type: ignore[no-any-return]

    def on_message(self, message: str | bytes) -> None:
        # When the answer is with the kernel.
        asyncio.get_running_loop().call_soon(self.shrink, self.sock)
        self.write_message(self.ANSWER, binary=True)
        self.close(1000)

    def shrink(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.calls.append("full")


@contextlib.asynccontextmanager
async def full_server(path: str, tls: Tls, calls: list[Any], **settings: Any) -> AsyncIterator[tuple[TlsWire, Any]]:
    """Give a client, and the server's end of its connection; all but close_notify is with the kernel.

    By Unix sockets, whose room is what they are told. Those of TCP put small pieces behind others all the same.
    """
    async with serving(Full, calls=calls, sockets=[bind_unix_socket(path)], ssl_options=tls.server, **settings):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, path)
            client = TlsWire(sock, tls.client, is_client=True)
            await client.shake_hands()
            await client.send(opening_request("ws://localhost:80"))
            await client.receive_head()
            await client.send_frame(TEXT, b"close")
            await until(lambda: "full" in calls)
            await client.send_frame(CLOSE, close_payload(1000))
            connection = calls[1]
            await until(lambda: connection.close_code is not None)
            assert connection.buffered_amount == 0
            yield client, connection


@pytest.mark.gen_test
@pytest.mark.usefixtures("each_tls")
async def test_close_notify_waits_for_room_in_the_socket(tls: Tls, tmp_path: Path) -> None:
    calls: list[Any] = []
    async with full_server(f"{tmp_path}/socket", tls, calls) as (client, _):
        received = await client.receive_rest()
        assert received == [Frame(BINARY, Full.ANSWER), Frame(CLOSE, close_payload(1000))]
        assert client.was_told_the_end
        await until(lambda: len(calls) == 4)
    assert calls[-1] == ("close", 1000, None)


@pytest.mark.gen_test
@pytest.mark.usefixtures("each_tls")
async def test_close_notify_does_not_wait_for_ever(tls: Tls, tmp_path: Path) -> None:
    calls: list[Any] = []
    settings = {"websocket_close_timeout": 0.5}
    async with full_server(f"{tmp_path}/socket", tls, calls, **settings) as (_, connection):
        await until(connection.stream.closed)
        await until(lambda: len(calls) == 4)
    assert calls[-1] == ("close", 1000, None)


def test_the_end_of_the_loop_closes_connections_of_servers_and_clients() -> None:
    calls: list[Any] = []
    told: list[Any] = []
    sockets = [bind_unused_port()[0] for _ in range(2)]

    async def main() -> tuple[RawPeer, RawPeer]:
        # Without the context managers of other tests, which the end of the loop would end too.
        server = HTTPServer(Application([("/", Recording, {"calls": calls})]))
        server.add_sockets(sockets[:1])
        client = RawPeer(socket.create_connection(sockets[0].getsockname()), is_client=True)
        await client.send(opening_request(f"ws://127.0.0.1:{sockets[0].getsockname()[1]}"))
        await client.receive_head()
        raw = RawServer(sockets[1])
        connecting = websocket_connect(raw.url, on_message_callback=told.append)
        peer = await raw.accept()
        await connecting
        await until(lambda: calls == ["open"])
        server.stop()
        return client, peer

    peers = asyncio.run(main())
    assert calls == ["open", ("close", None, None)]
    assert told == [None]
    for peer in peers:
        peer.sock.settimeout(60)
        assert peer.sock.recv(1) == b""
        peer.close()
    sockets[1].close()


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_closes_the_connection_that_raised_it(kind: str, error: type[BaseException]) -> None:
    """The loop may be run again, as a notebook does it."""
    calls: list[Any] = []

    class Handler(Recording):
        def on_message(self, message: str | bytes) -> Any:
            calls.append(message)
            if kind == "plain":
                raise error
            return self.interrupt()

        async def interrupt(self) -> None:
            raise error

    sock = bind_unused_port()[0]
    loop = asyncio.new_event_loop()
    client = RawPeer(socket.create_connection(sock.getsockname()), is_client=True)

    async def start() -> Any:
        server = HTTPServer(Application([("/", Handler, {"calls": calls})]))
        server.add_sockets([sock])
        return server

    async def talk() -> None:
        await client.send(opening_request(f"ws://127.0.0.1:{sock.getsockname()[1]}"))
        await client.receive_head()
        await client.send(client.frame(TEXT, b"a"), client.frame(TEXT, b"behind"))

    async def finish() -> None:
        with contextlib.suppress(ConnectionError):
            while await client.receive_bytes():
                pass
        await until(lambda: ("close", None, None) in calls)

    server = loop.run_until_complete(start())
    talking = loop.create_task(talk())
    with pytest.raises(error):
        loop.run_forever()
    loop.run_until_complete(talking)
    loop.run_until_complete(finish())
    assert "behind" not in calls
    server.stop()
    client.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.gen_test
async def test_who_is_told_of_the_end_and_raises_does_not_keep_it_from_the_application(log: Log) -> None:
    calls: list[Any] = []

    def fail(connection: object) -> None:
        raise ValueError("raised by who is told")

    class Watched(Recording):
        def open(self) -> None:
            super().open()
            self.ws_connection.when_ended(fail)  # type: ignore[union-attr]

    async with serving(Watched, calls=calls) as url, raw_client(url) as client:
        await end(client)
        await until(lambda: calls[-1][0] == "close")
    (record,) = log.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "raised by who is told"
