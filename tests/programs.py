"""Programs that tests run in a Python of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import PATIENCE

ROOT = Path(__file__).parent.parent


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_core() -> int:
    """Return the number of a core that this process may use; 0 where the system does not say."""
    return min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of the tests, with this checkout importable, and ``changes``."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **changes}


def untraced() -> dict[str, str]:
    """Return the environment of the tests for a program of which no coverage is measured.

    Under a tracer what keeps a core busy takes several times as long, and there are unit tests for what it reaches.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def run(
    *arguments: str, cwd: Path | None = None, python: str | Path = sys.executable, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python`` with ``arguments`` in the `environment` with ``changes``."""
    return subprocess.run(
        [python, "-W", "error", *arguments],
        cwd=cwd or ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
