"""What is counted of connections: the sums of those that have closed, and who knows the open ones.

Nothing is added up while messages pass. Each connection has its own counts; those of the process are the sums over the
open connections, and what the closed ones had counted.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias


class Holder(Protocol):
    """Who has open connections, which have `.Counters`: a poller, for those of one loop."""

    def connections(self) -> Iterable[Any]: ...


#: The first seven fields of `.Counters`, which can be added up.
Sums: TypeAlias = tuple[int, int, int, int, int, int, int]
NO_SUMS: Sums = (0,) * 7


class _Totals:
    """Sums at one time, and how many connections they are of; ``next`` in its dict has those that took its place."""

    def __init__(self, connections: int, sums: tuple[int, ...]) -> None:
        self.connections = connections
        self.sums = sums


class _Closed:
    """What closed connections have left. Loops of several threads may close some at once.

    There is no lock: a finalizer that closes a connection may run in the middle of `add`, in the same thread. Totals
    never change; who has made the next ones sets them in one step, unless somebody else has meanwhile.
    """

    def __init__(self) -> None:
        self._latest = _Totals(0, NO_SUMS)

    @property
    def totals(self) -> _Totals:
        latest = self._latest
        while (following := latest.__dict__.get("next")) is not None:
            latest = following
        return latest

    def add(self, before: Sums | None, after: Sums) -> None:
        if before == after:
            return
        change = after if before is None else tuple(map(operator.sub, after, before))
        while True:
            latest = self.totals
            following = _Totals(latest.connections + (before is None), tuple(map(operator.add, latest.sums, change)))
            if latest.__dict__.setdefault("next", following) is following:
                # Older ones by then do no harm: `totals` goes on from whichever it finds.
                self._latest = following
                return


closed = _Closed()
_holders: weakref.WeakSet[Holder] = weakref.WeakSet()

#: Called with what a connection had counted when it was asked last, None if it was not, and what it has now.
add_closed = closed.add


def watch(holder: Holder) -> None:
    """Count the connections of ``holder`` too, for as long as there is one."""
    _holders.add(holder)


def open_connections() -> list[Any]:
    """Return the open connections of all loops. May be called in any thread."""
    return [connection for holder in list(_holders) for connection in holder.connections()]
