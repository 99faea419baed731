"""What a machine may lack: said in one line and skipped, or a failure where nothing may be skipped."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

#: Set by ``.ci/run``: a missing tool is then a failed test instead of a skipped one.
NOTHING_SKIPPED = "TORNADO_WS_NOTHING_SKIPPED"


#: What the workers of a run share, and no other run has.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())

#: Where tests keep what takes long to make, from run to run.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tornado_ws"


def once_a_run(name: str, attempt: Callable[[], str]) -> str:
    """Return what ``attempt`` returns: it is called once in a run, by the worker that comes first."""
    # Windows has none, and runs other tests that need this module.
    import fcntl

    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.tried").open("a+") as tried:
        fcntl.flock(tried, fcntl.LOCK_EX)
        tried.seek(0)
        run, _, outcome = tried.read().partition("\n")
        if run != _RUN:
            outcome = attempt()
            tried.truncate(0)
            tried.write(f"{_RUN}\n{outcome}")
        return outcome


def need(found: object, what: str) -> None:
    """Skip the calling test (or fail it in CI) unless ``found`` is true; ``what`` names the tool."""
    if found:
        return
    if os.environ.get(NOTHING_SKIPPED):
        pytest.fail(f"{what} is missing and {NOTHING_SKIPPED} is set", pytrace=False)
    pytest.skip(f"{what} is missing on this machine")


def has_native_engine() -> bool:
    """Whether it was built here; that does not say that this process uses it."""
    return importlib.util.find_spec("tornado_ws.engine._native") is not None


def need_native_engine() -> None:
    need(has_native_engine(), "the native engine")


def need_compiler() -> str:
    """Return a C compiler that can build a module of Python's."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    need(compiler and (Path(sysconfig.get_path("include")) / "Python.h").exists(), "a C compiler with Python's headers")
    return str(compiler)
