"""Reading from a peer as fast as its rate limit allows, and no faster."""

from __future__ import annotations

from typing import Protocol

from tornado_ws.connection.rate_limit import RateLimit
from tornado_ws.engine import FrameReader
from tornado_ws.engine.contract import CLOSE, LAST, MESSAGES_PER_TURN, PART, VIOLATION, Outcome


class Source(Protocol):
    """What reads, and delivers what it may."""

    reader: FrameReader

    def read(self, most: int) -> Outcome | None:
        """Deliver ``most`` messages; return what is next."""

    def read_event(self) -> Outcome | None:
        """Return what is next; deliver nothing."""

    def go_on(self) -> None:
        """A pause is over."""


def read_within(limit: RateLimit, source: Source, is_closing: bool) -> Outcome | None:
    """As ``source.read``, as far as the peer may go; in a pause there is nothing."""
    allowed = limit.allowance(source.reader.wire_bytes, MESSAGES_PER_TURN)
    if is_closing or (limit.held is not None and allowed):
        held, limit.held = limit.held, None
        if held is not None:
            limit.take(1)
            return held
    if is_closing:
        # The peer's close frame is behind what it has sent, and there is a timeout for that.
        limit.stop()
        return source.read(MESSAGES_PER_TURN)
    if limit.held is not None:
        limit.pause(source.go_on)
        return None
    before = source.reader.messages
    outcome = source.read(allowed) if allowed else source.read_event()
    if outcome is None:
        limit.take(source.reader.messages - before)
        return _stop_if_overdrawn(limit, source)
    if allowed or outcome[0] in (CLOSE, VIOLATION):
        # A message in parts counts with its last one.
        is_one = 0 <= outcome[0] < PART or outcome[0] >= LAST
        limit.take(source.reader.messages - before + is_one)
        return outcome
    if limit.closes:
        return VIOLATION, limit.violation(), 0
    limit.held = outcome
    limit.pause(source.go_on)
    return None


def _stop_if_overdrawn(limit: RateLimit, source: Source) -> Outcome | None:
    """What has come as a whole is delivered: see whether there were too many bytes."""
    if not limit.is_overdrawn:
        limit.stop()
    elif limit.closes:
        return VIOLATION, limit.violation(), 0
    else:
        limit.pause(source.go_on)
    return None
