"""What tests over real sockets share: a server on loopback, connections to it, and a client made by hand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.ioloop import IOLoop
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from tornado_ws import WebSocketClientConnection, WebSocketHandler, websocket_connect
from tornado_ws.transport.poller import poller_of

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

#: Seconds after which a condition is taken never to come true. It passes only when a test fails, so it is far above
#: what a busy machine needs.
PATIENCE = 60.0

#: Seconds that no test takes, as a timeout that may not pass by itself.
FOREVER = 1e6


class Echo(WebSocketHandler):
    def on_message(self, message: str | bytes) -> Any:
        return self.write_message(message, binary=isinstance(message, bytes))


async def until(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Wait for ``condition`` to become true."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.001)


def run_side_by_side(threads: list[threading.Thread]) -> None:
    """Run ``threads`` to their end, with a change between them at nearly every step."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


def _other_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@contextlib.asynccontextmanager
async def serving(
    routes: type[RequestHandler] | list[Any],
    *,
    sockets: list[socket.socket] | None = None,
    ssl_options: Any = None,
    **settings: Any,
) -> AsyncIterator[str]:
    """Serve ``routes``, or one handler at ``/``, and give the server's ``ws://`` URL.

    At the end nothing may be left running.
    """
    if not isinstance(routes, list):
        routes = [("/", routes)]
    if sockets is None:
        sockets = [bind_unused_port()[0]]
    server = HTTPServer(Application(routes, **settings), ssl_options=ssl_options)
    server.add_sockets(sockets)
    address = sockets[0].getsockname()
    try:
        yield f"ws://127.0.0.1:{address[1]}" if isinstance(address, tuple) else "ws://localhost"
    finally:
        server.stop()
        await server.close_all_connections()
    await until(lambda: not _other_tasks() and not poller_of(IOLoop.current()).connections())


@contextlib.asynccontextmanager
async def connected(url: Any, **options: Any) -> AsyncIterator[WebSocketClientConnection]:
    conn = await websocket_connect(url, **options)
    try:
        yield conn
    finally:
        await disconnect(conn)


async def disconnect(conn: WebSocketClientConnection) -> None:
    """Close ``conn`` and see its socket closed."""
    conn.close()
    await until(conn.stream.closed)


class Frame(NamedTuple):
    opcode: int
    masked: bool
    payload: bytes


class RawClient:
    """A client made by hand, which can do what a correct one never does.

    ``status`` and ``headers`` are those of the server's answer to the opening handshake.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers = HTTPHeaders()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url: str, **headers: str) -> AsyncIterator[RawClient]:
        """Connect and send an opening handshake; ``headers`` are named with underscores."""
        parts = urlsplit(url)
        client = cls(*await asyncio.open_connection(parts.hostname, parts.port))
        try:
            await client._shake_hands(parts.netloc, parts.path or "/", headers)
            yield client
        finally:
            client._writer.close()
            with contextlib.suppress(OSError):
                await client._writer.wait_closed()

    async def _shake_hands(self, host: str, path: str, headers: dict[str, str]) -> None:
        fields = {
            "Host": host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec_WebSocket_Version": "13",
            "Sec_WebSocket_Key": base64.b64encode(os.urandom(16)).decode(),
            **headers,
        }
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        self._writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        start_line, _, rest = head.partition("\r\n")
        self.status = int(start_line.split()[1])
        self.headers = HTTPHeaders.parse(rest)

    def send(self, opcode: int, payload: bytes = b"", masked: bool = True) -> None:
        """Send a frame with less than 126 bytes of payload, under the mask of zeros."""
        mask = bytes(4) if masked else b""
        self._writer.write(struct.pack("BB", 0x80 | opcode, len(payload) | (0x80 if masked else 0)) + mask + payload)

    async def receive(self) -> Frame | None:
        """Receive a frame with less than 126 bytes of payload; None at the end of the connection."""
        try:
            first, second = await self._reader.readexactly(2)
            mask = await self._reader.readexactly(4) if second & 0x80 else bytes(4)
            payload = await self._reader.readexactly(second & 0x7F)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        unmasked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        return Frame(first & 0xF, bool(second & 0x80), unmasked)

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
