"""The same program on `tornado.websocket` and on `tornado_ws`, to show what differs.

Each module but the tests is a program that knows only ``tornado.websocket``, prints one object of JSON and ends.
``python -m tests.against_tornado NAME`` runs one on both and prints a table; `run_both` is the same for tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

_ROOT = Path(__file__).parent.parent.parent
_TIMEOUT = 200


#: The programs, and the argument that each takes.
PROGRAMS = {
    "cancelling": "",
    "dead_peer": "plain|deflate",
    "flood": "QUESTIONS",
    "keepalive": "",
    "lateness": "FLOODS",
    "slow_handler": "",
    "stalled_peer": "MIB|stall",
    "stopping": "",
    "threads": "",
}


class Both(NamedTuple):
    tornado: dict[str, Any]
    ours: dict[str, Any]


def run_both(name: str, *arguments: str) -> Both:
    """Run the program ``name`` of this folder on each of the two; what it printed last is its result."""
    program = ["-m", f"{__name__}.{name}", *arguments]
    return Both(_run(*program), _run("-m", "tornado_ws.run", *program))


def _run(*command: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *command], cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # What a log says of itself is a result too.
    result["stderr"] = done.stderr
    return result
