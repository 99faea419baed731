"""A plugin of pytest: what became of each test, and whose ``WebSocketHandler`` was tested, as JSON.

It is loaded by ``-p outcomes_plugin`` in the environments of `tests.suites`, and imports nothing of this repository.
The file is the one that ``OUTCOMES`` in the environment names.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

_outcomes: dict[str, str] = {}


def _take(nodeid: str, outcome: str) -> None:
    # A test of an installed package has a name that says where that is installed.
    name = nodeid.rpartition("site-packages/")[2]
    if _outcomes.get(name) != "failed" and (outcome != "passed" or name not in _outcomes):
        _outcomes[name] = outcome


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.outcome != "passed":
        _take(report.nodeid, report.outcome)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _take(report.nodeid, report.outcome)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    module = sys.modules.get("tornado.websocket")
    ours = sys.modules.get("tornado_ws")
    found = {
        "tested": module.WebSocketHandler.__module__ if module else None,
        "engine": ours.engine.name if ours else None,
        "tornado": version("tornado"),
        "outcomes": _outcomes,
    }
    Path(os.environ["OUTCOMES"]).write_text(json.dumps(found), encoding="utf-8")
