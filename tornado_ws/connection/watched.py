"""Callbacks of the application that go on by themselves, and what becomes of the connection when one has raised."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from tornado_ws.connection.interfaces import Turn

#: Coroutines ``on_ping`` and ``on_pong`` of one connection that may be under way; then reading stops.
_MOST = 1000


class Owner(Protocol):
    """The connection whose callbacks they are."""

    def _log_and_abort(self, error: BaseException) -> None:
        """Log what a callback has raised, and abort."""

    def _abort(self) -> None:
        """Close the socket at once."""


class Watched:
    """Callbacks that nothing waits for."""

    __slots__ = ("_count", "_go_on", "_owner")

    def __init__(self, owner: Owner, go_on: Callable[[], object]) -> None:
        """``go_on`` is called when there are no longer too many of them."""
        self._owner = owner
        self._go_on = go_on
        self._count = 0

    def are_too_many(self) -> bool:
        return self._count >= _MOST

    def add(self, handled: Any) -> None:
        """Let ``handled`` go on by itself."""
        self._count += 1
        handled.add_done_callback(self._on_done)

    def _on_done(self, handled: Any) -> None:
        check_handled(self._owner, handled)
        self._count -= 1
        if self._count == _MOST - 1:
            self._go_on()


def check_handled(owner: Owner, handled: Any) -> None:
    """Abort the connection if ``handled``, which is done, has raised."""
    if not isinstance(handled, Turn):
        try:
            handled.result()
        except (Exception, asyncio.CancelledError) as error:
            owner._log_and_abort(error)
        except BaseException:
            # Its task has raised it already.
            owner._abort()
        finally:
            # The error has a traceback, that has this frame, and a Future keeps its error.
            del handled
