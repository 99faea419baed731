"""Which sockets are ready: one selector of our own nested in an IOLoop, or the loop itself where none can be.

asyncio spends about a microsecond on each event of its selector (handle, context, callback); an epoll or kqueue, itself
registered with the loop, spends that once a turn for all its ready sockets, where there are several. Events are hints:
a connection finds out by reading or writing, so an event for a socket that is closed already does no harm.
"""

from __future__ import annotations

import abc
import asyncio
import atexit
import contextlib
import functools
import os
import select
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tornado.ioloop import IOLoop

from tornado_ws.engine import serve_ready
from tornado_ws.engine.contract import SOCKETS_PER_TURN, TURN_TIME, Servable
from tornado_ws.engine.serving import serve_until
from tornado_ws.observing import sums
from tornado_ws.transport.nesting import serve_inside_callbacks

if TYPE_CHECKING:
    from tornado_ws.observing.counters import Counters

#: Turns of a loop that ends in which applications hear of it.
_LAST_TURNS = 10

READ = IOLoop.READ
WRITE = IOLoop.WRITE


class Pollable(Servable, Protocol):
    """What a poller watches."""

    #: Its descriptor, until it is taken out.
    fd: int

    def fileno(self) -> int:
        """Return the same, for the IOLoop."""

    def close(self) -> None:
        """Called by ``IOLoop.close(all_fds=True)``."""

    def counters(self) -> Counters: ...

    def flush(self) -> None:
        """Send what was written and waits for more."""


class _Poller:
    """Knows its loop, and the process that this loop runs in."""

    def __init__(self, io_loop: IOLoop) -> None:
        self._io_loop = io_loop
        self._pid = os.getpid()
        self._unfinished: deque[Callable[[], None]] = deque()
        self._goes_on = False
        #: Until when sockets that are the loop's own are served in this turn of it, None before the first one.
        self._until: float | None = None
        #: The sockets that were ready when the time was up; they come first in the next turn.
        self._late: dict[Pollable, None] = {}

    def _serve_in_turn(self, pollable: Pollable) -> None:
        """Have a socket served that the loop itself has found ready: in this turn if `TURN_TIME` has room for it."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + TURN_TIME
            # The loop calls it before it tells of anything that it finds ready after this turn.
            self._asyncio_loop.call_soon(self._begin_turn)
        if self._late or now > self._until:
            self._late[pollable] = None
        else:
            pollable.handle_events()

    def _begin_turn(self) -> None:
        self._until = None
        late, self._late = self._late, {}
        for pollable in late:
            self._serve_in_turn(pollable)

    def go_on_later(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` in another turn of the loop: of all that wait so many in each as `TURN_TIME` has room for."""
        self._unfinished.append(go_on)
        if not self._goes_on:
            self._goes_on = True
            self._io_loop.add_callback(self._go_on)

    def _go_on(self) -> None:
        until = time.monotonic() + TURN_TIME
        try:
            for _ in range(len(self._unfinished)):
                self._unfinished.popleft()()
                if time.monotonic() > until:
                    break
        finally:
            self._goes_on = bool(self._unfinished)
            if self._goes_on:
                self._io_loop.add_callback(self._go_on)

    @property
    def is_inherited(self) -> bool:
        """Whether this is a forked child, and the loop still its parent's.

        An epoll is shared with the parent: a child that closes what it inherited must not change what it watches. A
        child that runs the loop itself, as a daemon does, has taken it over.
        """
        if os.getpid() == self._pid:
            return False
        if asyncio._get_running_loop() is not self._asyncio_loop:
            return True
        self._pid = os.getpid()
        return False

    @property
    def _asyncio_loop(self) -> asyncio.AbstractEventLoop:
        return self._io_loop.asyncio_loop  # type: ignore[attr-defined, no-any-return]


class LoopPoller(_Poller):
    """Registers every socket with the IOLoop."""

    def __init__(self, io_loop: IOLoop) -> None:
        super().__init__(io_loop)
        self._pollables: set[Pollable] = set()

    def add(self, pollable: Pollable) -> None:
        """Take ``pollable`` in, watched for nothing yet."""
        self._io_loop.add_handler(pollable, lambda pollable, events: self._serve_in_turn(pollable), 0)
        self._pollables.add(pollable)

    def watch(self, pollable: Pollable, events: int) -> None:
        """Watch for ``events``: READ, WRITE, both or zero. Raises OSError when the kernel has no room for it."""
        if not self.is_inherited:
            self._io_loop.update_handler(pollable, events)
            if events:
                serve_inside_callbacks(self._asyncio_loop, pollable.fd)

    def remove(self, pollable: Pollable) -> None:
        self._pollables.discard(pollable)
        if not self.is_inherited:
            self._io_loop.remove_handler(pollable)

    def connections(self) -> list[Pollable]:
        """Return the pollables, at once: another thread may ask."""
        return list(self._pollables)


class NestedPoller(_Poller, abc.ABC):
    """Watches all sockets of an IOLoop with one selector of the kernel.

    A single socket is given to the loop itself: a selector would be one step more for each of its events. It moves when
    there is a second one, and the selector stays until there is none. Where no selector can be opened, the process
    being out of descriptors, all sockets are given to the loop; the next one that is added tries again.
    """

    def __init__(self, io_loop: IOLoop) -> None:
        super().__init__(io_loop)
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
        if self._pollables and self._selector is None:
            with contextlib.suppress(OSError):
                self._nest()
        if self._selector is None:
            self._io_loop.add_handler(pollable, _handle_nothing, 0)
        self._pollables[pollable.fd] = pollable

    def watch(self, pollable: Pollable, events: int) -> None:
        """Watch for ``events``: READ, WRITE, both or zero. Raises OSError when the kernel has no room for it."""
        fd = pollable.fd
        if fd not in self._pollables:
            return
        before = self._events.get(fd, 0)
        if events == before:
            return
        if not self.is_inherited:
            if self._selector is not None:
                self._change(fd, before, events)
            else:
                self._change_alone(pollable, before, events)
        if events:
            self._events[fd] = events
        else:
            del self._events[fd]

    def remove(self, pollable: Pollable) -> None:
        self.watch(pollable, 0)
        if self._pollables.pop(pollable.fd, None) is None:
            return
        if self._selector is None:
            self._io_loop.remove_handler(pollable)
        elif not self._pollables:
            self._close_selector()

    def _change_alone(self, pollable: Pollable, before: int, events: int) -> None:
        """Tell the loop what is to be watched of a socket that is its own."""
        fd = pollable.fd
        loop = self._asyncio_loop
        changed = before ^ events
        # Where there is no other it is bounded by itself.
        is_single = len(self._pollables) == 1
        serve = pollable.handle_events if is_single else functools.partial(self._serve_in_turn, pollable)
        if changed & READ:
            if events & READ:
                loop.add_reader(fd, serve)
            else:
                loop.remove_reader(fd)
        if changed & WRITE:
            if events & WRITE:
                loop.add_writer(fd, serve)
            else:
                loop.remove_writer(fd)
        if events:
            serve_inside_callbacks(loop, fd)

    def _nest(self) -> None:
        """Put a selector between the loop and its sockets. Raises OSError, with nothing changed, when that fails."""
        self._selector = self._open()
        try:
            for fd, events in self._events.items():
                self._change(fd, 0, events)
            self._io_loop.add_handler(self, _handle_nothing, 0)
            self._asyncio_loop.add_reader(self._selector.fileno(), self._server())
            serve_inside_callbacks(self._asyncio_loop, self._selector.fileno())
        except BaseException:
            self._close_selector()
            raise
        for fd, pollable in self._pollables.items():
            self._change_alone(pollable, self._events.get(fd, 0), 0)
            self._io_loop.remove_handler(pollable)

    def _close_selector(self) -> None:
        if self._selector is not None:
            self._io_loop.remove_handler(self)
            if not self.is_inherited:
                self._asyncio_loop.remove_reader(self._selector.fileno())
            self._selector.close()
            self._selector = None

    def connections(self) -> list[Pollable]:
        """Return the pollables, at once: another thread may ask."""
        return list(self._pollables.values())

    def fileno(self) -> int:
        return self._selector.fileno() if self._selector is not None else -1

    def close(self) -> None:
        """Called by ``IOLoop.close(all_fds=True)``, which would close each socket if it were the loop's own."""
        pollables = self.connections()
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
            # Not modified to zero: it would go on to tell of a hang-up, over and over. Whoever has closed the
            # descriptor behind our back has taken it out.
            try:  # noqa: SIM105 - a context manager is three calls, at each end of a connection
                self._selector.unregister(fd)
            except OSError:
                pass
        elif before:
            self._selector.modify(fd, events)
        else:
            self._selector.register(fd, events)

    def _server(self) -> Callable[[], None]:
        return functools.partial(serve_ready, self._selector, self._pollables, [])


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
        return functools.partial(self._serve, [])

    def _serve(self, late: list[int]) -> None:
        if not late:
            late += [event.ident for event in self._selector.control(None, SOCKETS_PER_TURN, 0)]
        late[:] = serve_until(time.monotonic() + TURN_TIME, late, self._pollables)


#: Type checkers see the parts of the module that their platform has.
_select: Any = select

Poller: TypeAlias = "NestedPoller | LoopPoller"

_make_poller: type[NestedPoller] | type[LoopPoller] = (
    EpollPoller if hasattr(select, "epoll") else KqueuePoller if hasattr(select, "kqueue") else LoopPoller
)

_pollers: weakref.WeakSet[Poller] = weakref.WeakSet()


def _flush(poller: Poller) -> None:
    for pollable in poller.connections():
        with contextlib.suppress(Exception):
            pollable.flush()


@atexit.register
def _flush_at_exit() -> None:
    """Send what was written in a turn whose end does not come: a SystemExit has ended the loop."""
    for poller in _pollers:
        if not poller.is_inherited:
            _flush(poller)


def _flush_before_fork() -> None:
    """Send what the loop of this thread holds back, or a child that is ended by an exception would send it again.

    An exception goes through callbacks, and `asyncio.run` ends the loop in the child: both send what waits.
    """
    running = asyncio._get_running_loop()
    for poller in list(_pollers):
        if poller._asyncio_loop is running:
            _flush(poller)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_flush_before_fork)


def poller_of(io_loop: IOLoop, make: Callable[[IOLoop], Poller] | None = None) -> Poller:
    """Return the one poller of ``io_loop``, kept on the loop so that it goes with it.

    ``make`` makes it where there is none yet; by default it is that of the system.
    """
    poller: Poller | None = vars(io_loop).get("_ws_poller")
    if poller is None:
        poller = vars(io_loop)["_ws_poller"] = (make or _make_poller)(io_loop)
        sums.watch(poller)
        _pollers.add(poller)
        vars(io_loop)["_ws_loop_end"] = _begin(_close_at_loop_end(poller))
    return poller


async def _close_at_loop_end(poller: Poller) -> AsyncGenerator[None, None]:
    """Close what ``poller`` holds when the loop ends, as the tasks of Tornado's connections do when they are cancelled.

    `asyncio.run` closes every asynchronous generator that was begun in its loop. One of those takes no place among the
    tasks, and nobody has to end it.
    """
    try:
        yield
    finally:
        for pollable in poller.connections():
            pollable.close()
        # The application is told in one of the next turns.
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)


def _begin(generator: AsyncGenerator[None, None]) -> AsyncGenerator[None, None]:
    """Run ``generator`` up to its yield, so that the running loop knows of it."""
    with contextlib.suppress(StopIteration):
        generator.__anext__().__await__().__next__()
    return generator
