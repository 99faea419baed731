"""What clients send to a server that limits what they may send in a second (docs/flow-control.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.hostile.attacks import CHUNK, KIB, LIMIT, MIB, Attack, flood, flood_until_unread
from tests.wire import BINARY, CONTINUATION, PING, TEXT

#: What may be sent at once. There is no more before the attack is over.
_MESSAGES = 100
_BYTES = 16 * KIB
_OF_MESSAGES = {"websocket_message_rate_limit": 0.001, "websocket_message_rate_burst": _MESSAGES}
_OF_BYTES = {"websocket_byte_rate_limit": 1, "websocket_byte_rate_burst": _BYTES}
#: A connection that is not read finds out by its pings that the peer has vanished.
_PAUSES = {"websocket_ping_interval": 0.2}
_CLOSES = {"websocket_rate_limit_policy": "close"}
#: Bytes that are read at once: as many as one read has, which the budget may be overdrawn by.
_READ = 2 * CHUNK


class _Flood(NamedTuple):
    name: str
    #: What is sent once, and over and over.
    before: bytes
    data: bytes
    settings: dict[str, Any]
    most_callbacks: int
    most_size: int | None


def _floods(frame: Callable[..., bytes]) -> list[_Flood]:
    begun = frame(BINARY, fin=False)
    large = frame(BINARY, length=LIMIT)
    return [
        _Flood("messages", b"", frame(TEXT, b"x"), _OF_MESSAGES, _MESSAGES, None),
        _Flood("pings", b"", frame(PING, bytes(125)), _OF_MESSAGES, _MESSAGES, None),
        _Flood("empty fragments", begun, frame(CONTINUATION, fin=False) * 16, _OF_BYTES, 0, _BYTES + _READ),
        _Flood("a message of 10 MiB", large, bytes(1000), _OF_BYTES, 0, _BYTES + _READ),
    ]


def attacks(frame: Callable[..., bytes]) -> list[Attack]:
    """Return those of a client whose frames ``frame`` makes."""
    floods = _floods(frame)
    paused = [
        Attack(
            f"{name}, a rate limit pauses",
            flood_until_unread("plain", data, before=before, size=1),
            2 * MIB,
            most_callbacks,
            4 * CHUNK,
            most_callbacks,
            most_size,
            settings={**settings, **_PAUSES},
        )
        for name, before, data, settings, most_callbacks, most_size in floods
    ]
    closed = [
        Attack(
            f"{name}, a rate limit closes",
            flood("plain", data, before=before, size=1 << 60),
            2 * MIB,
            most_callbacks,
            4 * CHUNK,
            most_callbacks,
            end="1008",
            settings={**settings, **_CLOSES},
        )
        for name, before, data, settings, most_callbacks, _ in floods
    ]
    return paused + closed
