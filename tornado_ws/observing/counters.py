"""Counts messages and bytes: of one connection, and of all connections of the process.

Nothing is added up while messages pass. Each connection has its own counts; those of the process are the sums over the
open connections, and what the closed ones had counted.
"""

from __future__ import annotations

import dataclasses
import operator
import weakref
from collections.abc import Iterable
from typing import Protocol, TypeAlias

from tornado_ws.observing.latency import UNKNOWN, Latency


@dataclasses.dataclass(frozen=True)
class Counters:
    """What went over a connection, or over all of them, so far."""

    messages_in: int = 0
    """Messages that were received and handed to the application."""
    messages_out: int = 0
    """Messages that the application sent."""
    message_bytes_in: int = 0
    """Bytes of the messages that were received: after inflating, text in UTF-8."""
    message_bytes_out: int = 0
    """Bytes of the messages that were sent: before compression, text in UTF-8."""
    wire_bytes_in: int = 0
    """Bytes of all frames that were received, headers and control frames among them. TLS adds its own."""
    wire_bytes_out: int = 0
    """Bytes of all frames that were sent, headers and control frames among them. TLS adds its own."""
    dropped: int = 0
    """Messages that were not sent, under the policy "drop" of ``write_limit``."""
    buffered_amount: int = 0
    """Bytes that wait for the kernel now; those of closed connections do not."""
    latency: Latency = UNKNOWN
    """Round trips of pings, see `Latency`; of a process, the means over the open connections that have any."""

    @property
    def compression_ratio_in(self) -> float | None:
        """This is how many message bytes came to a byte on the wire; None before the first one."""
        return self.message_bytes_in / self.wire_bytes_in if self.wire_bytes_in else None

    @property
    def compression_ratio_out(self) -> float | None:
        """This is how many message bytes went to a byte on the wire; None before the first one."""
        return self.message_bytes_out / self.wire_bytes_out if self.wire_bytes_out else None


@dataclasses.dataclass(frozen=True)
class ProcessCounters(Counters):
    """`Counters` of all connections of a process, servers' and clients'."""

    open_connections: int = 0
    """Connections that are open."""
    connections: int = 0
    """Connections that ever were."""


class Counted(Protocol):
    def counters(self) -> Counters: ...


class Holder(Protocol):
    """Who has open connections: a poller, for those of one loop."""

    def connections(self) -> Iterable[Counted]: ...


#: The first seven fields of `Counters`, which can be added up.
Sums: TypeAlias = tuple[int, int, int, int, int, int, int]
NO_SUMS: Sums = (0,) * 7
_SUMMED = tuple(
    field.name for field in dataclasses.fields(Counters) if field.name not in ("buffered_amount", "latency")
)


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


_closed = _Closed()
_holders: weakref.WeakSet[Holder] = weakref.WeakSet()

#: Called with what a connection had counted when it was asked last, None if it was not, and what it has now.
add_closed = _closed.add


def watch(holder: Holder) -> None:
    """Count the connections of ``holder`` too, for as long as there is one."""
    _holders.add(holder)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def counters() -> ProcessCounters:
    """Return what went over all connections of this process so far. May be called in any thread."""
    every = [connection.counters() for holder in list(_holders) for connection in holder.connections()]
    closed = _closed.totals
    totals = dict(zip(_SUMMED, closed.sums, strict=True))
    for name in totals:
        totals[name] += sum(getattr(each, name) for each in every)
    return ProcessCounters(
        **totals,
        buffered_amount=sum(each.buffered_amount for each in every),
        latency=Latency(*(_mean([each.latency[i] for each in every]) for i in range(2))),
        open_connections=len(every),
        connections=closed.connections + len(every),
    )
