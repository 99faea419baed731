"""What hostile clients send, and when they have sent enough.

An attack keeps its connections until what it costs has been looked at. None of them reads anything that the server
sends, unless it says so.
"""

from __future__ import annotations

import _ssl
import asyncio
import contextlib
import ctypes
import itertools
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from tests.connection.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    TEXT,
    RawPeer,
    close_payload,
    frame,
    opening_request,
    unanswered_client,
)
from tests.hostile.measure import Report, Server

KIB = 1024
MIB = 1024 * KIB
#: Tornado's default.
LIMIT = 10 * MIB
#: Answers to the other client in which an attack is not heard of any more that the server does not read.
QUIET = 1000


class Attackers:
    """The connections of an attack. They vanish when the stack ends."""

    def __init__(self, server: Server, stack: contextlib.AsyncExitStack) -> None:
        self.server = server
        self._stack = stack

    async def silent(self) -> RawPeer:
        """Connect, and say nothing."""
        url = f"ws://127.0.0.1:{self.server.port}/"
        peer = await self._stack.enter_async_context(unanswered_client(url, stalling=True))
        self._stack.callback(peer.reset)
        return peer

    async def open(self, path: str, **headers: str) -> RawPeer:
        """Connect and shake hands."""
        peer = await self.silent()
        await peer.send(opening_request(f"ws://localhost/{path}", **headers))
        await peer.receive_head()
        return peer

    def flood(self, peer: RawPeer, data: bytes, times: int | None) -> None:
        """Send ``data`` so often, None for without end, while the attack goes on."""
        self._stack.push_async_callback(_cancel, asyncio.ensure_future(self._flood(peer, data, times)))

    async def _flood(self, peer: RawPeer, data: bytes, times: int | None) -> None:
        for _ in range(times) if times is not None else itertools.repeat(None):
            if not await sent(peer, data):
                break


async def sent(peer: RawPeer, data: bytes) -> bool:
    """Send ``data`` as far as the server lets it be sent; returns whether the connection is still there."""
    try:
        await peer.send(data)
    except ConnectionError:
        return False
    return True


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


#: Sends everything, and returns when it has come as far as it gets.
Run: TypeAlias = Callable[[Attackers], Awaitable[Report]]


class Attack(NamedTuple):
    name: str
    run: Run
    #: Bytes of memory that each of its connections may cost the server.
    most_memory: int
    #: Calls of the application, and bytes that were sent (those of messages after inflating), between two answers to
    #: another client.
    most_callbacks: int = 0
    most_size: int = 0
    connections: int = 1
    #: How its connections end: a close code, None for those that stay.
    end: str | None = None
    settings: Mapping[str, Any] = MappingProxyType({})
    #: One of `tests.hostile.server.METERS`.
    memory: str = "python"
    tls: bool = False


def _masked(opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    return frame(opcode, payload, masked=True, **options)


def _payload(data: bytes) -> bytes:
    """Return the payload of a compressed message that refers to nothing before it."""
    compressor = zlib.compressobj(9, wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH))[:-4]


def _flood(
    path: str, data: bytes, *, size: int, before: bytes = b"", connections: int = 1, times: int | None = None
) -> Run:
    """Send ``before`` once and then ``data`` over and over, until ``size`` bytes were read or all is at its end."""
    headers = {"Sec_WebSocket_Extensions": "permessage-deflate"} if path in ("compressed", "offloading") else {}
    if times is None:
        # Many at once: the sender has to be faster than the server.
        data *= max(1, 64 * KIB // len(data))
        # What lies in the kernel when the attack is over is handled too, and takes its time.
        times = size // len(data) + 2

    async def run(attackers: Attackers) -> Report:
        peers = [await attackers.open(path, **headers) for _ in range(connections)]
        for peer in peers:
            if await sent(peer, before):
                attackers.flood(peer, data, times)
        return await attackers.server.until(lambda report: report.size >= size or report.open == 0)

    return run


def _flood_until_unread(path: str, data: bytes, *, size: int) -> Run:
    """As `_flood`, until the server has read ``size`` bytes and reads no more."""
    start = _flood(path, data * 64, size=size, times=100)

    async def run(attackers: Attackers) -> Report:
        await start(attackers)
        return await attackers.server.until(lambda report: report.quiet >= QUIET)

    return run


def _once(path: str, data: bytes, connections: int) -> Run:
    """Send ``data`` over each connection, and nothing more."""

    async def run(attackers: Attackers) -> Report:
        for _ in range(connections):
            await sent(await attackers.open(path), data)
        return await attackers.server.until(
            lambda report: (
                report.opened == connections and (report.size >= len(data) * connections > 0 or not report.open)
            )
        )

    return run


HALF_OPEN = 200
RENEGOTIATING = 20


async def _say_nothing(attackers: Attackers) -> Report:
    for _ in range(HALF_OPEN):
        await attackers.silent()
    return await attackers.server.until(lambda report: report.quiet >= QUIET)


async def _send_half_a_request(attackers: Attackers) -> Report:
    for _ in range(HALF_OPEN):
        peer = await attackers.silent()
        await sent(peer, b"GET /plain HTTP/1.1\r\nHost: localhost\r\n")
    return await attackers.server.until(lambda report: report.quiet >= QUIET)


async def _begin_tls(attackers: Attackers) -> Report:
    for _ in range(HALF_OPEN):
        peer = await attackers.silent()
        outgoing = ssl.MemoryBIO()
        assert attackers.server.context is not None
        session = attackers.server.context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            session.do_handshake()
        await sent(peer, outgoing.read())
    return await attackers.server.until(lambda report: report.quiet >= QUIET)


def _refused(data: bytes) -> Callable[[Attackers], Awaitable[Report]]:
    """Send ``data`` in the place of a request, and read until the server has closed the connection."""

    async def run(attackers: Attackers) -> Report:
        peer = await attackers.silent()
        await sent(peer, data)
        with contextlib.suppress(ConnectionError):
            while await peer.receive_bytes():
                pass
        return await attackers.server.report()

    return run


async def _offer_very_many_extensions(attackers: Attackers) -> Report:
    await attackers.open("compressed", Sec_WebSocket_Extensions="permessage-deflate; a=" + '"\\a' * 15000)
    for offer in ("x, ", "permessage-deflate; client_max_window_bits; a, ", 'x; a="\\a\\a", ', ";" * 1000):
        await attackers.open("compressed", Sec_WebSocket_Extensions=offer * (60_000 // len(offer)))
    return await attackers.server.report()


class TlsSession:
    """A client's session of TLS over memory, which can be told to do what Python's ssl module has no words for."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        sslobj: Any = self.session._sslobj  # type: ignore[attr-defined]
        # Where CPython keeps it: behind the head of the object and the pointer to its socket.
        self._ssl = ctypes.c_void_p.from_address(id(sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p))
        self._openssl = ctypes.CDLL(_ssl.__file__)

    async def shake_hands(self, peer: RawPeer) -> None:
        while True:
            try:
                return self.session.do_handshake()
            except ssl.SSLWantReadError:
                await peer.send(self._outgoing.read())
                self._incoming.write(await peer.receive_bytes())

    def sealed(self, data: bytes = b"") -> bytes:
        """Return the records for ``data``, behind whatever was to be sent before."""
        if data:
            self.session.write(data)
        return self._outgoing.read()

    async def receive_head(self, peer: RawPeer) -> None:
        """Receive the head of an HTTP message."""
        data = b""
        while b"\r\n\r\n" not in data:
            try:
                data += self.session.read(1 << 16)
            except ssl.SSLWantReadError:
                self._incoming.write(await peer.receive_bytes())

    def update_keys(self) -> None:
        """Change the keys, and ask for the same (RFC 8446 section 4.6.3)."""
        assert self._openssl.SSL_key_update(self._ssl, 1) == 1
        assert self._openssl.SSL_do_handshake(self._ssl) == 1

    def renegotiate(self) -> None:
        """Begin another handshake (RFC 5246 section 7.4.1.1)."""
        assert self._openssl.SSL_renegotiate(self._ssl) == 1
        self._openssl.SSL_do_handshake(self._ssl)


@contextlib.asynccontextmanager
async def _tls_session(attackers: Attackers) -> AsyncIterator[tuple[RawPeer, TlsSession]]:
    assert attackers.server.context is not None
    peer = await attackers.silent()
    session = TlsSession(attackers.server.context)
    await session.shake_hands(peer)
    await peer.send(session.sealed(opening_request("wss://localhost/plain")))
    await session.receive_head(peer)
    yield peer, session


async def _update_keys(attackers: Attackers) -> Report:
    async with _tls_session(attackers) as (peer, session):
        for _ in range(200):
            for _ in range(2000):
                session.update_keys()
            if not await sent(peer, session.sealed()):
                break
        return await attackers.server.until(lambda report: not report.open)


async def _renegotiate(attackers: Attackers) -> Report:
    assert attackers.server.context is not None
    attackers.server.context.maximum_version = ssl.TLSVersion.TLSv1_2
    for _ in range(RENEGOTIATING):
        async with _tls_session(attackers) as (peer, session):
            session.renegotiate()
            await sent(peer, session.sealed())
    return await attackers.server.until(lambda report: report.opened == RENEGOTIATING and report.quiet >= QUIET)


_DEFLATED_ZEROS = _payload(bytes(LIMIT - 1))
_EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
_FINAL_BLOCK = b"\x01" + _EMPTY_BLOCK[1:]
#: The head of a compressed message of 2^40 bytes, under a mask of zeros.
_ENDLESS = bytes((0x80 | BINARY | RSV1, 0xFF)) + (1 << 40).to_bytes(8, "big") + bytes(4)
#: Fragments of one byte, whose payloads are empty blocks.
_BYTES_OF_BLOCKS = b"".join(_masked(CONTINUATION, bytes((byte,)), fin=False) for byte in _EMPTY_BLOCK)
_BEGUN = _masked(BINARY, fin=False)
_BEGUN_COMPRESSED = _masked(BINARY, fin=False, rsv=RSV1)
#: More than is inflated at once with ``offload_size``.
_BEGUN_LARGE = _masked(BINARY, _payload(bytes(128 * KIB)) + b"\x00\x00\xff\xff", fin=False, rsv=RSV1)

#: What a connection that is open costs, and a chunk that was read.
_OPEN = 64 * KIB
_CHUNK = 64 * KIB
#: Messages and control frames that a turn of the loop hands out of one connection, and that it goes on with.
_TURN = 512
#: One message of just the limit takes an eighth more while it grows.
_MESSAGE = LIMIT * 9 // 8 + MIB
#: What was inflated, put together, and what was handed out before.
_INFLATED = 3 * LIMIT + MIB
#: Large messages between two answers: a turn goes on with two, and reads two more; one may fall on each side of it.
_BOMBS = 6

ATTACKS = {
    attack.name: attack
    for attack in [
        Attack("connections that say nothing", _say_nothing, 24 * KIB, connections=HALF_OPEN),
        Attack("half a request", _send_half_a_request, 24 * KIB, connections=HALF_OPEN),
        Attack("half a TLS handshake", _begin_tls, 128 * KIB, connections=HALF_OPEN, memory="heap", tls=True),
        Attack("headers without end", _refused(b"GET /plain HTTP/1.1\r\n" + b"X: y\r\n" * 40000), MIB),
        Attack("60 KB of extensions", _offer_very_many_extensions, MIB, connections=5),
        Attack(
            "a message of 10 MiB announced",
            _once("plain", _masked(BINARY, b"x", length=LIMIT), 50),
            MIB + _OPEN,
            1,
            _CHUNK,
            connections=50,
        ),
        Attack(
            "a message of more announced",
            _once("plain", _masked(BINARY, b"x", length=LIMIT + 1), 50),
            _OPEN,
            1,
            _CHUNK,
            connections=50,
            end="1009",
        ),
        Attack(
            "a message that does not end",
            _flood("plain", _masked(CONTINUATION, bytes(100), fin=False), before=_BEGUN, size=1 << 60),
            _MESSAGE,
            0,
            2 * _CHUNK,
            end="1009",
        ),
        Attack(
            "fragments of one byte",
            _flood("plain", _masked(CONTINUATION, b"x", fin=False), before=_BEGUN, size=4 * MIB),
            _MESSAGE,
            0,
            2 * _CHUNK,
        ),
        Attack(
            "empty fragments",
            _flood("plain", _masked(CONTINUATION, fin=False), before=_BEGUN, size=2 * MIB),
            MIB,
            0,
            2 * _CHUNK,
        ),
        Attack("empty messages", _flood("plain", _masked(TEXT), size=MIB // 2), MIB, _TURN, 2 * _CHUNK),
        Attack(
            "empty compressed messages",
            _flood("compressed", _masked(TEXT, b"\x00", rsv=RSV1), size=MIB // 4),
            MIB,
            _TURN,
            2 * _CHUNK,
        ),
        Attack(
            "empty blocks of deflate",
            _flood("compressed", _EMPTY_BLOCK, before=_ENDLESS, size=16 * MIB),
            MIB + MIB // 2,
            0,
            2 * _CHUNK,
        ),
        Attack(
            "final blocks of deflate",
            _flood("compressed", _FINAL_BLOCK, before=_ENDLESS, size=2 * MIB),
            3 * MIB,
            0,
            2 * _CHUNK,
        ),
        Attack(
            "empty blocks in fragments of one byte",
            _flood("compressed", _BYTES_OF_BLOCKS, before=_BEGUN_COMPRESSED, size=2 * MIB),
            MIB,
            0,
            2 * _CHUNK,
        ),
        Attack(
            "the same, `offload_size`",
            _flood("offloading", _BYTES_OF_BLOCKS, before=_BEGUN_LARGE, size=MIB),
            2 * MIB,
            0,
            2 * _CHUNK,
        ),
        Attack(
            "bombs of just the limit",
            _flood("compressed", _masked(BINARY, _DEFLATED_ZEROS, rsv=RSV1), size=50 * LIMIT, times=60),
            _INFLATED,
            _BOMBS,
            _BOMBS * LIMIT,
        ),
        Attack(
            "the same at once",
            _flood("compressed", _masked(BINARY, _DEFLATED_ZEROS, rsv=RSV1), size=95 * LIMIT, times=5, connections=20),
            _INFLATED,
            _BOMBS * 20,
            _BOMBS * 20 * LIMIT,
            connections=20,
        ),
        Attack(
            "a bomb above the limit",
            _flood("compressed", _masked(BINARY, _payload(bytes(8 * LIMIT)), rsv=RSV1), size=1 << 60),
            _MESSAGE,
            0,
            2 * _CHUNK,
            end="1009",
        ),
        Attack("pings", _flood("plain", _masked(PING, bytes(125)), size=4 * MIB), MIB, _TURN, 2 * _CHUNK),
        Attack("pongs", _flood("plain", _masked(PONG), size=MIB // 2), MIB, _TURN, 2 * _CHUNK),
        Attack(
            "pings, `on_ping` is a coroutine that hangs",
            _flood_until_unread("slow", _masked(PING), size=8 * KIB),
            4 * MIB,
            _TURN,
            2 * _CHUNK,
        ),
        Attack(
            "messages, `on_message` is a coroutine that hangs",
            _flood_until_unread("slow", _masked(TEXT, bytes(1000)), size=32 * KIB),
            2 * MIB,
            _TURN,
            2 * _CHUNK,
        ),
        Attack(
            "close frames",
            _flood("plain", _masked(CLOSE, close_payload(1000)), size=1 << 60),
            MIB,
            0,
            2 * _CHUNK,
            end="1000",
        ),
        Attack(
            "a violation, and whatever then",
            _flood("plain", _masked(TEXT, b"x", rsv=0x10), size=1 << 60),
            2 * MIB,
            0,
            2 * _CHUNK,
            end="1002",
        ),
        Attack("no answer to a close frame", _once("closing", b"", 20), _OPEN, connections=20, end="1006"),
        Attack(
            "messages instead of an answer to a close frame",
            _flood("closing", _masked(TEXT, b"x"), size=1 << 60),
            MIB,
            _TURN,
            2 * _CHUNK,
            end="1006",
            settings={"websocket_close_timeout": 0.2},
        ),
        Attack("changes of the TLS keys", _update_keys, 2 * MIB, end="None", memory="heap", tls=True),
        Attack("a TLS renegotiation", _renegotiate, 256 * KIB, connections=RENEGOTIATING, memory="heap", tls=True),
    ]
}
