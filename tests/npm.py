"""npm packages that tests run in Node.js."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.needs import CACHE, need, once_a_run

_INSTALL_SECONDS = 90


def installed_package(name: str, version: str) -> Path:
    """Return the ``node_modules`` with the package in it, installed at the first call on this machine."""
    modules = CACHE / "node" / f"{name}-{version}"
    npm = shutil.which("npm")
    need(npm and shutil.which("node"), "Node.js with npm")
    if not modules.exists():
        problem = once_a_run(f"npm-{name}", functools.partial(_install, str(npm), f"{name}@{version}", modules))
        need(not problem, f"the npm package {name} ({problem})")
    return modules


def _install(npm: str, package: str, modules: Path) -> str:
    """Install ``package``; return what is in the way, on one line, and nothing where it is installed."""
    modules.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and moved: another run that installs at the same time, or one that was cut off, does no harm.
    with tempfile.TemporaryDirectory(dir=modules.parent) as scratch:
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", package, "--prefix", scratch]
        try:
            install = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            return f"npm install: not done within {_INSTALL_SECONDS} s"
        if install.returncode != 0:
            # Behind the code are the log file and more that nobody needs here.
            return f"npm install: {' '.join(install.stderr.split())[:100]}"
        try:
            (Path(scratch) / "node_modules").rename(modules)
        except OSError:
            assert modules.exists()  # the other run was first
    return ""
