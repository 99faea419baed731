"""Which sockets are ready: one epoll of our own nested in an IOLoop, or the loop itself where there is no epoll.

asyncio spends about a microsecond on each event of its selector (handle, context, callback); an epoll whose one
descriptor is registered with the loop spends that once a turn for all its ready sockets. Events are hints: whoever is
called finds out by reading or writing, so one that outlived its socket in a batch does no harm.
"""

from __future__ import annotations

import select
from typing import Protocol, TypeAlias

from tornado.ioloop import IOLoop

from tornado_ws import counting
from tornado_ws.channel import Servable
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


class EpollPoller:
    """Watches all sockets of an IOLoop with one epoll, which lives as long as there are any."""

    def __init__(self, io_loop: IOLoop) -> None:
        self._io_loop = io_loop
        self._epoll: select.epoll | None = None
        self._pollables: dict[int, Pollable] = {}
        self._events: dict[int, int] = {}

    def add(self, pollable: Pollable) -> None:
        """Take ``pollable`` in, watched for nothing yet."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._io_loop.add_handler(self, self._handle_ready, READ)
        self._pollables[pollable.fileno()] = pollable

    def watch(self, pollable: Pollable, events: int) -> None:
        """Watch for ``events``: READ, WRITE, both or zero."""
        if self._epoll is None:
            return
        fd = pollable.fileno()
        before = self._events.pop(fd, 0)
        if events:
            self._events[fd] = events
            (self._epoll.modify if before else self._epoll.register)(fd, events)
        elif before:
            # Not modified to zero: it would go on to tell of a hang-up, over and over.
            self._epoll.unregister(fd)

    def remove(self, pollable: Pollable) -> None:
        if self._epoll is None:
            return
        self.watch(pollable, 0)
        del self._pollables[pollable.fileno()]
        if not self._pollables:
            self._io_loop.remove_handler(self)
            self._epoll.close()
            self._epoll = None

    def _handle_ready(self, poller: object, events: int) -> None:
        if self._epoll is not None:
            serve_ready(self._epoll, self._pollables)

    def held(self) -> list[Pollable]:
        """Return the pollables, at once: another thread may ask."""
        return list(self._pollables.values())

    def fileno(self) -> int:
        return self._epoll.fileno() if self._epoll is not None else -1

    def close(self) -> None:
        """Called by ``IOLoop.close(all_fds=True)``, which would close each socket if it were the loop's own."""
        pollables = list(self._pollables.values())
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        self._pollables.clear()
        self._events.clear()
        for pollable in pollables:
            pollable.close()


Poller: TypeAlias = "EpollPoller | LoopPoller"

_make_poller: type[EpollPoller] | type[LoopPoller] = EpollPoller if hasattr(select, "epoll") else LoopPoller


def poller_of(io_loop: IOLoop) -> Poller:
    """Return the one poller of ``io_loop``, kept on the loop so that it goes with it."""
    poller: Poller | None = vars(io_loop).get("_ws_poller")
    if poller is None:
        poller = vars(io_loop)["_ws_poller"] = _make_poller(io_loop)
        counting.watch(poller)
    return poller
