"""The other end, made by hand: what `tornado_ws.testing` has, and ends over TLS, pairs and handlers beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from tests.support import Echo, until
from tests.wire import CLOSE, TEXT, Frame
from tornado_ws import WebSocketClientConnection, websocket_connect
from tornado_ws.testing.frames import Builder as Builder
from tornado_ws.testing.frames import frame as frame
from tornado_ws.testing.raw_ends import KEY as KEY
from tornado_ws.testing.raw_ends import RawServer as RawServer
from tornado_ws.testing.raw_ends import opening_answer as opening_answer
from tornado_ws.testing.raw_ends import opening_request as opening_request
from tornado_ws.testing.raw_ends import raw_client as raw_client
from tornado_ws.testing.raw_ends import raw_server as raw_server
from tornado_ws.testing.raw_ends import unanswered_client as unanswered_client
from tornado_ws.testing.raw_peer import SMALL_BUFFER as SMALL_BUFFER
from tornado_ws.testing.raw_peer import RawPeer as RawPeer


async def exchange(*clients: RawPeer) -> None:
    """Let a server echo something to each of ``clients``."""
    for client in clients:
        await client.send_frame(TEXT, b"x")
        assert await client.receive() == Frame(TEXT, b"x")


async def end(client: RawPeer) -> None:
    """Have the closing handshake with a server."""
    await client.send_frame(CLOSE)
    assert await client.receive_rest() == [Frame(CLOSE)]
    client.close()


class TlsPeer(RawPeer):
    """A client over TLS, which reads on by itself: it does not stall before some 100 KB."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(writer.get_extra_info("socket"), is_client=True)
        self._reader = reader
        self._writer = writer

    async def send(self, *chunks: bytes) -> None:
        self._writer.write(b"".join(chunks))
        await self._writer.drain()

    async def receive_bytes(self, most: int = 1 << 18) -> bytes:
        data, self._unread = self._unread[:most], self._unread[most:]
        return data or await self._reader.read(most)

    def close(self) -> None:
        """Say close_notify, and then FIN."""
        self._writer.close()

    def reset(self) -> None:
        """Vanish without close_notify."""
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def tls_client(url: str, context: ssl.SSLContext, *, early: bytes = b"") -> AsyncIterator[TlsPeer]:
    """As `raw_client`, over TLS. ``url`` is a ``ws://`` one, as servers here call themselves."""
    parts = urlsplit(url)
    streams = await asyncio.open_connection(parts.hostname, parts.port, ssl=context, server_hostname="localhost")
    peer = TlsPeer(*streams)
    try:
        await peer.send(opening_request(url), early)
        await peer.receive_head()
        yield peer
    finally:
        peer.close()
        await peer.wait_closed()


@contextlib.asynccontextmanager
async def raw_pair(
    *, early: bytes = b"", stalling: bool = False, headers: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[tuple[WebSocketClientConnection, RawPeer]]:
    """Give a client connection of ours, made with ``options``, and the server made by hand that it is connected to."""
    async with raw_server(stalling=stalling) as server:
        connecting = websocket_connect(server.url, **options)
        peer = await server.accept(early=early, delay=0.0, **(headers or {}))
        conn = await connecting
        try:
            yield conn, peer
        finally:
            conn.close()
            peer.close()
            await until(conn.stream.closed)


#: How `end_by` ends a connection of a client's.
WAYS_TO_END = ("close frame", "FIN", "RST", "our close", "abort")


async def end_by(way: str, conn: WebSocketClientConnection, peer: RawPeer) -> None:
    """End a client's connection by one of `WAYS_TO_END`."""
    if way == "close frame":
        await peer.send_frame(CLOSE)
    elif way == "FIN":
        peer.half_close()
    elif way == "RST":
        peer.reset()
    elif way == "our close":
        conn.close()
        await peer.answer_close()
    else:
        protocol: Any = conn.protocol
        protocol._abort()


class Recording(Echo):
    """Echoes, and writes down in a list of the test's what was called."""

    def initialize(self, calls: list[Any]) -> None:
        self.calls = calls

    def open(self) -> None:
        self.calls.append("open")

    def on_message(self, message: str | bytes) -> Any:
        self.calls.append(message)
        return super().on_message(message)

    def on_close(self) -> None:
        self.calls.append(self.closed_with())

    def closed_with(self) -> tuple[str, int | None, str | None]:
        return ("close", self.close_code, self.close_reason)


class StallingEcho(Echo):
    """Echoes into a socket that takes little: with a peer that does not read, writes have to wait."""

    def open(self) -> None:
        protocol: Any = self.ws_connection
        protocol.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)


class Sockets:
    """The sockets that this process has opened since this was made."""

    def __init__(self) -> None:
        self._before = self._all()

    def new(self) -> set[str]:
        return self._all() - self._before

    @staticmethod
    def _all() -> set[str]:
        found = set()
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/self/fd/{fd}"))
        return {name for name in found if name.startswith("socket:")}
