"""A program of ``examples/``, started as its reader starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import tornado_ws
from tests.browser.devtools import wait_for
from tests.programs import ROOT
from tests.support import PATIENCE


class Example:
    """Runs ``examples/SCRIPT``, which prints its address; ``scratch`` gets what it writes."""

    def __init__(self, scratch: Path, script: str, *arguments: str) -> None:
        self.stdout = scratch / "example.out"
        self.stderr = scratch / "example.err"
        # From its own folder it finds only an installed tornado_ws; it has to be the one under test.
        path = [str(Path(tornado_ws.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "examples" / script), *arguments],
                cwd=ROOT,  # where coverage looks for its settings
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
                stdout=out,
                stderr=err,
            )
        try:
            self.url = wait_for(self._address, f"the address of {script}")
        except AssertionError:
            self.process.terminate()
            self.process.wait(PATIENCE)
            raise

    def _address(self) -> str:
        assert self.process.poll() is None, f"it ended:\n{self.stderr.read_text()}"
        line, newline, rest = self.stdout.read_text().partition("\n")
        assert not rest
        return line if newline else ""

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        try:
            status = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
        log = self.stderr.read_text()
        assert status == 0, log
        assert "Traceback" not in log, log
