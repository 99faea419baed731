"""The task of one connection: `asyncio.current_task` is the same one in all callbacks of the application.

It is the task of the request, as in Tornado. From the opening handshake until ``on_close`` has returned it awaits a
`ConnectionTask`, which it takes for a Future. Callbacks are called between its steps, by whoever has read their
message. A coroutine that a callback returns takes its first step there too. One that has to wait then goes on in the
task.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol, cast

from tornado_ws.engine.contract import IN_STEP, NO_STEP
from tornado_ws.engine.handling import Handling, finish, pass_on
from tornado_ws.engine.tasks import call_outside, step_coroutine


class Channel(Protocol):
    """The channel whose callbacks are called in the task."""

    task: asyncio.Task[Any] | None
    #: `IN_STEP` while the task itself takes a step.
    step: int


class Owner(Protocol):
    """The connection that a `ConnectionTask` is a part of."""

    def _begin(self) -> None:
        """``open`` has returned, and the task waits: begin to deliver messages."""

    def _cancelled(self) -> None:
        """The task was cancelled: close the socket at once, and soon end."""

    def _cancel_swallowed(self) -> None:
        """The task was cancelled while a coroutine was under way in it, which has returned all the same."""


class ConnectionTask:
    """What the task of one connection awaits, and what goes on with coroutines in it."""

    __slots__ = (
        "_asyncio_future_blocking",
        "_channel",
        "_context",
        "_handling",
        "_is_aborted",
        "_is_awaited",
        "_is_cancelled",
        "_is_over",
        "_owner",
        "_thrown",
        "_wakeup",
    )

    def __init__(self, owner: Owner, channel: Channel) -> None:
        self._owner = owner
        self._channel = channel
        self._asyncio_future_blocking = False
        #: What the task has asked to be called with when this is done: it then takes a step.
        self._wakeup: Callable[[Any], None] | None = None
        #: The task's own, in which it takes its steps. Callbacks have another: a loop that one of them runs inside the
        #: connection's would find this one entered, and the task would not be woken.
        self._context: contextvars.Context | None = None
        self._handling: Handling | None = None
        self._is_awaited = self._is_aborted = self._is_over = False
        #: Whether the coroutine that is under way was told that the task is cancelled.
        self._is_cancelled = False
        #: What the task is to raise where it waits.
        self._thrown: BaseException | None = None
        channel.task = asyncio.current_task()

    # What callbacks return

    @property
    def is_free(self) -> bool:
        """Whether a coroutine may go on in the task."""
        return self._is_awaited and self._handling is None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Handling | None:
        """Let ``coroutine`` take its first step; return None where it is done, and raise what it does."""
        suspended = step_coroutine(coroutine)
        return None if suspended is None else self.go_on(*suspended)

    def go_on(self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, yielded: Any) -> Handling:
        """Go on with a coroutine that waits for ``yielded``."""
        handling = Handling(coroutine, context, yielded)
        if not self.is_free:
            # A loop that a callback runs, inside the connection's, has brought another one.
            handling.other_task = asyncio.ensure_future(finish(handling))
            return handling
        self._handling = handling
        task = self._channel.task
        if self._wakeup is not None and task is not None:
            if asyncio.current_task() is not task:
                self._wake()
            elif not self._wake_now(task, handling):
                self._leave()
                self._handling = None
                handling.other_task = asyncio.ensure_future(finish(handling))
        return handling

    def _wake_now(self, task: asyncio.Task[Any], handling: Handling) -> bool:
        """Let the task take a step, with ``handling``; return False where it has ended before that."""
        wakeup, self._wakeup = self._wakeup, None
        assert wakeup is not None
        try:
            call_outside(task, wakeup, self)
        except Exception as error:
            if task.done():
                return self._handling is not handling
            # asyncio had no memory to step the task, or for what wakes it then. Nobody else would go on with it.
            self._wakeup = self._wakeup or wakeup
            self._thrown = error.with_traceback(None)
            self._wake()
            return True
        return not handling.is_new or not task.done()

    def run_to_end(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[None] | None:
        """As `run`; returns a Future that ends as the coroutine does."""
        future: asyncio.Future[None] = self.get_loop().create_future()
        try:
            handling = self.run(coroutine)
            if handling is None:
                return None
            handling.add_done_callback(functools.partial(pass_on, future))
        except Exception as error:
            future.set_exception(error)
        return future

    def is_task(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether ``task`` is the connection's."""
        return task is not None and task is self._channel.task

    def end(self) -> None:
        """``on_close`` has returned: the task ends."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        """Let the task take a step in the next turn of the loop."""
        if self._wakeup is not None:
            self.get_loop().call_soon(self._wakeup, self, context=self._context)
            self._wakeup = None

    # What the task awaits

    def __await__(self) -> Generator[Any, None, None]:
        # It has all that an await asks of a generator, and a generator would take memory while the connection is idle.
        return cast("Generator[Any, None, None]", self)

    def __iter__(self) -> ConnectionTask:
        return self

    def __next__(self) -> Any:
        """Go on with the coroutine that is under way, and return what it waits for; without one, wait for the next."""
        return self._step(None)

    def send(self, value: None) -> Any:
        return self._step(None)

    def throw(self, kind: Any, error: Any = None, traceback: Any = None) -> Any:
        error = error if error is not None else kind
        if self._handling is None:
            if not isinstance(error, MemoryError):
                if self._is_aborted or not isinstance(error, asyncio.CancelledError):
                    self._leave()
                    raise error
                self._is_aborted = True
                self._owner._cancelled()
            # What asyncio had no memory for is of no coroutine: the task waits again.
            error = None
        elif isinstance(error, asyncio.CancelledError):
            self._is_cancelled = True
        return self._step(error)

    def _step(self, error: BaseException | None) -> Any:
        self._channel.step = IN_STEP
        try:
            if not self._is_awaited:
                self._is_awaited = True
                self._owner._begin()
            while self._handling is not None:
                handling = self._handling
                if handling.step(error):
                    return handling.yielded
                self._handling = error = None
                if self._is_cancelled:
                    self._is_cancelled = False
                    if handling._error is None:
                        self._owner._cancel_swallowed()
                handling.end()
            if not self._is_over:
                self._asyncio_future_blocking = True
                return self
        except BaseException:
            self._leave()
            raise
        finally:
            self._channel.step = NO_STEP
        self._leave()
        raise StopIteration

    def _leave(self) -> None:
        self._is_awaited = False
        self._channel.task = None

    # What a task asks of a Future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        task = self._channel.task
        return task.get_loop() if task is not None else asyncio.get_running_loop()

    def add_done_callback(self, callback: Callable[[Any], None], *, context: contextvars.Context) -> None:
        self._wakeup = callback
        self._context = context

    def result(self) -> None:
        if self._thrown is not None:
            thrown, self._thrown = self._thrown, None
            raise thrown

    def cancel(self, msg: Any = None) -> bool:
        if self._wakeup is None:
            return False
        if self.is_task(asyncio.current_task(self.get_loop())):
            # A callback cancels its own task, which is as good as in a step: it is for the task to keep that in mind.
            self._wake()
            return False
        cancelled = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self._wake()
        self._thrown = cancelled
        return True
