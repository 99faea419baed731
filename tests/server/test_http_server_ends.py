"""`HTTPServer` beside Tornado's own: how connections end, and sockets of other kinds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.netutil import bind_unix_socket

import tornado_ws
from tests.clock import Clock
from tests.conftest import Log
from tests.server.sites import (
    CLASSES,
    GOODBYE,
    Site,
    Telling,
    compare,
    everything,
    request,
    site_of,
)
from tests.support import FOREVER, until
from tests.wire import CLOSE, TEXT, Frame


@pytest.mark.gen_test
@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
async def test_a_client_that_says_too_little_may_leave(sent: bytes, http_log: Callable[[], list[str]]) -> None:
    async def leave(site: Site) -> None:
        async with site.peer() as peer:
            await peer.send(sent)
            await site.has_read(len(sent))

    await compare(leave, http_log, short=False)


@pytest.mark.gen_test
async def test_a_client_may_reset(http_log: Callable[[], list[str]]) -> None:
    async def reset(site: Site) -> None:
        async with site.peer() as peer:
            await until(lambda: site.server._connections)
            peer.reset()

    await compare(reset, http_log, short=False)


@pytest.mark.gen_test
async def test_the_stream_says_that_it_was_reset() -> None:
    async with site_of(tornado_ws.HTTPServer) as site, site.peer() as peer:
        await until(lambda: _watches(site))
        (stream,) = site.streams
        peer.reset()
        await until(stream.closed)
        assert isinstance(stream.error, ConnectionResetError)


@pytest.mark.gen_test(timeout=FOREVER)
@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
@pytest.mark.parametrize("server_class", CLASSES)
async def test_a_silent_client_is_given_up(server_class: Any, sent: bytes, clock: Clock) -> None:
    async with site_of(server_class, idle_connection_timeout=1000) as site, site.peer() as peer:
        await until(lambda: (site.streams and site.streams[0]._state is not None) or _watches(site))
        await clock.let_pass(500)
        await peer.send(sent)
        await site.has_read(len(sent))
        await clock.let_pass(400)
        assert len(site.server._connections) == 1
        # The time runs from the beginning, whoever waits.
        await clock.let_pass(150)
        assert await everything(peer) == b""
        await until(lambda: not site.server._connections)


def _watches(site: Site) -> bool:
    return any(getattr(connection, "_is_waiting", False) for connection in site.server._connections)


@pytest.mark.gen_test(timeout=FOREVER)
async def test_one_that_asks_in_time_is_not_given_up(clock: Clock) -> None:
    async with site_of(tornado_ws.HTTPServer, idle_connection_timeout=1000) as site, site.peer() as peer:
        await until(lambda: _watches(site))
        await clock.let_pass(900)
        await peer.send(request())
        await peer.receive_head()
        await clock.let_pass(5000)
        await peer.send(GOODBYE)
        assert [received.opcode for received in await peer.receive_rest()] == [CLOSE]


@pytest.mark.gen_test
@pytest.mark.parametrize("server_class", CLASSES)
@pytest.mark.parametrize("when", ["at once", "silent", "a part", "prepare", "refused"])
async def test_connections_are_closed(server_class: Any, when: str, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    start = HTTP1ServerConnection.start_serving

    def start_serving(connection: HTTP1ServerConnection, delegate: Any) -> None:
        served.append(connection)
        start(connection, delegate)

    monkeypatch.setattr(HTTP1ServerConnection, "start_serving", start_serving)

    class Waiting(Telling):
        async def prepare(self) -> None:
            super().prepare()
            await self.gone.wait()

        def on_connection_close(self) -> None:
            self.gone.set()

        gone = asyncio.Event()

    async with site_of(server_class, Waiting) as site, site.peer() as peer:
        await until(lambda: site.server._connections)
        sent = {"a part": b"GET / HT", "prepare": request(), "refused": request("GET /nowhere HTTP/1.1")}.get(when, b"")
        await peer.send(sent)
        if when == "a part":
            await site.has_read(len(sent))
        elif when == "prepare":
            await until(lambda: site.seen)
        elif when == "refused":
            await peer.receive_head()
        elif when == "silent" and server_class is tornado_ws.HTTPServer:
            await until(lambda: _watches(site))
        connections: list[Any] = list(site.server._connections)
        site.server.stop()
        await site.server.close_all_connections()
        assert not site.server._connections
        assert all(connection._serving_future.done() for connection in connections)
        for connection in connections:
            assert not getattr(connection, "_is_waiting", False)
            assert getattr(connection, "_timeout", None) is None
            # Tornado's may be closed again too.
            await connection.close()
        with contextlib.suppress(ConnectionResetError):
            while await peer.receive_bytes():
                pass
    assert served == connections
    assert not [record for record in log.records if record.levelname == "ERROR"]


@pytest.mark.gen_test
async def test_a_request_that_is_being_handed_over_is_closed(http_log: Callable[[], list[str]]) -> None:
    """Between the application's ``finish`` and the first step of its handler."""
    closing: list[Any] = []

    class Closed(Telling):
        def initialize(self, site: list[Site]) -> None:
            super().initialize(site)
            closing.append(asyncio.ensure_future(self.site.server.close_all_connections()))

        async def prepare(self) -> None:
            await until(lambda: "told" in self.site.seen)
            self.site.seen.append("go on")

        def on_connection_close(self) -> None:
            self.site.seen.append("told")
            super().on_connection_close()

    async def talk(site: Site) -> bytes:
        answer = await site.talk(request())
        await closing.pop()
        await until(lambda: len(site.seen) == 2)
        return answer

    answer, seen = await compare(talk, http_log, short=True, handler=Closed)
    assert answer == b""
    assert seen == ["told", "go on"]


@pytest.mark.gen_test
async def test_open_connections_are_not_closed_with_the_server(http_log: Callable[[], list[str]]) -> None:
    async def outlive(site: Site) -> Any:
        async with site.peer() as peer:
            await peer.send(request())
            await peer.receive_head()
            # The server has no longer to do with it, as with Tornado's.
            await until(lambda: not site.server._connections)
            site.server.stop()
            await site.server.close_all_connections()
            await peer.send_frame(TEXT, b"still")
            assert await peer.receive() == Frame(TEXT, b"still")
            (connection,) = connections
            # Nothing is left to be closed but the stream, and that twice is no error.
            await connection.close()
            await connection.close()
            return await peer.receive_bytes()

    class Kept(Telling):
        def open(self, *args: str, **kwargs: str) -> None:
            connections[:] = [self.request.server_connection]

    connections: list[Any] = []
    await compare(outlive, http_log, short=True, handler=Kept)


# Other sockets


@pytest.mark.gen_test
async def test_over_tls(tls: Any) -> None:
    for server_class in CLASSES:
        async with site_of(server_class, ssl_options=tls.server) as site:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", site.address[1], ssl=tls.client, server_hostname="localhost"
            )
            writer.write(request() + GOODBYE)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert answer.endswith(b"\x88\x02\x03\xe8")
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            assert site.seen[0]["from"][:2] == ("127.0.0.1", "https")
            assert isinstance(tls.server, ssl.SSLContext)


@pytest.mark.gen_test
async def test_over_a_unix_socket(http_log: Callable[[], list[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    for server_class in CLASSES:
        path = tmp_path_factory.mktemp("unix") / "socket"
        async with site_of(server_class, sockets=[bind_unix_socket(str(path))]) as site:
            answer = await site.talk(request() + GOODBYE)
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert site.short == [server_class is tornado_ws.HTTPServer]
            assert site.seen[0]["from"][0] == "0.0.0.0"


@pytest.mark.gen_test
async def test_streams_of_other_classes_go_the_long_way() -> None:
    class OtherStream(IOStream):
        pass

    class OtherServer(tornado_ws.HTTPServer):
        def handle_stream(self, stream: IOStream, address: Any) -> None:
            sock = socket.socket(fileno=socket.dup(stream.socket.fileno()))
            stream.close()
            super().handle_stream(OtherStream(sock), address)

    async with site_of(OtherServer) as site:
        assert b" 101 " in await site.talk(request() + GOODBYE)
        assert site.short == [False]


def test_the_connection_is_one_of_tornados() -> None:
    """What the surgery relies on; where a later Tornado lacks it, this says so."""
    for name in ("_can_keep_alive", "_on_connection_close", "_clear_callbacks", "read_response"):
        assert callable(getattr(HTTP1Connection, name))
    assert callable(HTTP1ServerConnection._server_request_loop)
    assert callable(IOStream._maybe_add_error_listener)


@pytest.mark.gen_test
async def test_a_socket_that_cannot_be_watched_is_closed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    loop: Any = IOLoop.current()

    def refuse(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    async with site_of(tornado_ws.HTTPServer) as site:
        monkeypatch.setattr(loop, "add_handler", refuse)
        async with site.peer() as peer:
            assert await everything(peer) == b""
        await until(lambda: not site.server._connections)
        monkeypatch.undo()
    assert "cannot watch its socket" in log.only().getMessage()


@pytest.mark.gen_test
@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("base", CLASSES)
async def test_a_server_may_close_the_stream_itself(base: Any, when: str) -> None:
    streams: list[IOStream] = []

    class Closing(base):  # type: ignore[misc]
        def handle_stream(self, stream: IOStream, address: Any) -> None:
            super().handle_stream(stream, address)
            streams.append(stream)
            if when == "at once":
                stream.close()

    async with site_of(Closing) as site:
        # One after the other: what a closed socket leaves behind, the next one with its number falls over.
        for _ in range(3):
            async with site.peer() as peer:
                await until(lambda: streams)
                if when == "later":
                    await until(lambda: streams[0]._state is not None)
                    streams[0].close()
                assert await everything(peer) == b""
                await until(lambda: not site.server._connections)
            streams.clear()


@pytest.mark.gen_test
@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("base", CLASSES)
async def test_a_server_may_read_before_the_request(base: Any, when: str) -> None:
    """As one does that is told of the client's address by a proxy, in a line of its own."""

    class Proxied(base):  # type: ignore[misc]
        async def handle_stream(self, stream: IOStream, address: Any) -> None:
            reading = stream.read_until(b"\r\n")
            began.set()
            line = await reading
            super().handle_stream(stream, (line.split()[1].decode(), 1))

    began = asyncio.Event()
    async with site_of(Proxied) as site, site.peer() as peer:
        if when == "later":
            await began.wait()
        await peer.send(b"PROXY 9.9.9.9\r\n" + request() + GOODBYE)
        assert b" 101 " in await everything(peer)
        assert site.seen[0]["from"][0] == "9.9.9.9"


@pytest.mark.gen_test
@pytest.mark.parametrize("base", CLASSES)
async def test_a_server_may_watch_the_stream_itself(base: Any) -> None:
    class Watching(base):  # type: ignore[misc]
        def handle_stream(self, stream: IOStream, address: Any) -> None:
            stream.set_close_callback(lambda: None)
            super().handle_stream(stream, address)

    async with site_of(Watching) as site, site.peer() as peer:
        await until(lambda: site.server._connections)
        await peer.send(request() + GOODBYE)
        assert b" 101 " in await everything(peer)


@pytest.mark.gen_test
@pytest.mark.parametrize("steps", range(4))
async def test_a_handler_that_closes_the_stream_is_told(steps: int, http_log: Callable[[], list[str]]) -> None:
    class Closing(Telling):
        async def prepare(self) -> None:
            super().prepare()
            for _ in range(steps):
                await asyncio.sleep(0)
            self.request.connection.stream.close()  # type: ignore[union-attr]
            await until(lambda: "told" in self.site.seen)

        def on_connection_close(self) -> None:
            self.site.seen.append("told")
            super().on_connection_close()

    answer, seen = await compare(lambda site: site.talk(request()), http_log, short=True, handler=Closing)
    assert answer == b""
    assert seen[1:] == ["told"]
