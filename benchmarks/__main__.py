"""Runs the rows: every peer once, then every peer again, and writes results.json, results.md and charts."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.charts import draw_charts
from benchmarks.kinds import FIGURES, Row
from benchmarks.machine import describe_checkout, describe_machine
from benchmarks.measure import measure
from benchmarks.measured import Setup
from benchmarks.peers import CLIENTS, IMPORTS, SERVERS, Client, Server
from benchmarks.process import FailedError
from benchmarks.report import render, say_verdict
from benchmarks.results import Results
from benchmarks.rows import ROWS
from benchmarks.targets import judge
from benchmarks.tools import MissingError, Tools, make_tools

_COMMITTED = Path(__file__).parent / "results"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="Rows and their ids: " + ", ".join(row.id for row in ROWS),
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured time of one round of one peer")
    parser.add_argument("--rows", metavar="SUBSTR", default="", help="only rows with this in their id or label")
    parser.add_argument("--servers", metavar="SUBSTR", default="", help="only peers with this in their name")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for the results; rows that are there already and are not measured now are kept. "
        "The default is benchmarks/results, or a new temporary folder with --quick or --servers",
    )
    parser.add_argument("--report", action="store_true", help="measure nothing, render what the folder holds anew")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1 or chosen.seconds <= 0:
        parser.error("--rounds and --seconds have to be positive")
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, min(chosen.seconds, 0.2)
    if chosen.out is None:
        # What is committed was measured in full.
        partial = chosen.quick or chosen.servers
        chosen.out = Path(tempfile.mkdtemp(prefix="tornado_ws-results-")) if partial else _COMMITTED
    return chosen


def peers_of(row: Row, tools: Tools, wanted: str) -> list[Server | Client | str]:
    """Return who takes part in a row on this machine."""
    if row.kind == "importing":
        missing = {server.name for server in SERVERS if tools.lacks(server)}
        return [name for name in IMPORTS if wanted in name and name not in missing]
    if row.kind == "client":
        return [c for c in CLIENTS if c.style == row.style and wanted in c.name and not tools.lacks(c)]
    if "tls" in row.needs and tools.load_tls is None:
        return []
    if row.over_broker is not None and tools.redis_server is None:
        return []
    return [
        server
        for server in SERVERS
        if row.needs <= server.can
        and (server.only is None or (server.only in row.needs and row.kind == "echo"))
        and wanted in server.name
        and not tools.lacks(server)
    ]


def measure_row(row: Row, peers: Sequence[Server | Client | str], setup: Setup, rounds: int, results: Results) -> None:
    """Measure every peer ``rounds`` times. One that fails says so and is left out from then on."""
    failed = set()
    for number in range(rounds):
        # Whoever comes first comes last in the next round.
        for peer in [*peers[number % len(peers) :], *peers[: number % len(peers)]]:
            name = peer if isinstance(peer, str) else peer.name
            if name in failed:
                continue
            try:
                measured = measure(row, peer, setup)
            except FailedError as error:
                failed.add(name)
                results.add_error(row, name, str(error))
                print(f"  {name}: FAILED: {error}", flush=True)
                continue
            results.add(row, name, measured.figures, measured.about)
            figure, unit = FIGURES[row.kind]
            print(f"  {name}: {measured.figures[figure]:.2f} {unit}{_busy(measured.figures)}", flush=True)


def _busy(figures: dict[str, float]) -> str:
    shares = {"busy": "busy_share", "load busy": "load_cpu_share", "load working": "load_work_share"}
    said = [f"{name} {figures[share]:.0%}" for name, share in shares.items() if share in figures]
    return f" ({', '.join(said)})" if said else ""


def measure_all(chosen: argparse.Namespace, tools: Tools, results: Results, cores: Sequence[int]) -> None:
    warmup = min(0.5, chosen.seconds)
    setup = Setup(tools, cores[-1], cores[0], warmup, chosen.seconds)
    rows = [row for row in ROWS if chosen.rows in row.id or chosen.rows in row.label]
    run = {
        "when": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": describe_checkout(),
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
    }
    for row in rows:
        peers = peers_of(row, tools, chosen.servers)
        print(row.label, flush=True)
        if not peers:
            print("  nobody here can do that", flush=True)
            continue
        results.begin_row(row, run)
        measure_row(row, peers, setup, chosen.rounds, results)
        for verdict in judge(results):
            if verdict.row is row:
                print(f"  target: {say_verdict(verdict)}", flush=True)
        write(results, chosen.out)


def write(results: Results, directory: Path) -> None:
    results.write(directory / "results.json")
    charts = draw_charts(results, directory)
    (directory / "results.md").write_text(render(results, charts))


def former_results(directory: Path, machine: dict[str, str]) -> Results:
    """Return what ``directory`` holds if it was measured on such a machine, else nothing."""
    path = directory / "results.json"
    if path.exists():
        results = Results.read(path)
        if results.machine == machine:
            return results
        print("The results that are there are of another machine or other versions; they are replaced.", flush=True)
    return Results(machine)


def main() -> int:
    chosen = parse_arguments()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.report:
        write(Results.read(chosen.out / "results.json"), chosen.out)
        return 0
    if not hasattr(os, "sched_getaffinity"):
        print("The benchmarks need Linux: they pin processes to cores and read other processes' CPU clocks.")
        return 1
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("The benchmarks need two cores: one for the server, one for the load.")
        return 1
    # We sleep while others are measured, and wake up on the core of the load.
    os.sched_setaffinity(0, {cores[0]})
    results = former_results(chosen.out, describe_machine())
    with tempfile.TemporaryDirectory(prefix="tornado_ws-benchmarks-") as directory:
        try:
            tools = make_tools(Path(directory), [server for server in SERVERS if chosen.servers in server.name])
        except MissingError as error:
            print(error)
            return 1
        lacking = ((peer.name, tools.lacks(peer)) for peer in SERVERS if chosen.servers in peer.name)
        results.missing = [
            *tools.missing,
            *(f"{name} is left out: {what} is missing" for name, what in lacking if what),
        ]
        for line in results.missing:
            print(line, flush=True)
        measure_all(chosen, tools, results, cores)
    print(f"Written to {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
