"""Sites that `tornado_ws.HTTPServer` and Tornado's own serve, and a comparison of what comes of the same talk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import tornado.httpserver
from tornado import httputil
from tornado.http1connection import HTTP1ServerConnection
from tornado.iostream import IOStream
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

import tornado_ws
from tests.peer import KEY, RawPeer, frame
from tests.support import until
from tests.wire import CLOSE
from tornado_ws import WebSocketHandler

CLASSES = (tornado.httpserver.HTTPServer, tornado_ws.HTTPServer)

_FIELDS = {
    "Host": "localhost:1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
#: What makes a server end the connection: a close frame after a 101, a request after any other answer.
GOODBYE = frame(CLOSE, b"\x03\xe8", masked=True)
LAST_REQUEST = b"GET /plain HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n"


def request(start: str = "GET / HTTP/1.1", more: str = "", **fields: str | None) -> bytes:
    """Return an opening handshake with ``more`` lines; ``fields`` are named with underscores, None takes one out."""
    lines = {**_FIELDS, **{name.replace("_", "-"): value for name, value in fields.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"{start}\r\n{head}{more}\r\n".encode("latin-1")


def fields_of(request: httputil.HTTPServerRequest) -> dict[str, Any]:
    """Return what an application can see of a request, times and ports apart."""
    connection: Any = request.connection
    context = connection.context
    return {
        **{
            name: getattr(request, name)
            for name in ("method", "uri", "version", "path", "query", "body", "files", "host", "host_name")
        },
        **{name: getattr(request, name) for name in ("arguments", "query_arguments", "body_arguments")},
        "headers": list(request.headers.get_all()),
        "joined": dict(request.headers),
        "from": (request.remote_ip, request.protocol, context.remote_ip, context.protocol, str(context)),
        "cookies": {name: morsel.value for name, morsel in request.cookies.items()},
        "types": (type(request), type(request.headers), type(connection), type(context), type(connection.stream)),
        "is of a server": isinstance(request.server_connection, HTTP1ServerConnection),
        "private": [
            getattr(connection, name)
            for name in (
                "is_client",
                "no_keep_alive",
                "_max_body_size",
                "_body_timeout",
                "_write_finished",
                "_read_finished",
                "_disconnect_on_finish",
                "_request_start_line",
                "_response_start_line",
                "_chunking_output",
                "_expected_content_remaining",
                "_pending_write",
            )
        ],
        "unread": connection.stream._read_buffer_size,
    }


class Site:
    """A server, and what was seen in its application."""

    def __init__(self, server: tornado.httpserver.HTTPServer, sockets: list[socket.socket], seen: list[Any]) -> None:
        self.server = server
        self.address = sockets[0].getsockname()
        self.seen = seen
        #: Which requests of Tornado's or ours have come the shorter way.
        self.short: list[bool] = []

    @property
    def streams(self) -> list[IOStream]:
        return [connection.stream for connection in self.server._connections]

    @contextlib.asynccontextmanager
    async def peer(self) -> AsyncIterator[RawPeer]:
        sock = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        peer = RawPeer(sock, is_client=True)
        try:
            address = self.address if isinstance(self.address, str) else ("127.0.0.1", self.address[1])
            await asyncio.get_running_loop().sock_connect(sock, address)
            yield peer
        finally:
            peer.close()

    async def has_read(self, size: int) -> None:
        """Wait until the only connection has read ``size`` bytes that nobody has taken."""
        await until(lambda: [stream._read_buffer_size for stream in self.streams] == [size])

    async def talk(self, *chunks: bytes) -> bytes:
        """Send ``chunks``, each when the ones before it are read; return all that is answered, without dates."""
        async with self.peer() as peer:
            sent = 0
            for chunk in chunks:
                if sent:
                    await self.has_read(sent)
                await peer.send(chunk)
                sent += len(chunk)
            return await everything(peer)


async def everything(peer: RawPeer) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := await peer.receive_bytes():
            answer += data
    return re.sub(rb"Date: [^\r]*\r\n", b"", answer)


class Telling(WebSocketHandler):
    """Notes what it sees."""

    def initialize(self, site: list[Site]) -> None:
        self.site = site[0]

    def prepare(self) -> Any:
        self.site.short.append(getattr(self.request.server_connection, "_serving_future", None) is None)
        self.site.seen.append(fields_of(self.request))

    def open(self, *args: str, **kwargs: str) -> None:
        connection: Any = self.request.connection
        self.site.seen.append(("open", args, kwargs, connection.stream, connection._write_finished))

    def on_message(self, message: str | bytes) -> None:
        self.site.seen.append(message)
        self.write_message(message)

    def on_close(self) -> None:
        self.site.seen.append(("close", self.close_code))


class Plain(RequestHandler):
    def initialize(self, site: list[Site]) -> None:
        self.site = site[0]

    def get(self) -> None:
        self.site.seen.append(fields_of(self.request))
        self.write("plain")

    def post(self) -> None:
        self.get()


class Moved(RequestHandler):
    def get(self) -> None:
        self.redirect("/plain")


def routes(handler: type[RequestHandler], site: list[Site]) -> list[Any]:
    own = {"site": site}
    return [("/", handler, own), (r"/room/(\w+)", handler, own), ("/plain", Plain, own), ("/moved", Moved)]


@contextlib.asynccontextmanager
async def site_of(
    server_class: type[tornado.httpserver.HTTPServer],
    handler: type[RequestHandler] = Telling,
    *,
    callback: Any = None,
    settings: dict[str, Any] | None = None,
    sockets: list[socket.socket] | None = None,
    **options: Any,
) -> AsyncIterator[Site]:
    seen: list[Any] = []
    held: list[Site] = []
    sockets = sockets or [bind_unused_port()[0]]
    delegate = callback(held) if callback is not None else Application(routes(handler, held), **(settings or {}))
    server = server_class(delegate, **options)
    site = Site(server, sockets, seen)
    held.append(site)
    server.add_sockets(sockets)
    try:
        yield site
    finally:
        server.stop()
        await server.close_all_connections()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


@pytest.fixture
def http_log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Give what was logged since the last call, times apart."""
    for name in ("tornado.access", "tornado.general", "tornado.application"):
        caplog.set_level(logging.DEBUG, name)

    def take() -> list[str]:
        lines = [f"{record.levelname} {record.name} {record.getMessage()}" for record in caplog.records]
        caplog.clear()
        return [re.sub(r"[\d.]+ms", "ms", re.sub(r"0x\w+", "", line)) for line in lines if "asyncio" not in line]

    return take


Act = Callable[[Site], Awaitable[Any]]


async def compare(act: Act, log: Callable[[], list[str]], *, short: bool, **options: Any) -> tuple[Any, list[Any]]:
    """Do the same with both servers; return what was answered and seen, which has to be the same.

    ``short`` says whether the first request is to go the shorter way.
    """
    outcomes = []
    for server_class in CLASSES:
        async with site_of(server_class, **options) as site:
            answer = await act(site)
            await until(lambda: not site.server._connections)
            if site.short:
                assert site.short[0] is (short and server_class is tornado_ws.HTTPServer)
        outcomes.append((answer, site.seen, log()))
    tornados, ours = outcomes
    assert ours == tornados
    return ours[0], ours[1]
