"""Subinterpreters: a process has the native engine once, and the others use the pure one."""

from __future__ import annotations

import subprocess
import sys

from tests.needs import need
from tests.programs import environment
from tornado_ws import engine

PROGRAM = """
import sys
from tornado_ws import engine

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

print(engine.name, flush=True)
for kind in [{"isolated": True}, {"isolated": False}]:
    if interpreters.__name__ == "_interpreters":
        other = interpreters.create("isolated" if kind["isolated"] else "legacy")
    else:
        other = interpreters.create(**kind)
    failed = interpreters.run_string(other, "from tornado_ws import engine as e; print(e.name, e.reason, flush=True)")
    assert failed is None, failed
    interpreters.destroy(other)
"""


def test_a_subinterpreter_uses_the_pure_engine_and_says_why() -> None:
    need(engine.name == "native", "the native engine")
    # Some versions of Python warn of what tells interpreters apart.
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first == "native"
    assert len(others) == 2
    assert all(other.startswith("python the native one cannot be imported: ") for other in others), others
