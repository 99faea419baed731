"""What hostile clients send to a server of ours, and when they have sent enough."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.hostile import parts, rates
from tests.hostile.attacks import (
    BOMBS,
    CHUNK,
    DEFLATED_ZEROS,
    EMPTY_BLOCK,
    ENDLESS_MASKED,
    FINAL_BLOCK,
    INFLATED,
    KIB,
    LIMIT,
    MESSAGE,
    MIB,
    OPEN,
    QUIET,
    TURN,
    Attack,
    Attackers,
    flood,
    flood_until_unread,
    once,
    payload,
    sent,
)
from tests.hostile.measure import Report
from tests.peer import RawPeer, frame, opening_request, unanswered_client
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, close_payload


class Clients(Attackers):
    async def silent(self) -> RawPeer:
        """Connect, and say nothing."""
        url = f"ws://127.0.0.1:{self.attacked.port}/"
        peer = await self.stack.enter_async_context(unanswered_client(url, stalling=True))
        self.stack.callback(peer.reset)
        return peer

    async def open(self, kind: str, **headers: str) -> RawPeer:
        peer = await self.silent()
        await peer.send(opening_request(f"ws://localhost/{kind}", **headers))
        await peer.receive_head()
        return peer


def _masked(opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    return frame(opcode, payload, masked=True, **options)


HALF_OPEN = 200
RENEGOTIATING = 20


async def _say_nothing(attackers: Clients) -> Report:
    for _ in range(HALF_OPEN):
        await attackers.silent()
    return await attackers.attacked.until(lambda report: report.quiet >= QUIET)


async def _send_half_a_request(attackers: Clients) -> Report:
    for _ in range(HALF_OPEN):
        peer = await attackers.silent()
        await sent(peer, b"GET /plain HTTP/1.1\r\nHost: localhost\r\n")
    return await attackers.attacked.until(lambda report: report.quiet >= QUIET)


async def _begin_tls(attackers: Clients) -> Report:
    for _ in range(HALF_OPEN):
        peer = await attackers.silent()
        outgoing = ssl.MemoryBIO()
        assert attackers.attacked.context is not None
        session = attackers.attacked.context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            session.do_handshake()
        await sent(peer, outgoing.read())
    return await attackers.attacked.until(lambda report: report.quiet >= QUIET)


def _refused(data: bytes) -> Callable[[Clients], Awaitable[Report]]:
    """Send ``data`` in the place of a request, and read until the server has closed the connection."""

    async def run(attackers: Clients) -> Report:
        peer = await attackers.silent()
        await sent(peer, data)
        with contextlib.suppress(ConnectionError):
            while await peer.receive_bytes():
                pass
        return await attackers.attacked.report()

    return run


async def _offer_very_many_extensions(attackers: Clients) -> Report:
    await attackers.open("compressed", Sec_WebSocket_Extensions="permessage-deflate; a=" + '"\\a' * 15000)
    for offer in ("x, ", "permessage-deflate; client_max_window_bits; a, ", 'x; a="\\a\\a", ', ";" * 1000):
        await attackers.open("compressed", Sec_WebSocket_Extensions=offer * (60_000 // len(offer)))
    return await attackers.attacked.report()


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
async def _tls_session(attackers: Clients) -> AsyncIterator[tuple[RawPeer, TlsSession]]:
    assert attackers.attacked.context is not None
    peer = await attackers.silent()
    session = TlsSession(attackers.attacked.context)
    await session.shake_hands(peer)
    await peer.send(session.sealed(opening_request("wss://localhost/plain")))
    await session.receive_head(peer)
    yield peer, session


async def _update_keys(attackers: Clients) -> Report:
    async with _tls_session(attackers) as (peer, session):
        for _ in range(200):
            for _ in range(2000):
                session.update_keys()
            if not await sent(peer, session.sealed()):
                break
        return await attackers.attacked.until(lambda report: not report.open)


async def _renegotiate(attackers: Clients) -> Report:
    assert attackers.attacked.context is not None
    attackers.attacked.context.maximum_version = ssl.TLSVersion.TLSv1_2
    for _ in range(RENEGOTIATING):
        async with _tls_session(attackers) as (peer, session):
            session.renegotiate()
            await sent(peer, session.sealed())
    return await attackers.attacked.until(lambda report: report.opened == RENEGOTIATING and report.quiet >= QUIET)


#: Fragments of one byte, whose payloads are empty blocks.
_BYTES_OF_BLOCKS = b"".join(_masked(CONTINUATION, bytes((byte,)), fin=False) for byte in EMPTY_BLOCK)
_BEGUN = _masked(BINARY, fin=False)
_BEGUN_COMPRESSED = _masked(BINARY, fin=False, rsv=RSV1)
#: More than is inflated at once with ``offload_size``.
_BEGUN_LARGE = _masked(BINARY, payload(bytes(128 * KIB)) + b"\x00\x00\xff\xff", fin=False, rsv=RSV1)

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
            once("plain", _masked(BINARY, b"x", length=LIMIT), 50, stay=True),
            MIB + OPEN,
            1,
            CHUNK,
            connections=50,
        ),
        Attack(
            "a message of more announced",
            once("plain", _masked(BINARY, b"x", length=LIMIT + 1), 50),
            OPEN,
            1,
            CHUNK,
            connections=50,
            end="1009",
        ),
        Attack(
            "a message that does not end",
            flood("plain", _masked(CONTINUATION, bytes(100), fin=False), before=_BEGUN, size=1 << 60),
            MESSAGE,
            0,
            2 * CHUNK,
            end="1009",
        ),
        Attack(
            "fragments of one byte",
            flood("plain", _masked(CONTINUATION, b"x", fin=False), before=_BEGUN, size=4 * MIB),
            MESSAGE,
            0,
            2 * CHUNK,
        ),
        Attack(
            "empty fragments",
            flood("plain", _masked(CONTINUATION, fin=False), before=_BEGUN, size=2 * MIB),
            MIB,
            0,
            2 * CHUNK,
        ),
        Attack("empty messages", flood("plain", _masked(TEXT), size=MIB // 2), MIB, TURN, 2 * CHUNK),
        Attack(
            "empty compressed messages",
            flood("compressed", _masked(TEXT, b"\x00", rsv=RSV1), size=MIB // 4),
            MIB,
            TURN,
            2 * CHUNK,
        ),
        Attack(
            "empty blocks of deflate",
            flood("compressed", EMPTY_BLOCK, before=ENDLESS_MASKED, size=16 * MIB),
            MIB + MIB // 2,
            0,
            2 * CHUNK,
        ),
        Attack(
            "final blocks of deflate",
            flood("compressed", FINAL_BLOCK, before=ENDLESS_MASKED, size=2 * MIB),
            3 * MIB,
            0,
            2 * CHUNK,
        ),
        Attack(
            "empty blocks in fragments of one byte",
            flood("compressed", _BYTES_OF_BLOCKS, before=_BEGUN_COMPRESSED, size=2 * MIB),
            MIB,
            0,
            2 * CHUNK,
        ),
        Attack(
            "the same, `offload_size`",
            flood("offloading", _BYTES_OF_BLOCKS, before=_BEGUN_LARGE, size=MIB),
            2 * MIB,
            0,
            2 * CHUNK,
        ),
        Attack(
            "bombs of just the limit",
            flood("compressed", _masked(BINARY, DEFLATED_ZEROS, rsv=RSV1), size=50 * LIMIT, times=60),
            INFLATED,
            BOMBS,
            BOMBS * LIMIT,
        ),
        Attack(
            "the same at once",
            flood("compressed", _masked(BINARY, DEFLATED_ZEROS, rsv=RSV1), size=95 * LIMIT, times=5, connections=20),
            INFLATED,
            BOMBS * 20,
            BOMBS * 20 * LIMIT,
            connections=20,
        ),
        Attack(
            "a bomb above the limit",
            flood("compressed", _masked(BINARY, payload(bytes(8 * LIMIT)), rsv=RSV1), size=1 << 60),
            MESSAGE,
            0,
            2 * CHUNK,
            end="1009",
        ),
        Attack("pings", flood("plain", _masked(PING, bytes(125)), size=4 * MIB), MIB, TURN, 2 * CHUNK),
        Attack("pongs", flood("plain", _masked(PONG), size=MIB // 2), MIB, TURN, 2 * CHUNK),
        Attack(
            "pings, `on_ping` is a coroutine that hangs",
            # Reading stops at 1,000 of them, of 6 bytes each; on a busy machine it has not read on by then.
            flood_until_unread("slow", _masked(PING), size=5 * KIB),
            4 * MIB,
            TURN,
            2 * CHUNK,
        ),
        Attack(
            "messages, `on_message` is a coroutine that hangs",
            flood_until_unread("slow", _masked(TEXT, bytes(1000)), size=32 * KIB),
            2 * MIB,
            TURN,
            2 * CHUNK,
        ),
        Attack(
            "close frames",
            flood("plain", _masked(CLOSE, close_payload(1000)), size=1 << 60),
            MIB,
            0,
            2 * CHUNK,
            end="1000",
        ),
        Attack(
            "a violation, and whatever then",
            flood("plain", _masked(TEXT, b"x", rsv=0x10), size=1 << 60),
            2 * MIB,
            0,
            2 * CHUNK,
            end="1002",
        ),
        Attack("no answer to a close frame", once("closing", b"", 20), OPEN, connections=20, end="1006"),
        Attack(
            "messages instead of an answer to a close frame",
            flood("closing", _masked(TEXT, b"x"), size=1 << 60),
            MIB,
            TURN,
            2 * CHUNK,
            end="1006",
            settings={"websocket_close_timeout": 0.2},
        ),
        Attack("changes of the TLS keys", _update_keys, 2 * MIB, end="None", memory="heap", tls=True),
        Attack("a TLS renegotiation", _renegotiate, 256 * KIB, connections=RENEGOTIATING, memory="heap", tls=True),
        *parts.attacks(_masked),
        *rates.attacks(_masked),
    ]
}
