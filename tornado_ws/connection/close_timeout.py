"""How long a peer is waited for once we have sent a close frame."""

from __future__ import annotations

from collections.abc import Callable

from tornado.iostream import IOStream

from tornado_ws.transport.stream import unread

#: How often ``close_timeout`` is divided, to see whether the peer takes what waits.
_CHECKS = 4


class CloseTimeout:
    """Gives a peer up that has neither closed nor taken anything of what waits for it for so many seconds."""

    __slots__ = ("_callback", "_seconds", "_stream", "_taken", "_timer")

    def __init__(
        self, stream: IOStream, taken: Callable[[], int], seconds: float, callback: Callable[[], None]
    ) -> None:
        """Begin to wait: ``taken`` returns how many bytes the peer has taken; ``callback`` is called at the end."""
        self._stream = stream
        self._taken = taken
        self._seconds = seconds
        self._callback = callback
        self._timer: object = None
        self._check(None, 0.0)

    def stop(self) -> None:
        """Wait no more."""
        self._stream.io_loop.remove_timeout(self._timer)

    def _check(self, before: int | None, deadline: float) -> None:
        """The peer had taken ``before`` bytes the last time; ``deadline`` is in the loop's time."""
        # Another loop may be the current one where this one stands still.
        io_loop = self._stream.io_loop
        now = io_loop.asyncio_loop.time()  # type: ignore[attr-defined]
        taken = self._taken()
        if taken != before:
            deadline = now + self._seconds
        # Its close frame may lie unread, if the loop stood still. One that sends without end is not waited for.
        elif now >= deadline and (now >= deadline + self._seconds or unread(self._stream) is None):
            self._callback()
            return
        pause = self._seconds / _CHECKS
        if deadline > now:
            pause = min(pause, deadline - now)
        self._timer = io_loop.call_later(pause, self._check, taken, deadline)
