"""Servers and clients made by hand: the opening handshake as bytes, and a `RawPeer` behind it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from tornado_ws.escaping import shown
from tornado_ws.testing.raw_peer import SMALL_BUFFER, RawPeer

#: The key of RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="

_SWITCHING = "101 Switching Protocols"


def opening_request(url: str, /, start: str = "GET {path} HTTP/1.1", **headers: str | None) -> bytes:
    """Return an opening handshake; ``headers`` are named with underscores, None takes one out."""
    parts = urlsplit(url)
    fields: dict[str, str | None] = {
        "Host": parts.netloc,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": KEY,
        **headers,
    }
    return (start.format(path=parts.path or "/") + "\r\n" + _header_lines(fields) + "\r\n").encode("latin-1")


def opening_answer(peer: RawPeer, status: str = _SWITCHING, **headers: str | None) -> bytes:
    """Return the answer to the opening handshake that ``peer`` has received; ``headers`` as in `opening_request`."""
    key = peer.header("Sec-WebSocket-Key") or ""
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    fields: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Accept": base64.b64encode(digest).decode(),
        **headers,
    }
    return f"HTTP/1.1 {status}\r\n{_header_lines(fields)}\r\n".encode("latin-1")


def _header_lines(fields: dict[str, str | None]) -> str:
    return "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value is not None)


@contextlib.asynccontextmanager
async def unanswered_client(url: str, *, stalling: bool = False) -> AsyncIterator[RawPeer]:
    """Connect to ``url`` and say nothing."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "http") or parts.port is None:
        raise ValueError(f"URL is {shown(url)}; it has to be ws://HOST:PORT, with a path or without")
    sock = socket.socket()
    if stalling:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    peer = RawPeer(sock, is_client=True)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
        yield peer
    finally:
        peer.close()


@contextlib.asynccontextmanager
async def raw_client(
    url: str, *, start: str = "GET {path} HTTP/1.1", early: bytes = b"", stalling: bool = False, **headers: str | None
) -> AsyncIterator[RawPeer]:
    """Connect to ``url``, a ``ws://`` one with a port, and shake hands.

    The answer is in ``status`` and ``header()`` of the `RawPeer`, whatever it is.

    :param start: the first line of the request.
    :param early: bytes that go out in one segment with the request.
    :param stalling: have a small buffer for what is received, which is full soon.
    :param headers: as in `opening_request`.
    :raises ValueError: for any other URL.
    """
    async with unanswered_client(url, stalling=stalling) as peer:
        await peer.send(opening_request(url, start, **headers), early)
        await peer.receive_head()
        yield peer


class RawServer:
    """A listening socket, and `accept` for each connection that a client makes to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.peers: list[RawPeer] = []

    @property
    def port(self) -> int:
        """The port of 127.0.0.1."""
        return int(self.sock.getsockname()[1])

    @property
    def url(self) -> str:
        """A ``ws://`` URL."""
        return f"ws://127.0.0.1:{self.port}"

    async def accept_tcp(self) -> RawPeer:
        """Accept a connection, and receive nothing."""
        sock, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        peer = RawPeer(sock, is_client=False)
        self.peers.append(peer)
        return peer

    async def accept(
        self, *, early: bytes = b"", status: str = _SWITCHING, delay: float = 0.0, **headers: str | None
    ) -> RawPeer:
        """Accept a connection and its opening handshake; ``early`` goes out in one segment with the answer.

        ``status`` is that of the answer, such as "403 Forbidden", which comes ``delay`` seconds (0) after the request.
        ``headers`` are as in `opening_request`.
        """
        peer = await self.accept_tcp()
        await peer.receive_head()
        if delay:
            await asyncio.sleep(delay)
        await peer.send(opening_answer(peer, status, **headers), early)
        return peer

    async def refuse(self, status: str, body: bytes = b"", **headers: str | None) -> RawPeer:
        """Accept a connection, and answer its opening handshake with ``status``, such as "403 Forbidden"."""
        fields: dict[str, str | None] = {
            "Upgrade": None,
            "Connection": "close",
            "Sec_WebSocket_Accept": None,
            "Content_Length": str(len(body)),
            **headers,
        }
        return await self.accept(early=body, status=status, delay=0.0, **fields)


@contextlib.asynccontextmanager
async def raw_server(*, stalling: bool = False) -> AsyncIterator[RawServer]:
    """Listen at a free port of 127.0.0.1; at the end all connections are closed.

    :param stalling: have small buffers for what is received, which are full soon.
    """
    sock = socket.socket()
    if stalling:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    server = RawServer(sock)
    try:
        yield server
    finally:
        sock.close()
        for peer in server.peers:
            peer.close()
