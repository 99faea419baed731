"""Messages on their way to ``read_message()``, and the turn that the application has with each of them."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from tornado_ws.client.futures import ReclaimingFuture, waits_for
from tornado_ws.connection.interfaces import Turn

#: Seconds that an application has with a message before the end of the connection that waits behind it is handled.
_LAST_TURN = 0.05
#: The same while it leaves messages unread.
_UNREAD_TURN = 1.0


class MessageQueue(Turn):
    """The reading end of a client connection.

    The application has its turn with a message until it asks for the next one (`is_open`). A close frame or a
    violation that arrived behind the message waits for that, so that the message can still be answered. A message that
    nobody waits for is a turn that has not begun: ``put`` returns what can be awaited, and the connection delivers no
    more until then.
    """

    def __init__(self) -> None:
        #: The one that reads.
        self.loop = asyncio.get_event_loop()
        self._messages: deque[Any] = deque()
        self._waiters: deque[_Reading] = deque()
        self._turn_callbacks: list[Callable[[MessageQueue], Any]] = []
        self._last_turn: asyncio.TimerHandle | None = None
        self._hurried = False
        #: Whether the application had its time, and the connection is not to wait for it any more.
        self._is_late = False
        self._ended = False
        #: Whether the application has its turn.
        self.is_open = False

    def qsize(self) -> int:
        """Return the number of messages that have not been read."""
        return len(self._messages)

    def put(self, message: Any) -> MessageQueue | None:
        """Take a message; None ends the queue for good, and whatever waits on it."""
        if self._ended:
            return None
        if message is None:
            self._ended = True
            while self._waiters:
                _resolve(self._waiters.popleft(), None)
            return None
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                # Somebody who waits for the next one has had the turn already.
                self.is_open = not self._waiters
                waiter.hand_over(message)
                return None
        self._messages.append(message)
        return None if self._is_late else self

    def get(self) -> asyncio.Future[Any]:
        """Return a Future of the next message, None when there will be no more."""
        if not self._messages:
            self.end_turn()
        if not self._messages and not self._ended:
            waiter = _Reading(loop=self.loop)
            waiter.queue = self
            waiter.wakeup = None
            self._waiters.append(waiter)
            return waiter
        future: asyncio.Future[Any] = self.loop.create_future()
        if self._messages:
            future.set_result(self._messages.popleft())
            if self._hurried:
                self.hurry()
        else:
            future.set_result(None)
        return future

    def put_back(self, message: Any) -> None:
        """Take ``message`` again, which is the oldest that nobody has."""
        while self._waiters:
            if _resolve(self._waiters.popleft(), message):
                return
        self._messages.appendleft(message)

    def add_done_callback(self, callback: Callable[[MessageQueue], Any]) -> None:
        """Call ``callback`` when the turn ends."""
        self._turn_callbacks.append(callback)

    def __await__(self) -> Generator[Any, None, None]:
        ended = self.loop.create_future()
        self.add_done_callback(lambda queue: _resolve(ended, None))
        yield from ended

    def hurry(self) -> None:
        """The connection has an end to handle: let the turn end soon, or when messages stay unread for too long."""
        self._hurried = True
        self._stop_timer()
        timeout = _UNREAD_TURN if self._messages else _LAST_TURN
        self._last_turn = self.loop.call_later(timeout, self._on_late)

    def _on_late(self) -> None:
        self._is_late = True
        self.end_turn()

    def _stop_timer(self) -> None:
        if self._last_turn is not None:
            self._last_turn.cancel()
            self._last_turn = None

    def end_turn(self) -> None:
        """Let the connection deliver what comes next."""
        self.is_open = False
        if self._last_turn is not None:
            self._stop_timer()
            self._hurried = False
        if self._turn_callbacks:
            callbacks, self._turn_callbacks = self._turn_callbacks, []
            for callback in callbacks:
                callback(self)


class _Reading(ReclaimingFuture[Any]):
    """What `MessageQueue.get` returns while there is no message.

    A task that awaits it goes on as soon as the message is there: inside the call that brings it, as a callback would,
    and not a turn of the loop later. Everybody else is told in the next turn, as by any Future.
    """

    __slots__ = ("_context", "queue", "wakeup")

    queue: MessageQueue
    #: How the task wants to be woken, and in which context.
    wakeup: Callable[[Any], object] | None
    _context: contextvars.Context

    def hand_over(self, message: Any) -> None:
        """Set the result, which is not set yet."""
        wakeup = self.wakeup
        loop = self.queue.loop
        # One task cannot go on inside another, and none without its loop.
        if wakeup is None or asyncio.current_task(loop) is not None or not loop.is_running():
            self.set_result(message)
            return
        self.wakeup = None
        super().set_result(message)
        try:
            self._context.run(wakeup, self)
        except RuntimeError:
            if not waits_for(wakeup.__self__, self):  # type: ignore[attr-defined]
                raise
            # Its context is entered already: somebody up the stack shares it.
            loop.call_soon(wakeup, self, context=self._context)

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: contextvars.Context | None = None) -> None:
        if (
            context is not None
            and self.wakeup is None
            and isinstance(getattr(fn, "__self__", None), asyncio.Task)
            and not self.done()
        ):
            self.wakeup, self._context = fn, context
        else:
            super().add_done_callback(fn, context=context)

    def _wait_as_usual(self) -> None:
        """Have the task told as everybody else is."""
        if self.wakeup is not None:
            wakeup, self.wakeup = self.wakeup, None
            super().add_done_callback(wakeup, context=self._context)

    def set_result(self, result: Any, /) -> None:
        self._wait_as_usual()
        super().set_result(result)

    def set_exception(self, exception: type | BaseException, /) -> None:
        self._wait_as_usual()
        super().set_exception(exception)

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        self._wait_as_usual()
        return super().remove_done_callback(fn)

    def cancel(self, msg: Any = None) -> bool:
        self._wait_as_usual()
        return super().cancel(msg)

    def _reclaim(self, result: Any) -> None:
        if result is not None:
            self.queue.put_back(result)


def _resolve(future: asyncio.Future[Any], result: object) -> bool:
    if future.done():
        return False
    future.set_result(result)
    return True
