"""New environments, in which a wheel is installed from a folder and tried with the tests of its source distribution."""

from __future__ import annotations

import shutil
from pathlib import Path

from release.build import call

#: What the tests that are run here import, with the bounds of setup.cfg.
_TESTED_WITH = ("hypothesis", "pytest>=8,<9.2", "pytest-timeout", "pytest-tornado", "setuptools<82", "trustme")
#: Enough to see that what is installed works: the workflow runs more.
_TESTS = ("tests/engine/test_frames.py", "tests/transport/test_loops.py", "--cases=3")
_OF_NATIVE = ("tests/engine/test_engine.py", "tests/engine/test_subinterpreters.py")


class Environment:
    """A virtual environment of ``python`` in the folder ``work``."""

    def __init__(self, work: Path, python: str) -> None:
        self._folder = work
        call(python, "-m", "venv", work / "venv")
        self.python = work / "venv" / "bin" / "python"

    def install(self, *what: str | Path) -> None:
        call(self.python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *what)

    def try_out(self, unpacked: Path, engine: str) -> str:
        """Run tests of an unpacked source distribution on what is installed; returns the last line of each program."""
        # Beside the tests there is no package that they could import instead.
        for name in ("setup.cfg", "tests"):
            copy = shutil.copytree if (unpacked / name).is_dir() else shutil.copy
            copy(unpacked / name, self._folder / name)
        self.install(*_TESTED_WITH)
        said = call(self.python, "-m", "tests.installed", engine, cwd=self._folder)
        tests = (*_TESTS, *(_OF_NATIVE if engine == "native" else ()))
        tested = call(self.python, "-m", "pytest", "-q", *tests, cwd=self._folder, TORNADO_WS_NOTHING_SKIPPED="1")
        return f"{said.splitlines()[-1]}: {tested.splitlines()[-1]}"
