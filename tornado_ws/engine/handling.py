"""A coroutine of the application that has to wait, and what goes on with it, in pure Python."""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol

_NOT_BEGUN: Any = object()


class Handling:
    """A coroutine of the application in a context of its own: a Future of its end."""

    __slots__ = (
        "_blocks",
        "_callback",
        "_context",
        "_coroutine",
        "_error",
        "_has_ended",
        "is_new",
        "other_task",
        "yielded",
    )

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, yielded: Any = _NOT_BEGUN
    ) -> None:
        """``yielded`` is what its first step was left with, if it has begun."""
        self._coroutine = coroutine
        self._context = context
        self._callback: Callable[[Handling], object] | None = None
        self._error: BaseException | None = None
        self._has_ended = False
        #: What it waits for: a Future, or None for a turn of the loop.
        self.yielded = yielded
        #: A Future says by this that it was awaited, until a task sees it. None else can await it meanwhile.
        self._blocks = getattr(yielded, "_asyncio_future_blocking", False)
        if self._blocks:
            yielded._asyncio_future_blocking = False
        #: Whether the task has still to be told what the first step has yielded.
        self.is_new = yielded is not _NOT_BEGUN
        #: What goes on with it in the place of the connection's task. A loop has only weak references to its tasks.
        self.other_task: asyncio.Future[None] | None = None

    def add_done_callback(self, callback: Callable[[Handling], object]) -> None:
        """Call ``callback`` at the end of the coroutine, or soon if that was before. There can be one."""
        self._callback = callback
        # The task's first step may have thrown what failed in the task itself, a lack of memory.
        if self._has_ended:
            asyncio.get_running_loop().call_soon(callback, self)

    def result(self) -> None:
        """Raise what the coroutine has raised; but once, or it would keep the frames that keep this."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def step(self, error: BaseException | None) -> bool:
        """Take a step, in which ``error`` is thrown; return whether the coroutine goes on to wait, for ``yielded``."""
        is_new, self.is_new = self.is_new, False
        try:
            if error is not None:
                self.yielded = self._context.run(self._coroutine.throw, error)
            elif not is_new:
                self.yielded = self._context.run(self._coroutine.send, None)
            elif self._blocks:
                self.yielded._asyncio_future_blocking = True
        except StopIteration:
            return False
        except BaseException as raised:
            self._error = raised
            return False
        return True

    def end(self) -> None:
        """Tell who waits for it. Raises what is to end the loop."""
        self._has_ended = True
        interrupt = None if isinstance(self._error, Exception | asyncio.CancelledError) else self._error
        if self._callback is not None:
            self._callback(self)
        if interrupt is not None:
            raise interrupt


class Steps(Protocol):
    """A `Handling` of either engine."""

    yielded: Any

    def step(self, error: BaseException | None) -> bool: ...

    def end(self) -> None: ...

    def result(self) -> None: ...


@types.coroutine
def finish(handling: Steps) -> Generator[Any, None, None]:
    """Go on with ``handling`` in the task that awaits this."""
    error = None
    while handling.step(error):
        try:
            yield handling.yielded
            error = None
        except BaseException as thrown:
            error = thrown
    handling.end()


async def run_in(context: contextvars.Context, coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run ``coroutine`` in the task that awaits this, and in ``context``."""
    handling = Handling(coroutine, context)
    await finish(handling)
    handling.result()


def pass_on(future: asyncio.Future[None], handling: Steps) -> None:
    try:
        handling.result()
    except asyncio.CancelledError:
        future.cancel()
    except Exception as error:
        future.set_exception(error)
    except BaseException:
        # The task raises it.
        future.cancel()
    else:
        future.set_result(None)
