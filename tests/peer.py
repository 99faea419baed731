"""The other end, made by hand: bytes on a plain socket, so that nothing in them is right unless a test made it so.

Nothing is read from a socket but by `RawPeer.receive`: a peer that does not call it is one that has stalled.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import select
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

from tests.support import PATIENCE, Echo, until
from tests.wire import CLOSE, TEXT, Frame, xor
from tornado_ws import WebSocketClientConnection, websocket_connect

#: The key of RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


#: Bytes that the socket of a peer takes which is to stall soon.
SMALL_BUFFER = 16384


#: Builds frames as one side sends them: `frame` with a mask or without.
Builder = Callable[..., bytes]


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    masked: bool,
    fin: bool = True,
    rsv: int = 0,
    length: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """Return a frame. ``length`` lies about the payload, ``length_bytes`` (0, 2 or 8) says it in that many."""
    mask = os.urandom(4) if masked else None
    header = Frame(opcode, payload, fin, rsv).header(mask, len(payload) if length is None else length, length_bytes)
    return header + (xor(payload, mask) if mask else payload)


class RawPeer:
    """One end of a WebSocket connection. A reset by the other end is a ConnectionError out of any method."""

    def __init__(self, sock: socket.socket, *, is_client: bool) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.head = ""
        #: The masking keys of the frames that were received.
        self.masks: list[bytes] = []
        self._is_client = is_client
        self._unread = b""

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            field, _, value = line.partition(":")
            if field.lower() == name.lower():
                return value.strip()
        return None

    def frame(self, opcode: int, payload: bytes = b"", **options: Any) -> bytes:
        """Return a frame as this side has to send it."""
        return frame(opcode, payload, **{"masked": self._is_client, **options})

    async def send(self, *chunks: bytes) -> None:
        """Send ``chunks`` with one call, on loopback in one segment if they are below 64 KiB."""
        await asyncio.get_running_loop().sock_sendall(self.sock, b"".join(chunks))

    async def send_frame(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        await self.send(self.frame(opcode, payload, **options))

    async def receive_bytes(self) -> bytes:
        """Receive what there is; nothing at the end of the connection."""
        data, self._unread = self._unread, b""
        return data or await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18)

    def has_unread(self, timeout: float = 0) -> bool:
        """Whether there is something to be received, or the end; waits without the loop, as while a callback blocks."""
        return bool(self._unread or select.select([self.sock], [], [], timeout)[0])

    async def receive_head(self) -> None:
        """Receive the head of an HTTP message, and keep what came behind it."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = await self.receive_bytes()
            assert more, f"connection ended inside an HTTP head: {data!r}"
            data += more
        head, _, self._unread = data.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")

    async def receive(self, masked: bool | None = None) -> Frame | None:
        """Receive a frame; None at the end of the connection, which may not come inside a frame.

        It is to be ``masked``, by default if this is a server.
        """
        if masked is None:
            masked = not self._is_client
        buffer = bytearray()

        async def more(size: int) -> bool:
            while len(buffer) < size:
                data = await self.receive_bytes()
                if not data:
                    assert not buffer, f"connection ended inside a frame: {bytes(buffer[:20])!r}"
                    return False
                buffer.extend(data)
            return True

        if not await more(2):
            return None
        first, second = buffer[0], buffer[1]
        assert bool(second & 0x80) is masked, "clients have to mask and servers may not"
        header = 2 + {126: 2, 127: 8}.get(second & 0x7F, 0)
        await more(header)
        length = second & 0x7F if header == 2 else int.from_bytes(buffer[2:header], "big")
        assert header == (2 if length < 126 else 4 if length < 0x10000 else 10), "length is not in its shortest form"
        end = header + (4 if masked else 0)
        await more(end + length)
        payload = bytes(buffer[end : end + length])
        self._unread = bytes(buffer[end + length :])
        if masked:
            self.masks.append(bytes(buffer[header:end]))
            payload = xor(payload, self.masks[-1])
        return Frame(first & 0xF, payload, bool(first & 0x80), first & 0x70)

    async def receive_rest(self) -> list[Frame]:
        """Receive all frames up to the end of the connection."""
        frames = []
        while (received := await self.receive()) is not None:
            frames.append(received)
        return frames

    async def answer_close(self) -> list[Frame]:
        """Receive frames up to a close frame, echo that, and return those before it."""
        frames = []
        while (received := await self.receive()) is not None and received.opcode != CLOSE:
            frames.append(received)
        assert received is not None, "no close frame"
        await self.send_frame(CLOSE, received.payload)
        return frames

    async def is_cut_off(self, data: bytes, timeout: float = PATIENCE) -> bool:
        """Send ``data`` over and over until a reset says that nobody has the socket any more."""
        deadline = asyncio.get_running_loop().time() + timeout
        while asyncio.get_running_loop().time() < deadline:
            try:
                await self.send(data)
            except ConnectionError:
                return True
            await asyncio.sleep(0.005)
        return False

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


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


@contextlib.asynccontextmanager
async def unanswered_client(url: str, *, stalling: bool = False) -> AsyncIterator[RawPeer]:
    """Connect to ``url`` and say nothing."""
    parts = urlsplit(url)
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
    """Connect to ``url`` and shake hands; ``early`` goes out in one segment with the request."""
    async with unanswered_client(url, stalling=stalling) as peer:
        await peer.send(opening_request(url, start, **headers), early)
        await peer.receive_head()
        yield peer


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

    async def receive_bytes(self) -> bytes:
        data, self._unread = self._unread, b""
        return data or await self._reader.read(1 << 18)

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


def opening_answer(peer: RawPeer, status: str = "101 Switching Protocols", **headers: str | None) -> bytes:
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


class RawServer:
    """A listening socket, and `accept` for each connection that a client makes to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.peers: list[RawPeer] = []

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def accept_tcp(self) -> RawPeer:
        sock, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        peer = RawPeer(sock, is_client=False)
        self.peers.append(peer)
        return peer

    async def accept(
        self, *, early: bytes = b"", status: str = "101 Switching Protocols", **headers: str | None
    ) -> RawPeer:
        """Accept a connection and its opening handshake; ``early`` goes out in one segment with the answer.

        ``headers`` are named with underscores; None takes one out.
        """
        peer = await self.accept_tcp()
        await peer.receive_head()
        await peer.send(opening_answer(peer, status, **headers), early)
        return peer


@contextlib.asynccontextmanager
async def raw_server(*, stalling: bool = False) -> AsyncIterator[RawServer]:
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


@contextlib.asynccontextmanager
async def raw_pair(
    *, early: bytes = b"", stalling: bool = False, headers: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[tuple[WebSocketClientConnection, RawPeer]]:
    """Give a client connection of ours, made with ``options``, and the server made by hand that it is connected to."""
    async with raw_server(stalling=stalling) as server:
        connecting = websocket_connect(server.url, **options)
        peer = await server.accept(early=early, **(headers or {}))
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
