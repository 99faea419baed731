"""Results: kept as JSON, read as medians."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kinds import FIGURES, Row
from benchmarks.rows import ROWS


@dataclass(frozen=True)
class Figure:
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class PeerResult:
    """What one peer did in one row; ``figures`` is empty when it failed, and ``error`` says why."""

    figures: Mapping[str, Figure]
    about: Mapping[str, Any]
    error: str | None

    def get(self, name: str) -> float | None:
        figure = self.figures.get(name)
        return figure.median if figure else None


class Results:
    """All that was measured, by row and peer, and what on."""

    def __init__(self, machine: Mapping[str, str]) -> None:
        self.machine = dict(machine)
        self.missing: list[str] = []
        self._rows: dict[str, dict[str, Any]] = {}

    @classmethod
    def read(cls, path: Path) -> Results:
        data = json.loads(path.read_text())
        results = cls(data["machine"])
        results.missing = data["missing"]
        results._rows = data["rows"]
        return results

    def write(self, path: Path) -> None:
        order = {row.id: row.label for row in ROWS}
        rows = {row_id: self._rows[row_id] for row_id in order if row_id in self._rows}
        data = {"machine": self.machine, "missing": self.missing, "rows": rows}
        path.write_text(json.dumps(data, indent=1) + "\n")

    def begin_row(self, row: Row, run: Mapping[str, Any]) -> None:
        """Forget what a former run measured in this row; ``run`` says when and how this one measures."""
        self._rows[row.id] = {"label": row.label, "run": dict(run), "peers": {}}

    def add(self, row: Row, peer: str, figures: Mapping[str, float], about: Mapping[str, Any]) -> None:
        entry = self._rows[row.id]["peers"].setdefault(peer, {"rounds": []})
        entry["about"] = dict(about)
        entry["rounds"].append({name: float(f"{value:.6g}") for name, value in figures.items()})

    def add_error(self, row: Row, peer: str, error: str) -> None:
        self._rows[row.id]["peers"].setdefault(peer, {"rounds": []})["error"] = error

    def rows(self) -> list[Row]:
        """Return the rows that were measured."""
        return [row for row in ROWS if row.id in self._rows]

    def run_of(self, row: Row) -> Mapping[str, Any]:
        run: Mapping[str, Any] = self._rows[row.id]["run"]
        return run

    def peers(self, row: Row) -> dict[str, PeerResult]:
        """Return the results of a row; a peer that failed in one round has failed."""
        return {name: _peer_result(entry) for name, entry in self._rows.get(row.id, {"peers": {}})["peers"].items()}

    def cost(self, row: Row, peer: str) -> float | None:
        """Return the figure that counts, None where there is none."""
        result = self.peers(row).get(peer)
        return result.get(FIGURES[row.kind][0]) if result else None


def _peer_result(entry: Mapping[str, Any]) -> PeerResult:
    error = entry.get("error")
    rounds = entry["rounds"]
    if error or not rounds:
        return PeerResult({}, entry.get("about", {}), error)
    figures = {}
    for name in rounds[0]:
        values = [measured[name] for measured in rounds]
        figures[name] = Figure(statistics.median(values), min(values), max(values))
    return PeerResult(figures, entry["about"], None)
