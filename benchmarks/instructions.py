"""Instructions per message, or per connection, counted by valgrind, against the figures in instructions.json.

A count is the same whatever else the machine does, so a bar can be narrow: 10 % more than committed is a failure.
Figures are compared only on the interpreter that they were counted on.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.process import ROOT
from benchmarks.replay import WORKS
from tornado_ws import engine

_FIGURES = Path(__file__).parent / "instructions.json"
_SLACK = 1.10
_TIMEOUT = 600


class Count(NamedTuple):
    engine: str
    work: str
    instructions: float


def interpreter() -> str:
    """Return what a figure holds for."""
    version = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{version}, {platform.python_compiler()}, {platform.machine()}"


def count_work(valgrind: str, engine_name: str, work: str) -> Count:
    """Return the instructions that one message costs: those of twice as many less those of as many."""
    messages = WORKS[work]
    once, twice = (_count(valgrind, engine_name, work, factor * messages) for factor in (1, 2))
    return Count(engine_name, work, round((twice - once) / messages, 1))


def _count(valgrind: str, engine_name: str, work: str, messages: int) -> int:
    said = _replay([valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null"], engine_name, work, messages)
    collected = re.search(r"Collected : (\d+)", said)
    if collected is None:
        raise SystemExit(f"valgrind did not say what it counted:\n{said[-2000:]}")
    return int(collected[1])


def _replay(under: list[str], engine_name: str, work: str, messages: int) -> str:
    """Run a work and return what was said on standard error."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment.pop("TORNADO_WS_ENGINE", None)
    if engine_name == "python":
        environment["TORNADO_WS_ENGINE"] = "python"
    command = [*under, sys.executable, "-m", "benchmarks.replay", work, str(messages)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{work} on the {engine_name} engine failed:\n{done.stderr[-2000:]}")
    return done.stderr


def count_all(valgrind: str) -> list[Count]:
    engines = ["python"] if engine.name == "python" else ["python", engine.name]
    jobs = [(name, work) for name in engines for work in WORKS]
    # Whoever runs first compiles the modules, which would be counted.
    for name, work in jobs:
        _replay([], name, work, 64)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: count_work(valgrind, *job), jobs))


def compare(counts: list[Count], committed: dict[str, dict[str, float]]) -> bool:
    """Print a line for each figure; return whether all that can be compared are within the slack."""
    good = True
    for count in counts:
        known = committed.get(count.engine, {}).get(count.work)
        line = f"{count.engine:8} {count.work:10} {count.instructions:12,.1f} instructions each"
        if known is None:
            print(f"{line}, no figure to compare with")
            continue
        ratio = count.instructions / known
        within = ratio <= _SLACK
        good = good and within
        verdict = "within the bar" if within else f"MORE THAN {_SLACK:.2f} x"
        print(f"{line}, committed {known:,.1f}, {ratio:.3f} x, {verdict}")
    return good


def update(counts: list[Count]) -> None:
    figures = json.loads(_FIGURES.read_text()) if _FIGURES.exists() else {}
    entry: dict[str, dict[str, float]] = {}
    for count in counts:
        entry.setdefault(count.engine, {})[count.work] = count.instructions
    figures[interpreter()] = {**figures.get(interpreter(), {}), **entry}
    _FIGURES.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--update", action="store_true", help="make what is counted now the figures to compare with")
    arguments = parser.parse_args()
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("valgrind is missing")
        return 1
    committed = json.loads(_FIGURES.read_text()) if _FIGURES.exists() else {}
    figures = committed.get(interpreter(), {})
    counts = count_all(valgrind)
    good = compare(counts, figures)
    uncounted = set(figures) - {count.engine for count in counts}
    if uncounted:
        print(f"Committed and not counted: the {', '.join(sorted(uncounted))} engine, which this process does not use.")
        # A bar that nobody looks at any more must not look passed, unless it was asked for.
        good = good and os.environ.get("TORNADO_WS_ENGINE") == "python"
    if interpreter() not in committed:
        print(f"{_FIGURES.name} has no figures for {interpreter()}: nothing was compared. --update puts them there.")
    if arguments.update:
        update(counts)
        return 0
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
