"""A program of faults that finds one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import __main__ as faults
from tests.faults.shim import Fault, Swept, environment
from tests.support import PATIENCE

#: Its third fault breaks something, and leaves a task that nobody can end.
_PROGRAM = """
import asyncio
from tests.faults import sweep

async def stay():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

class Breaking(sweep.Shim):
    planned = 0

    def plan(self, fault):
        super().plan(fault)
        self.planned += fault is not None
        if self.planned == 3:
            self.task = asyncio.ensure_future(stay())
            raise RuntimeError("broken")

sweep.Shim = Breaking
sweep.main()
"""


def test_the_first_fault_that_breaks_something_ends_the_program(library: Path, tmp_path: Path) -> None:
    now = tmp_path / "now"
    command = [sys.executable, "-c", _PROGRAM, "server-small", "--functions", "recv", "--now", str(now)]
    result = subprocess.run(
        command, env=environment(library), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    third = str(Fault("recv", "ECONNRESET", 1, 1))
    assert result.stdout == f"{third}\n    RuntimeError('broken')\n", result.stderr
    assert result.returncode == 1
    assert now.read_text() == third


def test_the_faults_behind_one_that_breaks_something_are_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = [Swept("first", "recv, call 1: EINTR"), Swept("second", "recv, call 7: EINTR"), Swept("others", None)]
    called: list[tuple[str, ...]] = []

    def sweep(library: Any, *arguments: str) -> Swept:
        called.append(arguments)
        return swept[len(called) - 1]

    monkeypatch.setattr(faults, "missing", lambda: None)
    monkeypatch.setattr(faults, "build", lambda folder: folder)
    monkeypatch.setattr(faults, "sweep", sweep)
    monkeypatch.setattr(sys, "argv", ["tests.faults", "server-small", "--seed", "7"])
    with pytest.raises(SystemExit, match="broken: server-small"):
        faults.main()
    begin = ("server-small", "--seed", "7")
    assert called == [begin, (*begin, "--after", swept[0].broken), (*begin, "--after", swept[1].broken)]
    assert capsys.readouterr().out == "server-small with seed 7\nfirst\nsecond\nothers\n"
