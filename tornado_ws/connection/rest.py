"""When the socket is not read: while enough messages wait for a busy application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

#: Seconds that a rest takes at most: so late may a ping be answered, and an end be seen.
MOST_SECONDS = 0.01


class Transport(Protocol):
    """What is read, or not."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Rest:
    """Times in which the socket is not read, each until one message is left or `MOST_SECONDS` have passed.

    Otherwise each message that comes would cost a read, while the application goes through those before it. So one read
    brings many.
    """

    __slots__ = ("_may_read", "_timer", "_transport")

    def __init__(self, transport: Transport, may_read: Callable[[], bool]) -> None:
        """``may_read`` tells, when the time has passed, whether nothing else is against reading."""
        self._transport = transport
        self._may_read = may_read
        self._timer: asyncio.TimerHandle | None = None

    def goes_on(self, waiting: int) -> bool:
        """Whether there is one, and goes on while so many messages wait."""
        return self._timer is not None and waiting > 1

    def begin(self) -> None:
        """Begin one, or go on with it."""
        self._transport.pause_reading()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MOST_SECONDS, self.end)

    def end(self) -> None:
        """Read again, unless something else is against it."""
        self.stop()
        if self._may_read():
            self._transport.resume_reading()

    def stop(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
