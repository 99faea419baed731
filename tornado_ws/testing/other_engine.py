"""A test with the engine that this process does not have: in a pytest of its own, with nothing but that test."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest

#: Those that there are.
NAMES = ("native", "python")

#: What a pytest hands to what it starts, and is not for another pytest.
_OWN = ("PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID")


def run_in_child(item: Any, name: str) -> None:
    """Have ``item`` run by a pytest with the engine ``name``; it is skipped where there is no such engine."""
    # No fixture is made here.
    item.setup = lambda: None
    item.runtest = lambda: _run(item, name)


def _run(item: pytest.Item, name: str) -> None:
    if name == "native" and importlib.util.find_spec("tornado_ws.engine._native") is None:
        pytest.skip("the native engine is not built here")
    config = item.config
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", f"--rootdir={config.rootpath}"]
    if config.inipath is not None:
        command += ["-c", str(config.inipath)]
    for plugin in config.option.plugins:
        command += ["-p", plugin]
    # Those would run it elsewhere, or write over what this pytest measures.
    command += ["-n0"] * config.pluginmanager.hasplugin("xdist")
    command += ["--no-cov"] * config.pluginmanager.hasplugin("_cov")
    environment = {key: value for key, value in os.environ.items() if key not in (*_OWN, "TORNADO_WS_ENGINE")}
    if name == "python":
        environment["TORNADO_WS_ENGINE"] = name
    run = subprocess.run(
        [*command, item.nodeid], cwd=config.rootpath, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode:
        pytest.fail(f"with the engine {name!r}:\n{run.stdout}{run.stderr}", pytrace=False)
