"""Which sockets are ready: one selector of our own nested in an IOLoop, or the loop itself where none can be.

asyncio spends about a microsecond on each event of its selector (handle, context, callback); an epoll or kqueue, itself
registered with the loop, spends that once a turn for all its ready sockets, where there are several. Events are hints:
whoever is called finds out by reading or writing, so one that outlived its socket in a batch does no harm.
"""

from __future__ import annotations

import abc
import asyncio
import functools
import select
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from tornado.ioloop import IOLoop

from tornado_ws import counting
from tornado_ws.channel import SOCKETS_PER_TURN, Servable
from tornado_ws.counting import Counters
from tornado_ws.engine import serve_ready

READ = IOLoop.READ
WRITE = IOLoop.WRITE


class Pollable(Servable, Protocol):
    """What a poller watches."""

    def fileno(self) -> int: ...

    def close(self) -> None:
        """Called by ``IOLoop.close(all_fds=True)``."""

    def counters(self) -> Counters: ...


class LoopPoller:
    """Registers every socket with the IOLoop."""

    def __init__(self, io_loop: IOLoop) -> None:
        self._io_loop = io_loop
        self._pollables: set[Pollable] = set()

    def add(self, pollable: Pollable) -> None:
        """Take ``pollable`` in, watched for nothing yet."""
        self._pollables.add(pollable)
        self._io_loop.add_handler(pollable, self._handle_ready, 0)

    def watch(self, pollable: Pollable, events: int) -> None:
        """Watch for ``events``: READ, WRITE, both or zero."""
        self._io_loop.update_handler(pollable, events)

    def remove(self, pollable: Pollable) -> None:
        self._pollables.remove(pollable)
        self._io_loop.remove_handler(pollable)

    def held(self) -> list[Pollable]:
        """Return the pollables, at once: another thread may ask."""
        return list(self._pollables)

    @staticmethod
    def _handle_ready(pollable: Pollable, events: int) -> None:
        pollable.handle_events()


class NestedPoller(abc.ABC):
    """Watches all sockets of an IOLoop with one selector of the kernel.

    A single socket is given to the loop itself: a selector would be one step more for each of its events. It moves when
    there is a second one, and the selector stays until there is none.
    """

    def __init__(self, io_loop: IOLoop) -> None:
        self._io_loop = io_loop
        self._selector: Any = None
        self._pollables: dict[int, Pollable] = {}
        self._events: dict[int, int] = {}

    @abc.abstractmethod
    def _open(self) -> Any:
        """Return a new selector."""

    @abc.abstractmethod
    def _change(self, fd: int, before: int, events: int) -> None:
        """Tell the selector what is to be watched."""

    @abc.abstractmethod
    def _server(self) -> Callable[[], None]:
        """Return what is called when the selector has something to tell."""

    def add(self, pollable: Pollable) -> None:
        """Take ``pollable`` in, watched for nothing yet."""
        if not self._pollables:
            self._io_loop.add_handler(pollable, _handle_nothing, 0)
        elif self._selector is None:
            self._nest()
        self._pollables[pollable.fileno()] = pollable

    def watch(self, pollable: Pollable, events: int) -> None:
        """Watch for ``events``: READ, WRITE, both or zero."""
        fd = pollable.fileno()
        if fd not in self._pollables:
            return
        before = self._events.pop(fd, 0)
        if events:
            self._events[fd] = events
        if events == before:
            return
        if self._selector is not None:
            self._change(fd, before, events)
        else:
            self._change_alone(pollable, before, events)

    def remove(self, pollable: Pollable) -> None:
        self.watch(pollable, 0)
        if self._pollables.pop(pollable.fileno(), None) is not None and not self._pollables:
            if self._selector is None:
                self._io_loop.remove_handler(pollable)
            else:
                self._io_loop.remove_handler(self)
                self._close_selector()

    def _change_alone(self, pollable: Pollable, before: int, events: int) -> None:
        """Tell the loop what is to be watched of the only socket."""
        fd = pollable.fileno()
        loop = self._asyncio_loop
        changed = before ^ events
        if changed & READ:
            if events & READ:
                loop.add_reader(fd, pollable.handle_events)
            else:
                loop.remove_reader(fd)
        if changed & WRITE:
            if events & WRITE:
                loop.add_writer(fd, pollable.handle_events)
            else:
                loop.remove_writer(fd)

    def _nest(self) -> None:
        """Put a selector between the loop and the socket that was the only one."""
        ((fd, pollable),) = self._pollables.items()
        events = self._events.get(fd, 0)
        self._change_alone(pollable, events, 0)
        self._io_loop.remove_handler(pollable)
        self._selector = self._open()
        self._io_loop.add_handler(self, _handle_nothing, 0)
        self._asyncio_loop.add_reader(self._selector.fileno(), self._server())
        if events:
            self._change(fd, 0, events)

    def _close_selector(self) -> None:
        if self._selector is not None:
            self._asyncio_loop.remove_reader(self._selector.fileno())
            self._selector.close()
            self._selector = None

    @property
    def _asyncio_loop(self) -> asyncio.AbstractEventLoop:
        return self._io_loop.asyncio_loop  # type: ignore[attr-defined, no-any-return]

    def held(self) -> list[Pollable]:
        """Return the pollables, at once: another thread may ask."""
        return list(self._pollables.values())

    def fileno(self) -> int:
        return self._selector.fileno() if self._selector is not None else -1

    def close(self) -> None:
        """Called by ``IOLoop.close(all_fds=True)``, which would close each socket if it were the loop's own."""
        pollables = self.held()
        self._close_selector()
        self._pollables.clear()
        self._events.clear()
        for pollable in pollables:
            pollable.close()


def _handle_nothing(fd: object, events: int) -> None:
    """What is ready comes from asyncio's loop without a detour: Tornado's is to know only what it has to close."""


class EpollPoller(NestedPoller):
    """Linux."""

    def _open(self) -> Any:
        return select.epoll()

    def _change(self, fd: int, before: int, events: int) -> None:
        if not events:
            # Not modified to zero: it would go on to tell of a hang-up, over and over.
            self._selector.unregister(fd)
        elif before:
            self._selector.modify(fd, events)
        else:
            self._selector.register(fd, events)

    def _server(self) -> Callable[[], None]:
        return functools.partial(serve_ready, self._selector, self._pollables)


class KqueuePoller(NestedPoller):
    """macOS and the BSDs."""

    def _open(self) -> Any:
        return _select.kqueue()

    def _change(self, fd: int, before: int, events: int) -> None:
        changes = [
            _select.kevent(fd, watched_by, _select.KQ_EV_ADD if events & flag else _select.KQ_EV_DELETE)
            for flag, watched_by in ((READ, _select.KQ_FILTER_READ), (WRITE, _select.KQ_FILTER_WRITE))
            if (before ^ events) & flag
        ]
        self._selector.control(changes, 0)

    def _server(self) -> Callable[[], None]:
        return self._serve

    def _serve(self) -> None:
        for event in self._selector.control(None, SOCKETS_PER_TURN, 0):
            # One that was closed by another's callback is no longer there.
            pollable = self._pollables.get(event.ident)
            if pollable is not None:
                pollable.handle_events()


#: Type checkers see the parts of the module that their platform has.
_select: Any = select

Poller: TypeAlias = "NestedPoller | LoopPoller"

_make_poller: type[NestedPoller] | type[LoopPoller] = (
    EpollPoller if hasattr(select, "epoll") else KqueuePoller if hasattr(select, "kqueue") else LoopPoller
)


def poller_of(io_loop: IOLoop) -> Poller:
    """Return the one poller of ``io_loop``, kept on the loop so that it goes with it."""
    poller: Poller | None = vars(io_loop).get("_ws_poller")
    if poller is None:
        poller = vars(io_loop)["_ws_poller"] = _make_poller(io_loop)
        counting.watch(poller)
    return poller
