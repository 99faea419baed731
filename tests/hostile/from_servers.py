"""What hostile servers send to a client of ours, and when they have sent enough."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

from tests.hostile import parts
from tests.hostile.attacks import (
    BOMBS,
    CHUNK,
    DEFLATED_ZEROS,
    EMPTY_BLOCK,
    ENDLESS,
    FINAL_BLOCK,
    INFLATED,
    KIB,
    LIMIT,
    MESSAGE,
    MIB,
    OPEN,
    TURN,
    Attack,
    Attackers,
    flood,
    flood_until_unread,
    once,
    payload,
    sent,
)
from tests.hostile.measure import Program, Report
from tests.peer import RawPeer, RawServer, frame, opening_answer
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, close_payload

#: Connections at a time of a client whose servers do not answer.
_UNANSWERED = 100


class Servers(Attackers):
    def __init__(self, attacked: Program, stack: contextlib.AsyncExitStack, server: RawServer) -> None:
        super().__init__(attacked, stack)
        self._server = server

    async def silent(self, kind: str = "plain") -> RawPeer:
        """Have a connection whose opening handshake is not answered."""
        await self.attacked.ask(f"connect {kind}")
        peer = await self._server.accept_tcp()
        self.stack.callback(peer.reset)
        await peer.receive_head()
        return peer

    async def open(self, kind: str, **headers: str) -> RawPeer:
        peer = await self.silent(kind)
        await peer.send(opening_answer(peer, **headers))
        return peer


def _unmasked(opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    return frame(opcode, payload, masked=False, **options)


def _answer(data: bytes, rest: bytes = b"", connections: int = 1) -> Callable[[Servers], Awaitable[Report]]:
    """Send ``data`` in the place of an answer, and then ``rest`` over and over, until the client has gone."""

    async def run(attackers: Servers) -> Report:
        for _ in range(connections):
            peer = await attackers.silent()
            if await sent(peer, data) and rest:
                attackers.flood(peer, rest * max(1, 64 * KIB // len(rest)), None)
        return await attackers.attacked.until(lambda report: report.open == 0)

    return run


async def _accept_with_very_many_headers(attackers: Servers) -> Report:
    peer = await attackers.silent()
    fields = {f"X_{number}": "y" for number in range(6000)}
    await sent(peer, opening_answer(peer, **fields))
    return await attackers.attacked.until(lambda report: report.opened == 1)


async def _accept_with_very_many_extensions(attackers: Servers) -> Report:
    peer = await attackers.silent("compressed")
    await sent(peer, opening_answer(peer, Sec_WebSocket_Extensions="permessage-deflate; a=" + '"\\a' * 15000))
    return await attackers.attacked.until(lambda report: not report.open)


_BEGUN = _unmasked(BINARY, fin=False)
_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\n"
_GZIPPED = gzip.compress(bytes(64 * MIB))
_IN_CHUNKS = _FORBIDDEN + b"Transfer-Encoding: chunked\r\n\r\n"
_REFUSED = "`HandshakeRejectedError` 403"

ATTACKS = {
    attack.name: attack
    for attack in [
        Attack(
            "no answer to the request",
            _answer(b"", connections=_UNANSWERED),
            64 * KIB,
            connections=_UNANSWERED,
            end="`HTTPTimeoutError`",
            settings={"connect_timeout": 0.5},
        ),
        Attack(
            "half an answer",
            _answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs", connections=_UNANSWERED),
            64 * KIB,
            connections=_UNANSWERED,
            end="`HTTPTimeoutError`",
            settings={"connect_timeout": 0.5},
        ),
        Attack(
            "headers without end",
            _answer(b"HTTP/1.1 101 Switching Protocols\r\n", b"X: y\r\n"),
            MIB,
            end="`StreamClosedError`",
        ),
        Attack("a header without end", _answer(b"HTTP/1.1 101 ", b"x"), MIB, end="`StreamClosedError`"),
        Attack("6,000 headers", _accept_with_very_many_headers, 4 * MIB),
        Attack("45 KB of extensions", _accept_with_very_many_extensions, MIB, end="`InvalidHandshakeError`"),
        Attack(
            "answers of 103 without end",
            _answer(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
            MIB,
            end="`StreamClosedError`",
        ),
        Attack("a refusal without end", _answer(_FORBIDDEN + b"\r\n", bytes(KIB)), MIB, end=_REFUSED),
        Attack(
            "a refusal of 1 TB announced",
            _answer(_FORBIDDEN + b"Content-Length: 1000000000000\r\n\r\n", bytes(KIB)),
            MIB,
            end=_REFUSED,
        ),
        Attack("a refusal in chunks of one byte", _answer(_IN_CHUNKS, b"1\r\nx\r\n"), MIB, end=_REFUSED),
        Attack("a refusal in a chunk of 1 TB", _answer(_IN_CHUNKS + b"%x\r\n" % 10**12, bytes(KIB)), MIB, end=_REFUSED),
        Attack(
            "a refusal that inflates",
            _answer(_FORBIDDEN + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(_GZIPPED) + _GZIPPED),
            MIB,
            end=_REFUSED,
        ),
        Attack(
            "a message of 10 MiB announced",
            once("plain", _unmasked(BINARY, b"x", length=LIMIT), 50, stay=True),
            MIB + OPEN,
            1,
            CHUNK,
            connections=50,
        ),
        Attack(
            "a message of more announced",
            once("plain", _unmasked(BINARY, b"x", length=LIMIT + 1), 50),
            OPEN,
            1,
            CHUNK,
            connections=50,
            end="1009",
        ),
        Attack(
            "a message that does not end",
            flood("plain", _unmasked(CONTINUATION, bytes(100), fin=False), before=_BEGUN, size=1 << 60),
            MESSAGE,
            0,
            2 * CHUNK,
            end="1009",
        ),
        Attack(
            "fragments of one byte",
            flood("plain", _unmasked(CONTINUATION, b"x", fin=False), before=_BEGUN, size=2 * MIB),
            MESSAGE,
            0,
            2 * CHUNK,
        ),
        Attack(
            "empty fragments",
            flood("plain", _unmasked(CONTINUATION, fin=False), before=_BEGUN, size=MIB // 2),
            MIB,
            0,
            2 * CHUNK,
        ),
        Attack("empty messages", flood("plain", _unmasked(TEXT), size=MIB // 2), MIB, TURN, 2 * CHUNK),
        Attack(
            "empty compressed messages",
            flood("compressed", _unmasked(TEXT, b"\x00", rsv=RSV1), size=MIB // 4),
            MIB,
            TURN,
            2 * CHUNK,
        ),
        Attack(
            "empty blocks of deflate",
            flood("compressed", EMPTY_BLOCK, before=ENDLESS, size=16 * MIB),
            MIB + MIB // 2,
            0,
            2 * CHUNK,
        ),
        Attack(
            "final blocks of deflate",
            flood("compressed", FINAL_BLOCK, before=ENDLESS, size=2 * MIB),
            3 * MIB,
            0,
            2 * CHUNK,
        ),
        Attack(
            "bombs of just the limit",
            flood("compressed", _unmasked(BINARY, DEFLATED_ZEROS, rsv=RSV1), size=50 * LIMIT, times=60),
            INFLATED,
            BOMBS,
            BOMBS * LIMIT,
        ),
        Attack(
            "a bomb above the limit",
            flood("compressed", _unmasked(BINARY, payload(bytes(8 * LIMIT)), rsv=RSV1), size=1 << 60),
            MESSAGE,
            0,
            2 * CHUNK,
            end="1009",
        ),
        Attack(
            "pings, pongs unread",
            flood("plain", _unmasked(PING, bytes(125)), size=4 * MIB),
            MIB,
            TURN,
            2 * CHUNK,
        ),
        Attack("pongs", flood("plain", _unmasked(PONG), size=MIB // 2), MIB, TURN, 2 * CHUNK),
        Attack(
            "pings, `on_ping` is a coroutine that hangs",
            flood_until_unread("slow", _unmasked(PING), size=2 * KIB),
            4 * MIB,
            TURN,
            2 * CHUNK,
        ),
        Attack(
            "messages, `on_message` is a coroutine that hangs",
            flood_until_unread("slow", _unmasked(TEXT, bytes(1000)), size=32 * KIB),
            2 * MIB,
            TURN,
            2 * CHUNK,
        ),
        Attack(
            "messages, nobody calls `read_message`",
            flood_until_unread("unread", _unmasked(TEXT, bytes(1000)), size=32 * KIB),
            2 * MIB,
            0,
            2 * CHUNK,
        ),
        Attack(
            "close frames",
            flood("plain", _unmasked(CLOSE, close_payload(1000)), size=1 << 60),
            MIB,
            0,
            2 * CHUNK,
            end="1000",
        ),
        Attack(
            "a violation, and whatever then",
            flood("plain", _unmasked(TEXT, b"x", rsv=0x10), size=1 << 60),
            2 * MIB,
            0,
            2 * CHUNK,
            end="1002",
        ),
        Attack(
            "no answer to a close frame",
            once("closing", b"", 20),
            OPEN,
            connections=20,
            end="1006",
            settings={"close_timeout": 0.2},
        ),
        Attack(
            "messages instead of an answer to a close frame",
            flood("closing", _unmasked(TEXT, b"x"), size=1 << 60),
            MIB,
            TURN,
            2 * CHUNK,
            end="1006",
            settings={"close_timeout": 0.2},
        ),
        *parts.attacks(_unmasked),
    ]
}
