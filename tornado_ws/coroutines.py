"""Coroutines that callbacks of an application return: those that are run, and those that stand where a value has to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol, TypeVar

from tornado import gen
from tornado.log import app_log

_T = TypeVar("_T")


class LogsExceptions(Protocol):
    """Whose callbacks are run."""

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None: ...


#: What most values are. Asking whether they are awaitable costs more than all the rest.
_VALUES = frozenset((type(None), bool, int, float, str, bytes, dict))
_NOT_A_VALUE = (Awaitable, Generator, AsyncGenerator, concurrent.futures.Future)

#: What was begun here. A loop has only weak references to its tasks.
_running: set[asyncio.Future[Any]] = set()


async def nothing() -> None:
    """Await nothing."""


def value_of(owner: object, hook: str, value: _T) -> _T:
    """Return ``value``, which ``hook`` of ``owner`` has returned.

    Raises TypeError for a coroutine, a Future or a generator: each of them is true, whatever would come of it.
    """
    if type(value) not in _VALUES and isinstance(value, _NOT_A_VALUE):
        _close(value)
        name = hook if owner is None else f"{type(owner).__qualname__}.{hook}"
        raise TypeError(
            f"{name} returned a {type(value).__name__}; it has to return its value and cannot be a coroutine"
        )
    return value


def values_of(owner: object, **values: Any) -> tuple[Any, ...]:
    """As `value_of`, for what several hooks have returned, by their names."""
    if not _VALUES.issuperset(map(type, values.values())):
        for hook, value in values.items():
            value_of(owner, hook, value)
    return tuple(values.values())


def run_in_task(coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Return a task of ``coroutine``, held until it is done."""
    task = asyncio.get_running_loop().create_task(coroutine)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


def run_to_end(owner: LogsExceptions, hook: str, result: Any) -> asyncio.Future[Any] | None:
    """Run what ``hook`` of ``owner`` has returned if it is a coroutine or a Future, and return its Future.

    An exception is logged by ``log_exception`` of ``owner``.
    Anything else that a callback returns means nothing, as in Tornado. Raises TypeError for a generator, which would
    never begin, and RuntimeError for a coroutine when no loop runs.
    """
    if result is None:
        return None
    if not inspect.isawaitable(result):
        if isinstance(result, Generator | AsyncGenerator):
            value_of(owner, hook, result)
        return None
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _close(result)
        raise RuntimeError(f"{type(owner).__qualname__}.{hook} is a coroutine, and its loop does not run") from None
    running: asyncio.Future[Any] = gen.convert_yielded(result)
    _running.add(running)
    running.add_done_callback(functools.partial(_on_done, owner))
    return running


def _on_done(owner: LogsExceptions, running: asyncio.Future[Any]) -> None:
    _running.discard(running)
    # A loop that ends cancels what is left.
    if not running.cancelled() and (error := running.exception()) is not None:
        log_error(owner, error)


def log_error(owner: LogsExceptions, error: BaseException) -> None:
    """Hand what a callback has raised to ``log_exception`` of ``owner``. If that raises, a log line is all."""
    try:
        owner.log_exception(type(error), error, error.__traceback__)
    except Exception:
        app_log.exception("log_exception of %s raised", type(owner).__qualname__)


def _close(value: object) -> None:
    """Keep Python from warning of a coroutine that was never awaited."""
    close: Callable[[], None] | None = getattr(value, "close", None)
    if close is not None:
        close()
