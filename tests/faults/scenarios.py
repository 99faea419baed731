"""What is done while calls fail: by a peer with a server of ours, and by a client of ours with a peer.

Peers are those of the ``websockets`` library, in a loop of their own; both ends keep a journal. Its peers with threads
read in one and write in another, over TLS without a lock in Python 3.12 and older, and bytes are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, NamedTuple

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from tests.peer import SMALL_BUFFER, frame
from tests.support import PATIENCE
from tests.wire import TEXT
from tornado_ws import MessageStream, WebSocketClientConnection, WebSocketClosedError, WebSocketHandler, broadcast

#: What was seen by one end of one connection, in order.
Journal = list[tuple[Any, ...]]

LARGE = 300_000
_FLOOD = 4
#: Messages of one chunk.
_AT_ONCE = 20
#: Sizes of messages that a task writes: more than wait for the end of a turn.
_BURST = (1, 2, *(15_000 + number for number in range(6)), 3)
#: An unmasked frame with reserved bits, which is a violation from either side.
_VIOLATION = b"\xf3\x00"


def seen(message: str | bytes) -> tuple[Any, ...]:
    """Return what a journal has of a message: its type, size and checksum."""
    data = message.encode() if isinstance(message, str) else message
    return "message", type(message).__name__, len(data), zlib.crc32(data)


@functools.cache
def noise(size: int) -> bytes:
    """Return bytes of which every position counts, and which deflate to about a half."""
    return b"".join(b"%08x" % (number * 2654435761 % 2**32) for number in range(size // 8 + 1))[:size]


# A server of ours


class Subject(WebSocketHandler):
    """Does what it is told; ``journals`` gets one for each connection."""

    def initialize(
        self, journals: list[Journal], open_now: set[Subject], arm: Callable[[], None], deflate: bool
    ) -> None:
        self._journals = journals
        self._open_now = open_now
        self._arm = arm
        self._deflate = deflate
        self._journal: Journal = []

    def check_origin(self, origin: str) -> bool:
        return True

    def prepare(self) -> None:
        self._arm()
        self._journals.append(self._journal)

    def get_compression_options(self) -> dict[str, Any] | None:
        return {} if self._deflate else None

    def open(self) -> None:
        self._journal.append(("open",))
        protocol: Any = self.ws_connection
        stream = protocol.stream
        if not stream.closed():
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)

    def on_message(self, message: str | bytes) -> None:
        self._journal.append(seen(message))
        # Calls that fail may have closed it.
        with contextlib.suppress(WebSocketClosedError):
            self._do(message)

    def _do(self, message: str | bytes) -> None:
        if message == "close":
            self.close(4000, "told to")
        elif message == "flood":
            for number in range(_FLOOD):
                self.write_message(noise(LARGE + number), binary=True)
        elif message == "burst":
            self._task = asyncio.ensure_future(self._write_burst())
        elif message == "join":
            self._open_now.add(self)
            self.write_message("joined")
        elif message == "all":
            broadcast(self._open_now, "to all")
            broadcast(self._open_now, noise(LARGE), binary=True)
        else:
            self.write_message(message, binary=isinstance(message, bytes))

    async def _write_burst(self) -> None:
        try:
            for size in _BURST:
                self.write_message(noise(size), binary=True)
            await self.write_message("written")
        except WebSocketClosedError:
            pass
        except (OSError, MemoryError):
            # Nobody else would tell the peer that messages are missing.
            self.ws_connection.stream.close()  # type: ignore[union-attr]

    def on_pong(self, data: bytes) -> None:
        self._journal.append(("pong",))

    def on_close(self) -> None:
        self._open_now.discard(self)
        self._journal.append(("close", self.close_code, self.close_reason))


class CoroutineSubject(Subject):
    """The same, in coroutines: some have to wait."""

    async def on_message(self, message: str | bytes) -> None:  # type: ignore[override]
        super().on_message(message)
        if isinstance(message, str):
            await asyncio.sleep(0)


class StreamingSubject(Subject):
    """Reads each message in parts, and answers in those."""

    async def on_message_stream(self, stream: MessageStream) -> None:
        # Calls that fail may have closed it.
        with contextlib.suppress(WebSocketClosedError):
            parts = [part async for part in stream]
            message = (b"" if stream.is_binary else "").join(parts)
            self._journal.append(seen(message))
            if message == "close":
                self.close(4000, "told to")
                return
            async with self.write_stream(stream.is_binary) as answer:
                for part in parts:
                    await answer.write(part)


class Peer:
    """A client of the library's, which writes its ``journal``."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, deflate: bool) -> None:
        self._url = url
        self._options: dict[str, Any] = {
            "ssl": tls,
            "compression": "deflate" if deflate else None,
            "proxy": None,
            "max_size": None,
            "open_timeout": PATIENCE,
            "close_timeout": PATIENCE,
            "ping_interval": None,
        }
        self.journal: Journal = []

    def connected(self) -> connect:
        """Return what has a connection open while it is entered."""
        return connect(self._url, **self._options)

    async def receive(self, connection: Connection) -> None:
        self.journal.append(seen(await asyncio.wait_for(connection.recv(), PATIENCE)))

    async def exchange(self, connection: Connection, message: str | bytes) -> None:
        await connection.send(message)
        await self.receive(connection)

    async def ping(self, connection: Connection) -> None:
        await asyncio.wait_for(await connection.ping(), PATIENCE)
        self.journal.append(("pong",))

    async def see_end(self, connection: Connection) -> None:
        """Receive all there is, until the connection ends."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.receive(connection)
        self.journal.append(("closed", connection.close_code))


def _half_close_from(connection: Connection) -> None:
    # Past TLS, whose own shutdown would end both ways.
    connection.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)


async def _small(peer: Peer) -> None:
    async with peer.connected() as connection:
        for message in ("one", b"two", "", "three" * 20):
            await peer.exchange(connection, message)
        await connection.close()
        peer.journal.append(("closed", connection.close_code))


async def _large(peer: Peer) -> None:
    async with peer.connected() as connection:
        await peer.exchange(connection, noise(LARGE))
        await connection.send([noise(50_000), noise(50_001), b""])
        await peer.receive(connection)
        await connection.send("close")
        await peer.see_end(connection)


async def _flood(peer: Peer) -> None:
    async with peer.connected() as connection:
        await connection.send("flood")
        await peer.ping(connection)
        for _ in range(_FLOOD):
            await peer.receive(connection)
        await connection.send("close")
        await peer.see_end(connection)


async def _burst(peer: Peer) -> None:
    async with peer.connected() as connection:
        await connection.send("burst")
        for _ in range(len(_BURST) + 1):
            await peer.receive(connection)
        await connection.send("close")
        await peer.see_end(connection)


async def _pings(peer: Peer) -> None:
    async with peer.connected() as connection:
        for _ in range(3):
            await peer.ping(connection)
        await connection.send("close")
        await peer.see_end(connection)


async def _to_all(peer: Peer) -> None:
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(peer.connected()) for _ in range(3)]
        for connection in connections:
            await peer.exchange(connection, "join")
        await connections[0].send("all")
        for connection in connections:
            await peer.receive(connection)
            await peer.receive(connection)


async def _at_once(peer: Peer) -> None:
    async with peer.connected() as connection:
        # Past the library, which would write each of them alone.
        if connection.state is State.OPEN:
            connection.transport.write(b"".join(frame(TEXT, b"%d" % number, masked=True) for number in range(_AT_ONCE)))
        for _ in range(_AT_ONCE):
            await peer.receive(connection)
        await connection.send("close")
        await peer.see_end(connection)


async def _half_close(peer: Peer) -> None:
    async with peer.connected() as connection:
        await peer.exchange(connection, "one")
        _half_close_from(connection)
        await peer.see_end(connection)


async def _violation(peer: Peer) -> None:
    async with peer.connected() as connection:
        await peer.exchange(connection, "one")
        connection.transport.write(_VIOLATION + bytes(1000))
        await peer.see_end(connection)


# A client of ours


async def answer(connection: ServerConnection) -> None:
    """What the library's server does with a connection."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = await connection.recv()
            if message == "close":
                await connection.close(4000, "told to")
            elif message == "flood":
                for number in range(_FLOOD):
                    await connection.send(noise(LARGE + number))
            elif message == "half-close":
                _half_close_from(connection)
            elif message == "violate":
                connection.transport.write(_VIOLATION + bytes(1000))
            elif message == "ping":
                await asyncio.wait_for(await connection.ping(), PATIENCE)
                await connection.send("pong")
            else:
                await connection.send(message)


async def read_to_end(client: WebSocketClientConnection, journal: Journal) -> None:
    """Receive all there is, until the connection ends."""
    with contextlib.suppress(WebSocketClosedError):
        while True:
            await _receive(client, journal)
    journal.append(("end",))
    journal.append(("closed", client.close_code))


async def _receive(client: WebSocketClientConnection, journal: Journal) -> None:
    message = await client.read_message()
    if message is None:
        raise WebSocketClosedError
    journal.append(seen(message))


async def _exchange(client: WebSocketClientConnection, journal: Journal, message: str | bytes) -> None:
    await client.write_message(message, binary=isinstance(message, bytes))
    await _receive(client, journal)


async def _client_small(client: WebSocketClientConnection, journal: Journal) -> None:
    for message in ("one", b"two", "", "ping", "three" * 20):
        await _exchange(client, journal, message)
    client.close(1000, "done")
    await read_to_end(client, journal)


async def _client_large(client: WebSocketClientConnection, journal: Journal) -> None:
    if not client.stream.closed():
        client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    for size in (LARGE, 70_000):
        await _exchange(client, journal, noise(size))
    await client.write_message("flood")
    for _ in range(_FLOOD):
        await _receive(client, journal)
    await client.write_message("close")
    await read_to_end(client, journal)


async def _client_half_close(client: WebSocketClientConnection, journal: Journal) -> None:
    await _exchange(client, journal, "one")
    await client.write_message("half-close")
    await read_to_end(client, journal)


async def _client_violation(client: WebSocketClientConnection, journal: Journal) -> None:
    await _exchange(client, journal, "one")
    await client.write_message("violate")
    await read_to_end(client, journal)


class Scenario(NamedTuple):
    """``peer`` talks to our server's ``subject``, over ``several`` connections or one; or ``client`` is ours."""

    peer: Callable[[Peer], Coroutine[Any, Any, None]] | None = None
    client: Callable[[WebSocketClientConnection, Journal], Awaitable[None]] | None = None
    tls: bool = False
    deflate: bool = False
    several: bool = False
    subject: type[Subject] = Subject


_PEERS = {
    "small": _small,
    "large": _large,
    "flood": _flood,
    "burst": _burst,
    "pings": _pings,
    "to-all": _to_all,
    "half-close": _half_close,
    "violation": _violation,
}
_CLIENTS = {
    "small": _client_small,
    "large": _client_large,
    "half-close": _client_half_close,
    "violation": _client_violation,
}


def _all() -> Iterator[tuple[str, Scenario]]:
    yield "server-coroutines", Scenario(peer=_small, subject=CoroutineSubject)
    yield "server-read-ahead", Scenario(peer=_at_once, subject=CoroutineSubject)
    for deflate in (False, True):
        suffix = "-deflate" if deflate else ""
        yield f"server-parts{suffix}", Scenario(peer=_large, deflate=deflate, subject=StreamingSubject)
    for tls in (False, True):
        for deflate in (False, True):
            suffix = ("-tls" if tls else "") + ("-deflate" if deflate else "")
            for name, peer in _PEERS.items():
                if name in ("small", "large") or not (deflate or (tls and name in ("flood", "pings", "to-all"))):
                    several = peer is _to_all
                    yield f"server-{name}{suffix}", Scenario(peer=peer, tls=tls, deflate=deflate, several=several)
            for name, client in _CLIENTS.items():
                if name in ("small", "large") or not deflate:
                    yield f"client-{name}{suffix}", Scenario(client=client, tls=tls, deflate=deflate)


SCENARIOS = dict(_all())
