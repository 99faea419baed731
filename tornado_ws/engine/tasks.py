"""Steps of coroutines and of tasks, taken outside a turn of their own, in pure Python.

`asyncio.current_task` has to name the right task meanwhile. asyncio has functions for that, which its documentation
gives to those who write tasks ("Extending").
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import tasks
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

#: A coroutine, the context that it runs in, and what it waits for.
Suspended: TypeAlias = tuple[Coroutine[Any, Any, Any], contextvars.Context, Any]


def enter_task(task: asyncio.Task[Any]) -> asyncio.Task[Any] | None:
    """Make ``task`` the current one, and return which one was that before.

    Where there is no memory for that, nothing is changed.
    """
    loop = task.get_loop()
    try:
        tasks._enter_task(loop, task)
    except RuntimeError:
        pass
    except MemoryError:
        # A callback without its task is better than none: it may be on_close.
        return task
    else:
        return None
    before = asyncio.current_task(loop)
    if before is not None and before is not task:
        tasks._leave_task(loop, before)
        tasks._enter_task(loop, task)
    return before


def leave_task(task: asyncio.Task[Any], before: asyncio.Task[Any] | None) -> None:
    """Undo what `enter_task` has done."""
    if before is not task:
        loop = task.get_loop()
        try:
            tasks._leave_task(loop, task)
        except RuntimeError:
            # `call_outside` had no memory to enter it again.
            if asyncio.current_task(loop) is not None:
                raise
        if before is not None:
            tasks._enter_task(loop, before)


def call_outside(task: asyncio.Task[Any], callback: Callable[[Any], object], argument: Any) -> None:
    """Call ``callback`` while no task is the current one, as ``task`` is now.

    Where there is no memory for that, ``task`` is not the current one afterwards.
    """
    loop = task.get_loop()
    tasks._leave_task(loop, task)
    try:
        callback(argument)
    finally:
        try:  # noqa: SIM105 - a context manager is three calls
            tasks._enter_task(loop, task)
        except MemoryError:
            pass


def is_ended_by_loop(task: asyncio.Task[Any]) -> bool:
    """Whether ``task`` is cancelled and gathered: ``asyncio.run`` does that at its end with all that are left."""
    # Python 3.10 does not tell whether it is cancelled.
    if not getattr(task, "cancelling", lambda: 1)():
        return False
    callbacks: Any = getattr(task, "_callbacks", None)
    return any(getattr(callback, "__qualname__", "").startswith("gather.") for callback, _ in callbacks or ())


def is_done(result: Any) -> bool:
    """Whether ``result`` is a Future that has ended well, as that of most writes: nothing is left to wait for."""
    return type(result) is asyncio.Future and result.done() and not result.cancelled() and result.exception() is None


def step_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Suspended | None:
    """Let ``coroutine`` take its first step, in a copy of the context, as a task would; return None if it is done."""
    context = contextvars.copy_context()
    try:
        yielded = context.run(coroutine.send, None)
    except StopIteration:
        return None
    return coroutine, context, yielded
