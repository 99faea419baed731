"""The pictures, with matplotlib, which is in the bench extra only."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.kinds import FIGURES, Row
from benchmarks.peers import FLOOR, OURS, SERVERS
from benchmarks.results import Results
from benchmarks.rows import ROWS

_OURS_COLOR, _PEER_COLOR, _REFERENCE_COLOR = "#3b78d8", "#a3abb5", "#d3d8de"
#: Of text and lines: it can be read on a white page and on a dark one.
_INK = "#737b85"
_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")


class Chart(NamedTuple):
    file: str
    title: str
    rows: tuple[str, ...]


#: The first one is for the README.
CHARTS = (
    Chart("coroutines.png", "Echo of 32-byte text in a coroutine", ("awaiting-x100-1", "awaiting-x1-64")),
    Chart("small_messages.png", "Echo of 32-byte text", ("text-32-x100-1", "text-32-x100-4", "text-32-x1-64")),
    Chart("large_messages.png", "Echo of large binary messages", ("binary-16k-x20-1", "binary-1m-x4-1")),
    Chart(
        "tls_and_deflate.png",
        "TLS and permessage-deflate",
        ("tls-32-x100-1", "tls-16k-x20-1", "deflate-93-x1-16", "deflate-14k-x1-16"),
    ),
    Chart("many_connections.png", "1,000 connections", ("text-32-x1000-1", "broadcast-93", "broadcast-deflate-93")),
    Chart("memory.png", "Memory", ("idle-800", "idle-800-deflate", "idle-800-deflate-used")),
    Chart("clients.png", "Clients, one question at a time", ("client-32-await", "client-32-callback")),
)


def draw_charts(results: Results, directory: Path) -> list[str]:
    """Draw what was measured; return the names of the files, none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    pyplot.rcParams.update(dict.fromkeys(_INKED, _INK))
    names = [server.name for server in SERVERS]
    measured = {row.id for row in results.rows() if any(results.cost(row, name) for name in names)}
    drawn = []
    for chart in CHARTS:
        rows = [row for row in ROWS if row.id in chart.rows and row.id in measured]
        if rows:
            _draw(pyplot, results, chart, rows, directory)
            drawn.append(chart.file)
    return drawn


def _draw(pyplot: Any, results: Results, chart: Chart, rows: Sequence[Row], directory: Path) -> None:
    names = [server.name for server in SERVERS if any(results.cost(row, server.name) for row in rows)]
    figure, axes = pyplot.subplots(
        1, len(rows), figsize=(1.5 + 3.6 * len(rows), 1.5 + 0.3 * len(names)), squeeze=False, layout="constrained"
    )
    figure.suptitle(f"{chart.title} (less is better)", fontsize=12)
    for number, (axis, row) in enumerate(zip(axes[0], rows, strict=True)):
        _draw_row(axis, results, row, names, labelled=number == 0)
    figure.savefig(directory / chart.file, dpi=110, transparent=True, metadata={"Software": None})
    pyplot.close(figure)


def _draw_row(axis: Any, results: Results, row: Row, names: Sequence[str], labelled: bool) -> None:
    costs = [results.cost(row, name) or 0.0 for name in names]
    positions = range(len(names))
    axis.barh(positions, costs, color=[_color(name) for name in names])
    axis.set_yticks(positions, names if labelled else [""] * len(names), fontsize=8)
    axis.invert_yaxis()
    axis.set_title(row.label.replace(", ", ",\n", 1), fontsize=8)
    axis.set_xlabel(FIGURES[row.kind][1], fontsize=8)
    axis.tick_params(axis="x", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    widest = max(costs)
    axis.set_xlim(0, widest * 1.18)
    for position, cost in zip(positions, costs, strict=True):
        text = f"{cost:.3g}" if cost < 1000 else f"{cost:,.0f}"
        axis.text(cost + widest * 0.01, position, text if cost else "-", va="center", fontsize=7)


def _color(name: str) -> str:
    if name.startswith(OURS):
        return _OURS_COLOR
    server = next(server for server in SERVERS if server.name == name)
    return _REFERENCE_COLOR if server.reference or name == FLOOR else _PEER_COLOR
