"""Which targets are met, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.kinds import BEST_PEER, FIGURES, OTHER_FIGURES, Row, Target
from benchmarks.peers import SERVERS
from benchmarks.results import Results
from benchmarks.rows import ROWS

#: Messages are not all of one size, and two servers are not cut off at the same one.
_SAME_WIRE_SIZE = 1.01


@dataclass(frozen=True)
class Verdict:
    """``measured`` is a ratio or, where the target is one, an absolute figure. ``note`` says why it is not met."""

    row: Row
    target: Target
    against: str
    measured: float | None
    note: str = ""

    @property
    def met(self) -> bool:
        return self.measured is not None and self.measured <= self.target.factor and not self.note


def judge(results: Results) -> list[Verdict]:
    """Return a verdict for each target of the rows that were measured."""
    return [_judge(results, row, target) for row in results.rows() for target in row.targets]


def best_peer(results: Results, row: Row) -> str | None:
    """Return the cheapest of those that are neither ours nor mere references."""
    rivals = {server.name for server in SERVERS if not server.ours and not server.reference}
    costs = {name: results.cost(row, name) for name in results.peers(row) if name in rivals}
    measured = {name: cost for name, cost in costs.items() if cost is not None}
    return min(measured, key=lambda name: measured[name]) if measured else None


def _judge(results: Results, row: Row, target: Target) -> Verdict:
    subject = _figure(results, row, target, target.subject)
    if target.against is None:
        unit = OTHER_FIGURES[target.figure] if target.figure else FIGURES[row.kind][1]
        return Verdict(row, target, unit, subject, "not measured" if subject is None else "")
    against = best_peer(results, row) if target.against == BEST_PEER else target.against
    compared = next(other for other in ROWS if other.id == target.in_row) if target.in_row else row
    other = _figure(results, compared, target, against) if against else None
    label = f"{BEST_PEER}, {against}" if target.against == BEST_PEER and against else target.against
    if target.in_row:
        label = f'{label} in "{compared.label}"'
    if subject is None or not other:
        return Verdict(row, target, label, None, "not measured")
    return Verdict(row, target, label, subject / other, _wire_note(results, row, target))


def _figure(results: Results, row: Row, target: Target, peer: str) -> float | None:
    if not target.figure:
        return results.cost(row, peer)
    result = results.peers(row).get(peer)
    return result.get(target.figure) if result else None


def _wire_note(results: Results, row: Row, target: Target) -> str:
    if target.wire_of is None:
        return ""
    peers = results.peers(row)
    ours = peers[target.subject].get("wire_bytes_out") if target.subject in peers else None
    theirs = peers[target.wire_of].get("wire_bytes_out") if target.wire_of in peers else None
    if ours is None or theirs is None:
        return f"wire size of {target.wire_of} not measured"
    if ours > theirs * _SAME_WIRE_SIZE:
        return f"{ours:.1f} bytes on the wire, {target.wire_of} {theirs:.1f}"
    return ""
