"""One timer of a loop for the deadlines of all its connections."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from typing import Any, Generic, TypeVar

from tornado.ioloop import IOLoop
from tornado.log import app_log

_C = TypeVar("_C")

#: The part of a time by which it may be shortened.
SPREAD = 0.1
#: As many that were given up may wait for their time, or as many as half of all.
_MOST_GIVEN_UP = 100


def a_little_less(seconds: float) -> float:
    """Return ``seconds``, or up to a tenth less, at random: what came together is not to happen together for ever."""
    return seconds * (1 - SPREAD * random.random())


class Deadline(Generic[_C]):
    """What has to be done for a connection at a time.

    A base class: a part that each of them owned would take as much memory again.
    """

    __slots__ = ("_connection", "due")

    def __init__(self, connection: _C, due: float) -> None:
        #: None when it is not to be done any more.
        self._connection: _C | None = connection
        #: When that is, in the loop's time.
        self.due = due

    @property
    def is_given_up(self) -> bool:
        return self._connection is None

    def give_up(self) -> None:
        """Let go of the connection, which may have ended long before."""
        self._connection = None

    def __lt__(self, other: Deadline[Any]) -> bool:
        return self.due < other.due

    def on_due(self, now: float) -> bool:
        """Do it; return whether there is another time, which is ``due`` then."""
        raise NotImplementedError


class Deadlines:
    """The deadlines of one loop, the next one first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[Deadline[Any]] = []
        #: Those since the list was last gone through.
        self._given_up = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, deadline: Deadline[Any]) -> None:
        heapq.heappush(self._heap, deadline)
        if self._heap[0] is deadline:
            self._set_timer()

    def give_up(self, deadline: Deadline[Any]) -> None:
        """``deadline`` is not to come any more. It leaves when it would have come, or when there are many of those."""
        deadline.give_up()
        self._given_up += 1
        if self._given_up > _MOST_GIVEN_UP and self._given_up > len(self._heap) // 2:
            self._heap = [other for other in self._heap if not other.is_given_up]
            heapq.heapify(self._heap)
            self._given_up = 0
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            # Of no connection's: the one that sets the timer is not the one that it is for.
            self._timer = self._loop.call_at(self._heap[0].due, self._on_timer, context=contextvars.Context())

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        try:
            while self._heap and self._heap[0].due <= now:
                deadline = heapq.heappop(self._heap)
                if not deadline.is_given_up and deadline.on_due(now):
                    heapq.heappush(self._heap, deadline)
        except Exception:
            app_log.exception("A deadline of a WebSocket connection failed")
        finally:
            self._set_timer()


def deadlines_of(io_loop: IOLoop) -> Deadlines:
    """Return the deadlines of ``io_loop``, kept on the loop so that they go with it."""
    deadlines: Deadlines | None = vars(io_loop).get("_ws_deadlines")
    if deadlines is None:
        deadlines = vars(io_loop)["_ws_deadlines"] = Deadlines(io_loop.asyncio_loop)  # type: ignore[attr-defined]
    return deadlines
