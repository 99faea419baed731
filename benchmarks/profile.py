"""Where a server's time goes in one row: ``python -m benchmarks.profile ROW-ID SERVER``. Needs Linux's perf.

Samples the server's clock while the load runs and prints the share of each library, the kernel among them, and the
functions and system calls that take most.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.kinds import FIGURES
from benchmarks.measure import measure
from benchmarks.measured import Setup
from benchmarks.peers import SERVERS
from benchmarks.rows import ROWS
from benchmarks.tools import make_tools

_KINDS = ("echo", "churn", "broadcast", "all-to-all", "cluster", "receive")
_VIEWS = (
    ("by library", ["--no-children", "--sort", "dso", "--percent-limit", "0.5"]),
    ("by function", ["--no-children", "--sort", "dso,symbol", "--percent-limit", "1.5"]),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=[row.id for row in ROWS if row.kind in _KINDS])
    parser.add_argument("server", choices=[server.name for server in SERVERS])
    parser.add_argument("--seconds", type=float, default=3.0)
    chosen = parser.parse_args()
    perf = shutil.which("perf")
    if perf is None:
        print("perf is missing: it comes with the packages of the kernel (linux-perf)", file=sys.stderr)
        return 1
    row = next(row for row in ROWS if row.id == chosen.row)
    server = next(server for server in SERVERS if server.name == chosen.server)
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory:
        data = str(Path(directory) / "perf.data")
        setup = Setup(make_tools(Path(directory), [server]), cores[-1], cores[0], 0.5, chosen.seconds)
        # The core is the server's alone. A second and a half is for its start and the connections.
        record = [perf, "record", "-q", "-e", "cpu-clock", "-F", "2000", "-g", "-o", data, "-C", str(cores[-1])]
        record += ["--delay", "1500", "sleep", str(chosen.seconds + 1)]
        with subprocess.Popen(record, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sampling:
            figures = measure(row, server, setup).figures
            sampling.wait()
        print(f"{row.label}, {server.name}: {figures['cpu_us']:.2f} {FIGURES[row.kind][1]}")
        for name, options in _VIEWS:
            report = [perf, "report", "-i", data, "-g", "none", "--stdio", *options]
            done = subprocess.run(report, capture_output=True, text=True, check=True)
            lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]
            print(f"\n{name}", *lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
