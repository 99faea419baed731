"""What a finalizer may do in the middle of our own work: close a connection, or write to one, in the same thread."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable

from tests.support import run_side_by_side
from tornado_ws.deflate.interfaces import Live
from tornado_ws.deflate.streams import LiveStreams
from tornado_ws.observing import sums

SUMS: sums.Sums = (1, 2, 3, 4, 5, 6, 7)


def ends(work: Callable[[], None]) -> None:
    """Call ``work`` in a thread of its own, which may wait for ever if it is wrong, and see it end without an error."""
    done: list[bool] = []

    def run() -> None:
        work()
        done.append(True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert done == [True]


class Interrupting(int):
    """A count at whose addition a finalizer runs."""

    finalizer: Callable[[], None]

    def __radd__(self, other: int) -> int:
        finalizer, self.finalizer = self.finalizer, lambda: None
        finalizer()
        return other + int(self)


def test_a_connection_that_is_closed_while_another_is_counted() -> None:
    closed = sums._Closed()
    closed.add(None, SUMS)
    first = Interrupting(1)
    first.finalizer = lambda: closed.add(None, SUMS)
    ends(lambda: closed.add(None, (first, *SUMS[1:])))
    assert closed.totals.connections == 3
    assert closed.totals.sums == tuple(3 * each for each in SUMS)


def test_threads_that_close_connections_at_once_lose_none() -> None:
    closed = sums._Closed()
    twice = tuple(2 * each for each in SUMS)
    seen: list[int] = []

    def close() -> None:
        for _ in range(500):
            closed.add(None, SUMS)
            closed.add(SUMS, twice)  # type: ignore[arg-type]
            seen.append(closed.totals.connections)

    run_side_by_side([threading.Thread(target=close) for _ in range(6)])
    assert closed.totals.connections == 3000
    assert closed.totals.sums == tuple(map(operator.mul, SUMS, [6000] * 7))
    assert len(seen) == 3000


class Stream:
    """A live stream of ``memory`` bytes; ``on_freeze`` is called while it is frozen."""

    def __init__(self, on_freeze: Callable[[], None] = lambda: None) -> None:
        self.memory = 100
        self.used = False
        self.live = True
        self._on_freeze = on_freeze

    def freeze(self) -> bool:
        self._on_freeze()
        self.live = False
        return True


def test_a_message_that_is_written_while_a_stream_is_taken_in() -> None:
    live = LiveStreams(250)
    answers: list[bool] = []
    inner = Stream()
    oldest = Stream(lambda: answers.append(live.admit(inner)))
    streams: list[Live] = [oldest, Stream(), Stream()]

    def take_in() -> None:
        answers.extend([live.admit(stream) for stream in streams])

    ends(take_in)
    # The one in the middle is not waited for, and may not stay; afterwards it may.
    assert answers == [False, True, True, True]
    assert len(live) == 2
    assert live.admit(inner)
    assert len(live) == 2
