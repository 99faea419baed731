"""Futures that do not lose their result when the task that awaits them is cancelled."""

from __future__ import annotations

import abc
import asyncio
from types import TracebackType
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")


class Connected(Protocol):
    """A connection that `websocket_connect` has made."""

    async def __aexit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close it, and wait until it is closed."""

    def _ws_abort(self) -> None:
        """Close its socket at once."""


_C = TypeVar("_C", bound=Connected)


class ReclaimingFuture(asyncio.Future[_T]):
    """A Future with a result that somebody has to get.

    A task may be cancelled between the moment when the result is set and the moment when the task runs on. The result
    would be lost then; here it is given back.
    """

    __slots__ = ()

    _is_given_back = False

    def cancel(self, msg: Any = None) -> bool:
        # A task that is cancelled cancels what it waits for first, whether that is done or not.
        if self.done() and not self.cancelled() and self.exception() is None:
            waiting = [task for task in asyncio.all_tasks(self.get_loop()) if waits_for(task, self)]
            if len(waiting) == 1 and not self._is_given_back:
                self._is_given_back = True
                self._reclaim(self.result())
        return super().cancel(msg)

    @abc.abstractmethod
    def _reclaim(self, result: _T) -> None:
        """Called when ``result`` was on its way to a task that was cancelled."""


class ConnectFuture(ReclaimingFuture[_C]):
    """What `websocket_connect` returns: a Future of the connection.

    ``async with websocket_connect(...) as conn`` awaits it, and closes the connection at the end.
    """

    async def __aenter__(self) -> _C:
        return await self

    async def __aexit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.result().__aexit__(typ, value, tb)

    def _reclaim(self, result: _C) -> None:
        # Nobody has this connection, so nobody else can close it.
        result._ws_abort()


def waits_for(task: asyncio.Task[Any], future: asyncio.Future[Any]) -> bool:
    """Whether ``task`` goes on when ``future`` is done."""
    return getattr(task, "_fut_waiter", None) is future
