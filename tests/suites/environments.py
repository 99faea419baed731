"""Virtual environments with a package and tornado_ws, and the package's source distribution."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from release.build import call, unpack
from tests.suites import CHECKOUT, Suite

_PIP = ("-m", "pip", "--disable-pip-version-check")


def build_wheel(cache: Path) -> Path:
    """Return a wheel of the checkout, in ``cache``."""
    folder = cache / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    call(sys.executable, *_PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, CHECKOUT)
    return next(folder.glob("*.whl"))


class Environment:
    """That of one package, with the newest version of it and of all that it needs."""

    def __init__(self, suite: Suite, cache: Path, wheel: Path) -> None:
        self._folder = cache / suite.name
        shutil.rmtree(self._folder, ignore_errors=True)
        call(sys.executable, "-m", "venv", self._folder / "venv")
        self.python = self._folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        call(self.python, *_PIP, "install", "--quiet", *suite.requirements, wheel)
        program = f"from importlib.metadata import version; print(version({suite.name!r}), version('tornado_ws'))"
        #: Of the package, and of tornado_ws.
        self.version, self.version_of_ours = call(self.python, "-c", program).split()

    def fetch_sdist(self, name: str) -> Path:
        """Return the folder of the package's source distribution, of the version that is installed."""
        wanted = ("--no-deps", "--no-binary", name, f"{name}=={self.version}")
        call(self.python, *_PIP, "download", "--quiet", "--dest", self._folder / "sdist", *wanted)
        return unpack(next((self._folder / "sdist").glob("*.tar.gz")), self._folder)
