"""A server in this process, and a client made by hand: its bytes are the same whatever the server is made with."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

from tornado import websocket
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
REQUEST = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)


def serve(handler: type[websocket.WebSocketHandler], **settings: Any) -> int:
    """Serve ``handler`` until the program ends; returns the port."""
    sock, port = bind_unused_port()
    HTTPServer(Application([("/", handler)], **settings)).add_sockets([sock])
    return port


class RawClient:
    """Reads only what it is asked to, so that it can stall."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._unread = b""

    async def send(self, *frames: tuple[int, bytes]) -> None:
        """Send frames of less than 126 bytes, under a mask of zeros."""
        data = b"".join(bytes((0x80 | opcode, 0x80 | len(body), 0, 0, 0, 0)) + body for opcode, body in frames)
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def _read(self, size: int) -> bytes:
        while len(self._unread) < size:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
            if not data:
                raise EOFError
            self._unread += data
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    async def receive(self) -> tuple[int, bytes]:
        """Receive a frame. Raises EOFError at the end of the connection."""
        first, size = await self._read(2)
        if size >= 126:
            size = int.from_bytes(await self._read(2 if size == 126 else 8), "big")
        return first & 0xF, await self._read(size)

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def receive_head(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self._read(1)


@contextlib.asynccontextmanager
async def raw_client(port: int, more: str = "") -> AsyncIterator[RawClient]:
    """Connect to ``port`` and shake hands, with ``more`` lines in the request. At the end the client is gone."""
    with socket.socket() as sock:
        # It stalls soon.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        client = RawClient(sock)
        await asyncio.get_running_loop().sock_sendall(sock, REQUEST.format(more=more).encode())
        await client.receive_head()
        yield client
