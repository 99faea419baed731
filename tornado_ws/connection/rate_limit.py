"""How many messages, and how many bytes, a peer may send in a second: two token buckets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tornado_ws.close_codes import POLICY_VIOLATION
from tornado_ws.engine.contract import Event
from tornado_ws.errors import ProtocolError
from tornado_ws.options import Options

#: The shortest pause, in seconds: a peer that is above a high limit is read in portions, not message by message.
_SHORTEST = 0.01


class TokenBucket:
    """A budget that grows by ``rate`` a second up to ``burst``, which it has at first. It may be overdrawn."""

    __slots__ = ("_at", "_burst", "_rate", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._at = now
        self.tokens = burst

    def refill(self, now: float) -> None:
        self.tokens = min(self._burst, self.tokens + (now - self._at) * self._rate)
        self._at = now

    def seconds_until(self, tokens: float) -> float:
        """Return in how many seconds there will be ``tokens``, and some more."""
        return max((tokens - self.tokens) / self._rate, min(_SHORTEST, self._burst / self._rate))


class RateLimit:
    """What one peer may send, by ``message_rate_limit`` and ``byte_rate_limit``. One of them is not None.

    Bytes are those of frames as they come. They are counted when they are read, so the last read may overdraw the
    budget, which the time after it has to make good. Messages are parsed to the first one that is too many.
    """

    __slots__ = ("_bytes", "_loop", "_messages", "_options", "_timer", "_wire_bytes", "closes", "held")

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        rate, burst = options.message_rate_limit, options.message_rate_burst
        self._messages = None if rate is None else TokenBucket(rate, max(1, rate) if burst is None else burst, now)
        rate, burst = options.byte_rate_limit, options.byte_rate_burst
        self._bytes = None if rate is None else TokenBucket(rate, rate if burst is None else burst, now)
        self._options = options
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        #: How many bytes had come when they were counted last.
        self._wire_bytes = 0
        #: The message, or the control frame, that was one too many; parsed, since a close frame in its place is none.
        self.held: Event | None = None
        #: Whether the connection is closed where a limit is passed. Otherwise it is not read for a while.
        self.closes = options.rate_limit_policy == "close"

    def allowance(self, wire_bytes: int, most: int) -> int:
        """Return how many messages may be parsed now, ``most`` at most; ``wire_bytes`` is how many bytes have come."""
        now = self._loop.time()
        if self._bytes is not None:
            self._bytes.refill(now)
            self._bytes.tokens -= wire_bytes - self._wire_bytes
            self._wire_bytes = wire_bytes
        if self._messages is None:
            return most
        self._messages.refill(now)
        return min(most, int(self._messages.tokens))

    def take(self, messages: int) -> None:
        """Note that so many messages, or control frames, were parsed."""
        if self._messages is not None:
            self._messages.tokens -= messages

    @property
    def is_overdrawn(self) -> bool:
        """Whether more bytes have come than may."""
        return self._bytes is not None and self._bytes.tokens < 0

    def violation(self) -> ProtocolError:
        """Return the error of a peer that has passed a limit."""
        if self.is_overdrawn:
            return ProtocolError(POLICY_VIOLATION, f"more than {self._options.byte_rate_limit:g} bytes a second")
        return ProtocolError(POLICY_VIOLATION, f"more than {self._options.message_rate_limit:g} messages a second")

    # Pausing

    @property
    def pauses(self) -> bool:
        """Whether there is a pause."""
        return self._timer is not None

    def pause(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` when there is a budget again, unless there is a pause already."""
        if self._timer is None:
            seconds = 0.0
            if self.is_overdrawn and self._bytes is not None:
                seconds = self._bytes.seconds_until(0)
            if self._messages is not None and self._messages.tokens < 1:
                seconds = max(seconds, self._messages.seconds_until(1))
            self._timer = self._loop.call_later(seconds, self._end_pause, go_on)

    def _end_pause(self, go_on: Callable[[], None]) -> None:
        self._timer = None
        go_on()

    def stop(self) -> None:
        """End a pause: there is a budget again, or the limit does not hold any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
