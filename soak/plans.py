"""What is to happen on each connection: which messages, how they travel, and how it ends."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

#: Who talks to whom: a client made by hand to our server, our client to a server made by hand, ours to ours.
RAW_CLIENT, RAW_SERVER, OURS = "raw client", "raw server", "ours"

#: Ends of a connection by who is to be tested. Those behind the first two are for any peer made by hand.
CLEAN = ("close by client", "close by server", "close by client at once", "close by server at once")
BY_HAND = ("half-close", "close and half-close", "reset", "cut in a frame", "violation", "no answer", "no pong")
ENDS = {
    RAW_CLIENT: (*CLEAN, *BY_HAND, "refused", "bad request", "cut in the handshake"),
    RAW_SERVER: (*CLEAN, *BY_HAND, "refused", "bad answer", "cut in the handshake", "reset in the handshake"),
    OURS: (*CLEAN, "aborted", "refused"),
}
#: Those before there is a WebSocket connection.
IN_HANDSHAKE = ("refused", "bad request", "bad answer", "cut in the handshake", "reset in the handshake")
#: Those behind which not all that was sent has to arrive: at the server, at the client.
LOSES_AT_SERVER = ("reset", "close by server at once", "aborted")
LOSES_AT_CLIENT = (
    "reset",
    "close by client at once",
    "half-close",
    "close and half-close",
    "cut in a frame",
    "violation",
    "aborted",
)

#: Phases: many connections at a time with many messages, and connections with few that end and end.
LOAD, CONNECTS = "load", "connects"

LARGEST = 300 * 1024
#: Bytes that the kernel takes for a peer that does not read.
_KERNEL_TAKES = 32 * 1024

TO_SERVER, TO_CLIENT = 0, 1


class Plan(NamedTuple):
    number: int
    pair: str
    end: str
    code: int | None
    reason: str
    tls: bool
    deflate: bool
    takeover: bool
    #: Whether messages of ours are compressed by threads.
    offload: bool
    #: Whether the server sends without waiting for the message that has the same number.
    streams: bool
    #: Whether senders of ours await each Future, and callbacks of ours are coroutines.
    awaits: bool
    #: Whether the peer made by hand reads slowly.
    slow: bool
    #: Whether a client of ours has a callback for its messages.
    callback: bool
    #: Sizes of the messages to the server and to the client, as many of the one as of the other.
    sizes: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def opens(self) -> bool:
        return self.end not in IN_HANDSHAKE

    @property
    def last(self) -> int:
        """How many messages of the server are sent."""
        return self.messages // 2 if self.end == "close by server at once" else self.messages

    @property
    def messages(self) -> int:
        return len(self.sizes[TO_SERVER])

    @property
    def seen_code(self) -> int | None:
        """The ``close_code`` that an end of ours has to see."""
        if self.end == "violation":
            return self.violation_code
        if self.end in ("no answer", "no pong"):
            return 1006
        if self.end in ("half-close", "reset", "cut in a frame", "aborted"):
            return None
        return self.code

    def tells_reason(self, side: str) -> bool:
        """Return whether an end of ours has to see the reason. What is ours answers with the code alone."""
        is_told = self.pair != OURS or not self.end.startswith(f"close by {side}")
        return is_told and self.seen_code == self.code is not None

    @property
    def violation_code(self) -> int:
        return VIOLATIONS[self.number % len(VIOLATIONS)][1]

    @property
    def compression(self) -> dict[str, Any] | None:
        """The options of permessage-deflate of a side of ours."""
        if not self.deflate:
            return None
        alone = not self.takeover
        options: dict[str, Any] = {"server_no_context_takeover": alone, "client_no_context_takeover": alone}
        return {**options, "offload_size": 4096} if self.offload else options

    def least(self, direction: int) -> int:
        """Return how many of the messages have to arrive."""
        if direction == TO_SERVER:
            return 0 if self.end in LOSES_AT_SERVER else self.messages
        if self.end not in LOSES_AT_CLIENT:
            return self.last
        # What was written before the close frame was read is sent before it is answered.
        answered = self.end in ("close by client at once", "close and half-close", "violation")
        is_simple = self.pair == RAW_CLIENT and not self.awaits and not self.slow and not self.offload
        return self.messages if answered and is_simple and sum(self.sizes[TO_CLIENT]) < _KERNEL_TAKES else 0

    def message(self, direction: int, number: int) -> str | bytes:
        size = self.sizes[direction][number]
        head = f"{number}.{direction}.{self.number}:"
        at = (self.number * 7919 + number * 104729 + direction * 31) % (len(_FILLING) - LARGEST)
        if (self.number + number + direction) % 2:
            return (head + _FILLING[at : at + size])[: size * 9 // 10]
        return (head.encode() + _FILLING_BYTES[at : at + size])[:size]


def _fill() -> str:
    """Return text of which some repeats itself and some does not, with characters of 1 to 4 bytes."""
    choose = random.Random("filling")
    words = [f"{choose.getrandbits(32):x}" for _ in range(200)] + ["é", "€", "𝄞", "\n", "{}"]
    parts: list[str] = []
    length = 0
    while length < 4 * LARGEST:
        part = choose.choice(words) if choose.random() < 0.7 else f"{choose.getrandbits(64):x} "
        parts.append(part)
        length += len(part)
    return "".join(parts)


_FILLING = _fill()
_FILLING_BYTES = random.Random("bytes").randbytes(LARGEST) + _FILLING.encode()[: len(_FILLING) - LARGEST]

#: Wrong frames, as the arguments of a peer's ``frame`` after all messages, and the code that answers them.
VIOLATIONS: tuple[tuple[dict[str, Any], int], ...] = (
    ({"opcode": 0x3}, 1002),
    ({"opcode": 0x2, "rsv": 0x20}, 1002),
    ({"opcode": 0x9, "fin": False}, 1002),
    ({"opcode": 0x0, "payload": b"continues nothing"}, 1002),
    ({"opcode": 0x8, "payload": b"\x03"}, 1002),
    ({"opcode": 0x8, "payload": b"\x03\xed"}, 1002),
    ({"opcode": 0x1, "payload": b"\xc0\xaf"}, 1007),
    ({"opcode": 0x2, "length": 11 << 20}, 1009),
)

_BOUNDARIES = (0, 1, 2, 125, 126, 127, 65535, 65536, LARGEST)


def _size(choose: random.Random, phase: str) -> int:
    kind = choose.random()
    if phase == CONNECTS or kind < 0.6:
        return choose.randrange(200)
    if kind < 0.75:
        return choose.choices(_BOUNDARIES, weights=(4, 4, 4, 4, 4, 4, 1, 1, 1))[0]
    if kind < 0.96:
        return choose.randrange(8192)
    return choose.randrange(LARGEST)


def plan_of(seed: str, phase: str, number: int) -> Plan:
    choose = random.Random(f"{seed}/{phase}/{number}")
    pair = choose.choices((RAW_CLIENT, RAW_SERVER, OURS), weights=(4, 2, 4) if phase == LOAD else (4, 4, 1))[0]
    ends = ENDS[pair]
    if phase == LOAD:
        # A short timeout of ours, and a handshake that fails, have their place where connections end and end.
        ends = tuple(end for end in ends if end not in IN_HANDSHAKE and end not in ("no answer", "no pong"))
    end = choose.choice(ends)
    count = choose.randrange(9) if phase == LOAD else choose.randrange(3)
    if end == "no pong" or end in IN_HANDSHAKE:
        count = 0
    elif end in ("half-close", "reset", "aborted"):
        # A server does not open what is gone already and has sent nothing.
        count = max(1, count)
    sizes = tuple(tuple(_size(choose, phase) for _ in range(count)) for _ in range(2))
    code = choose.choice((None, 1000, 1001, 1011, 3000, 4000 + number % 1000))
    return Plan(
        number=number,
        pair=pair,
        end=end,
        code=code,
        reason="" if code is None else f"end of {number} \N{EM DASH} 😀",
        tls=choose.random() < 0.2,
        deflate=choose.random() < 0.4,
        takeover=choose.random() < 0.7,
        offload=choose.random() < 0.2,
        streams=choose.random() < 0.3 and end != "close by server at once",
        awaits=choose.random() < 0.3,
        slow=choose.random() < 0.1,
        callback=choose.random() < 0.5,
        sizes=(sizes[0], sizes[1]),
    )
