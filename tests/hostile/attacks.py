"""What an attack is, and the ways to attack that hostile clients and hostile servers have in common.

An attack keeps its connections until what it costs has been looked at. None of them reads anything that the attacked
sends, unless it says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import zlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from tests.hostile.measure import Program, Report
from tests.peer import RawPeer
from tests.wire import BINARY, RSV1

KIB = 1024
MIB = 1024 * KIB
#: Tornado's default.
LIMIT = 10 * MIB
#: Answers to the other client in which an attack is not heard of any more that the attacked does not read.
QUIET = 1000
#: Kinds of connections whose peers ask for permessage-deflate.
COMPRESSED = ("compressed", "offloading", "parts-compressed", "parts-compressed-unread")


class Attackers(ABC):
    """The connections of an attack. They vanish when the stack ends."""

    def __init__(self, attacked: Program, stack: contextlib.AsyncExitStack) -> None:
        self.attacked = attacked
        self.stack = stack

    @abstractmethod
    async def open(self, kind: str, **headers: str) -> RawPeer:
        """Have a connection whose opening handshake is done. What the other end of it does is its ``kind``."""

    def flood(self, peer: RawPeer, data: bytes, times: int | None) -> None:
        """Send ``data`` so often, None for without end, while the attack goes on."""
        self.stack.push_async_callback(_cancel, asyncio.ensure_future(self._flood(peer, data, times)))

    async def _flood(self, peer: RawPeer, data: bytes, times: int | None) -> None:
        for _ in range(times) if times is not None else itertools.repeat(None):
            if not await sent(peer, data):
                break


async def sent(peer: RawPeer, data: bytes) -> bool:
    """Send ``data`` as far as it is let be sent; returns whether the connection is still there."""
    try:
        await peer.send(data)
    except ConnectionError:
        return False
    return True


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


#: Takes the `Attackers` of its side, sends everything, and returns when it has come as far as it gets.
Run: TypeAlias = Callable[..., Awaitable[Report]]


class Attack(NamedTuple):
    name: str
    run: Run
    #: Bytes of memory that each of its connections may cost the attacked.
    most_memory: int
    #: Calls of the application, and bytes that were sent (those of messages after inflating), between two answers to
    #: another client.
    most_callbacks: int = 0
    most_size: int = 0
    #: The same in all, None for any number.
    most_callbacks_in_all: int | None = None
    most_size_in_all: int | None = None
    connections: int = 1
    #: How its connections end: a close code or the name of an exception, None for those that stay.
    end: str | None = None
    settings: Mapping[str, Any] = MappingProxyType({})
    #: One of `tests.hostile.meter.METERS`.
    memory: str = "python"
    tls: bool = False


def flood(
    kind: str, data: bytes, *, size: int, before: bytes = b"", connections: int = 1, times: int | None = None
) -> Run:
    """Send ``before`` once and then ``data`` over and over, until ``size`` bytes were read or all is at its end."""
    headers = {"Sec_WebSocket_Extensions": "permessage-deflate"} if kind in COMPRESSED else {}
    if times is None:
        # Many at once: the sender has to be faster than the attacked.
        data *= max(1, 64 * KIB // len(data))
        # What lies in the kernel when the attack is over is handled too, and takes its time.
        times = size // len(data) + 2

    async def run(attackers: Attackers) -> Report:
        peers = [await attackers.open(kind, **headers) for _ in range(connections)]
        for peer in peers:
            if await sent(peer, before):
                attackers.flood(peer, data, times)
        return await attackers.attacked.until(lambda report: report.size >= size or report.open == 0)

    return run


def flood_until_unread(
    kind: str, data: bytes, *, size: int, before: bytes = b"", connections: int = 1, times: int = 100
) -> Run:
    """As `flood`, until the attacked has read ``size`` bytes and reads no more."""
    start = flood(kind, data * 64, size=size, before=before, connections=connections, times=times)

    async def run(attackers: Attackers) -> Report:
        await start(attackers)
        return await attackers.attacked.until(lambda report: report.quiet >= QUIET)

    return run


def once(kind: str, data: bytes, connections: int, *, stay: bool = False) -> Run:
    """Send ``data`` over each connection and nothing more, until all was read or, if they do not stay, all end."""

    async def run(attackers: Attackers) -> Report:
        for _ in range(connections):
            await sent(await attackers.open(kind), data)
        return await attackers.attacked.until(
            lambda report: (
                report.opened == connections and (report.size >= len(data) * connections if stay else report.open == 0)
            )
        )

    return run


def payload(data: bytes) -> bytes:
    """Return the payload of a compressed message that refers to nothing before it."""
    compressor = zlib.compressobj(9, wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH))[:-4]


DEFLATED_ZEROS = payload(bytes(LIMIT - 1))
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
FINAL_BLOCK = b"\x01" + EMPTY_BLOCK[1:]
ENDLESS_LENGTH = 1 << 40
#: The head of a compressed message of so many bytes from a server, and from a client under a mask of zeros.
ENDLESS = bytes((0x80 | BINARY | RSV1, 0x7F)) + ENDLESS_LENGTH.to_bytes(8, "big")
ENDLESS_MASKED = bytes((ENDLESS[0], 0xFF)) + ENDLESS[2:] + bytes(4)

#: What a connection that is open costs, and a chunk that was read.
OPEN = 64 * KIB
CHUNK = 64 * KIB
#: Messages and control frames that a turn of the loop hands out of one connection, and that it goes on with.
TURN = 512
#: One message of just the limit takes an eighth more while it grows.
MESSAGE = LIMIT * 9 // 8 + MIB
#: What was inflated, put together, and what was handed out before.
INFLATED = 3 * LIMIT + MIB
#: Large messages between two answers: a turn goes on with two, and reads two more; one may fall on each side of it.
BOMBS = 6
