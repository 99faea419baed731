"""What peers send to who reads messages in parts (docs/streams.md), and the ways to read them: of both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from tests.hostile.attacks import (
    CHUNK,
    EMPTY_BLOCK,
    ENDLESS_LENGTH,
    FINAL_BLOCK,
    KIB,
    LIMIT,
    MESSAGE,
    MIB,
    Attack,
    Attackers,
    Run,
    flood,
    flood_until_unread,
    payload,
    sent,
)
from tests.hostile.measure import Report
from tests.hostile.meter import Attacked
from tests.wire import BINARY, CONTINUATION, RSV1, TEXT
from tornado_ws.connection.message_stream import MessageStream


async def _read(attacked: Attacked, stream: MessageStream) -> None:
    async for _ in stream:
        attacked.callbacks += 1


async def _read_slowly(attacked: Attacked, stream: MessageStream) -> None:
    async for _ in stream:
        attacked.callbacks += 1
        await asyncio.sleep(0.001)


async def _read_as_a_whole(attacked: Attacked, stream: MessageStream) -> None:
    await stream.read_all()
    attacked.callbacks += 1


async def _stay(attacked: Attacked, stream: MessageStream) -> None:
    attacked.callbacks += 1
    await attacked.is_over.wait()


async def _leave(attacked: Attacked, stream: MessageStream) -> None:
    attacked.callbacks += 1


#: By the kind of a connection: what is done with each message.
READERS: Mapping[str, Callable[[Attacked, MessageStream], Awaitable[None]]] = {
    "parts": _read,
    "parts-slowly": _read_slowly,
    "parts-as-a-whole": _read_as_a_whole,
    "parts-unread": _stay,
    "parts-left": _leave,
    "parts-compressed": _read,
    "parts-compressed-unread": _stay,
}
#: Parts between two answers: two wait, one is read, and each of them may fall on either side.
_PARTS = 8
_PART = 64 * KIB
#: Connections at a time of which nothing is read.
_UNREAD = 20
#: What `MessageStream.read_all` has put together, and what of it is put together to be returned.
_WHOLE = 2 * LIMIT + 2 * MIB

#: Makes a frame as that side does.
Frame: TypeAlias = Callable[..., bytes]


def _until_read(kind: str, data: bytes, calls: int) -> Run:
    """Send ``data`` once, until the application was called so often: a turn of the loop has a part or two."""

    async def run(attackers: Attackers) -> Report:
        await sent(await attackers.open(kind), data)
        return await attackers.attacked.until(lambda report: report.callbacks >= calls)

    return run


def attacks(frame: Frame) -> list[Attack]:
    """Return those of a peer whose frames ``frame`` makes."""
    begun = frame(BINARY, fin=False)
    begun_compressed = frame(BINARY, fin=False, rsv=RSV1)
    endless = frame(BINARY, length=ENDLESS_LENGTH)
    # A character of three bytes, cut inside in each frame.
    cut = b"".join(
        frame(CONTINUATION, piece, fin=False) for piece in (b"\x82\xac\xe2\x82", b"\xac\xe2", b"\x82\xac\xe2")
    )
    in_two = frame(BINARY, payload(b"x") + b"\x00\x00\xff\xff", fin=False, rsv=RSV1)
    in_two += frame(CONTINUATION, payload(bytes(_PART - KIB)))
    bomb = frame(BINARY, payload(bytes(4 * LIMIT)), rsv=RSV1)
    return [
        Attack(
            "a message in parts that does not end, none is read",
            flood_until_unread("parts-unread", bytes(1000), before=endless, size=1, connections=_UNREAD),
            512 * KIB,
            _UNREAD,
            4 * CHUNK * _UNREAD,
            connections=_UNREAD,
        ),
        Attack(
            "the same in fragments of 100 bytes",
            flood_until_unread("parts-unread", frame(CONTINUATION, bytes(100), fin=False), before=begun, size=1),
            MIB,
            1,
            4 * CHUNK,
        ),
        Attack(
            "a message in parts that does not end, they are read slowly",
            flood("parts-slowly", bytes(1000), before=endless, size=16 * MIB),
            MIB,
            _PARTS,
            4 * CHUNK,
        ),
        Attack(
            "a message in parts that does not end and was left",
            flood("parts-left", bytes(1000), before=endless, size=64 * MIB),
            MIB,
            1,
            4 * CHUNK,
        ),
        Attack(
            "parts of one byte",
            _until_read("parts", begun + frame(CONTINUATION, b"x", fin=False) * 2000, 2000),
            MIB,
            _PARTS,
            2 * CHUNK,
        ),
        Attack(
            "parts of two bytes, `read_all`",
            _until_read(
                "parts-as-a-whole", begun + frame(CONTINUATION, b"xy", fin=False) * 8000 + frame(CONTINUATION), 1
            ),
            MIB,
            1,
            2 * CHUNK,
        ),
        Attack(
            "a message that does not end, `read_all`",
            flood("parts-as-a-whole", bytes(1000), before=endless, size=1 << 60),
            MESSAGE,
            0,
            4 * CHUNK,
            end="1009",
        ),
        Attack(
            "messages of just the limit, `read_all`",
            flood("parts-as-a-whole", frame(BINARY, bytes(LIMIT)), size=2 * LIMIT, times=2),
            _WHOLE,
            1,
            4 * CHUNK,
        ),
        Attack(
            "parts without a byte",
            flood("parts", frame(CONTINUATION, fin=False), before=begun, size=2 * MIB),
            MIB,
            0,
            2 * CHUNK,
        ),
        Attack(
            "characters cut in each frame",
            _until_read("parts", frame(TEXT, b"\xe2", fin=False) + cut * 600, 1800),
            MIB,
            _PARTS,
            2 * CHUNK,
        ),
        Attack("bombs in parts", flood("parts-compressed", bomb, size=4 * LIMIT, times=1), MIB, _PARTS, _PARTS * _PART),
        Attack(
            "bombs in parts, none is read",
            flood_until_unread("parts-compressed-unread", bomb, size=1),
            MIB,
            1,
            4 * CHUNK,
        ),
        Attack(
            "empty blocks of deflate, in parts",
            flood(
                "parts-compressed",
                frame(CONTINUATION, EMPTY_BLOCK, fin=False),
                before=begun_compressed,
                size=2 * MIB,
            ),
            MIB + MIB // 2,
            0,
            2 * CHUNK,
        ),
        Attack(
            "final blocks of deflate, in parts",
            flood(
                "parts-compressed", frame(CONTINUATION, FINAL_BLOCK, fin=False), before=begun_compressed, size=2 * MIB
            ),
            MIB + MIB // 2,
            0,
            2 * CHUNK,
        ),
        Attack(
            "messages of one part, the first one is not done",
            flood_until_unread("parts-unread", frame(TEXT, bytes(1000)), size=1),
            2 * MIB,
            1,
            2 * CHUNK,
        ),
        Attack(
            "messages of two parts, the first one is not done",
            flood_until_unread("parts-compressed-unread", in_two, size=1, times=2),
            2 * MIB,
            1,
            2 * MIB,
        ),
    ]
