"""Counts messages and bytes: of one connection, and of all connections of the process.

Imported for who asks for them: to make a dataclass takes longer than to import a module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from tornado_ws.observing import sums
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


_SUMMED = tuple(
    field.name for field in dataclasses.fields(Counters) if field.name not in ("buffered_amount", "latency")
)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def counters() -> ProcessCounters:
    """Return what went over all connections of this process so far. May be called in any thread."""
    every: list[Counters] = [connection.counters() for connection in sums.open_connections()]
    closed = sums.closed.totals
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
