"""Peers made by hand, over TLS too."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

from tests.peer import RawPeer, opening_request


class TlsWire(RawPeer):
    """A client or a server over TLS, on a socket that asyncio's transports have no part in.

    Those read ahead, and do not tell when what was sent is with the kernel.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, is_client: bool) -> None:
        super().__init__(sock, is_client=is_client)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None
        if is_client:
            name = "localhost" if sock.family == socket.AF_UNIX else sock.getpeername()[0]
        self._session = context.wrap_bio(
            self._incoming, self._outgoing, server_side=not is_client, server_hostname=name
        )
        self._lock = asyncio.Lock()
        #: Whether the end was a close_notify.
        self.was_told_the_end = False

    async def shake_hands(self) -> None:
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        # One at a time, or records would change places.
        async with self._lock:
            await asyncio.get_running_loop().sock_sendall(self.sock, self._outgoing.read())

    async def _feed(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def send(self, *chunks: bytes) -> None:
        data = b"".join(chunks)
        if data:
            try:
                self._session.write(data)
            except ssl.SSLError as error:
                raise ConnectionResetError from error
            await self._flush()

    async def send_in_two(self, data: bytes, between: Callable[[], Awaitable[None]]) -> None:
        """Send ``data`` as one record, in two pieces."""
        self._session.write(data)
        record = self._outgoing.read()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sock, record[:-1])
        await between()
        await loop.sock_sendall(self.sock, record[-1:])

    async def send_with_end(self, data: bytes) -> None:
        """Send ``data`` and close_notify with one call."""
        self._session.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._session.unwrap()
        await self._flush()

    async def receive_bytes(self, most: int = 1 << 16) -> bytes:
        data, self._unread = self._unread[:most], self._unread[most:]
        while not data:
            try:
                data = self._session.read(most)
                # An end without close_notify is an error.
                self.was_told_the_end = not data
                return data
            except ssl.SSLWantReadError:
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                # OpenSSL answers a FIN without close_notify with an alert.
                raise ConnectionResetError from error
        return data


async def connected(sock: socket.socket, context: ssl.SSLContext | None, *, is_client: bool) -> RawPeer:
    """Return a peer on ``sock``, behind the handshake of TLS if there is a ``context``."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return RawPeer(sock, is_client=is_client)
    sock.setblocking(False)
    peer = TlsWire(sock, context, is_client=is_client)
    await peer.shake_hands()
    return peer


@contextlib.asynccontextmanager
async def wire_client(url: str, context: ssl.SSLContext) -> AsyncIterator[TlsWire]:
    """Give a client whose opening handshake is done. ``url`` is a ``ws://`` one, as servers here call themselves."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port or 0)) as sock:
        client = await connected(sock, context, is_client=True)
        assert isinstance(client, TlsWire)
        await client.send(opening_request(url))
        await client.receive_head()
        yield client


def half_close(peer: RawPeer) -> None:
    """Send FIN, over TLS without close_notify. The other end may have left already."""
    with contextlib.suppress(OSError):
        peer.half_close()
