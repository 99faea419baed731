"""The end of a connection that is open for long, or on which nothing happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tornado_ws.close_codes import GOING_AWAY
from tornado_ws.connection.deadlines import Deadline, a_little_less
from tornado_ws.options import Options

if TYPE_CHECKING:
    from tornado_ws.observing.counters import Counters

#: How often ``idle_timeout`` is divided, to see whether there was a message.
_CHECKS = 4


class Ended(Protocol):
    """A connection that ends by itself."""

    @property
    def counters(self) -> Counters:
        """What went over it so far."""

    def is_closing(self) -> bool:
        """Return whether either side has begun to close."""

    def close_when_handled(self, code: int | None, reason: str | None) -> None:
        """Close when all that has been received is handled."""


class Lifetime(Deadline[Ended]):
    """When one connection is to end, by ``max_lifetime`` and ``idle_timeout``."""

    __slots__ = ("_end", "_idle_since", "_idle_timeout", "_messages")

    def __init__(self, connection: Ended, options: Options, now: float) -> None:
        """One of the two options is not None; ``now`` is in the loop's time."""
        super().__init__(connection, now)
        # Connections that came together are not to come back together.
        self._end = float("inf") if options.max_lifetime is None else now + a_little_less(options.max_lifetime)
        self._idle_timeout = options.idle_timeout
        self._idle_since = now
        self._messages = 0
        self._set_due(now)

    def _set_due(self, now: float) -> None:
        self.due = self._end
        if self._idle_timeout is not None:
            self.due = min(self.due, now + self._idle_timeout / _CHECKS)

    def on_due(self, now: float) -> bool:
        """Close the connection if it is time; return whether it is to be looked at again."""
        connection = self._connection
        if connection is None or connection.is_closing():
            return False
        if now >= self._end:
            connection.close_when_handled(GOING_AWAY, "open for long enough")
            return False
        if self._idle_timeout is not None:
            counters = connection.counters
            # One that goes in parts has bytes before it counts.
            messages = counters.messages_in + counters.messages_out
            messages += counters.message_bytes_in + counters.message_bytes_out
            if messages != self._messages:
                self._messages, self._idle_since = messages, now
            elif now >= self._idle_since + self._idle_timeout:
                connection.close_when_handled(GOING_AWAY, "idle")
                return False
        self._set_due(now)
        return True
