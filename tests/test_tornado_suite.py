"""The installed Tornado's own tests of ``tornado.websocket``, with ``tornado_ws`` in its place.

They run in a process of their own, by Tornado's own runner (see ``tests/tornado_suite/run.py``), and each of
them is a test here. On Tornado 6.6 nothing is excused. On an older one a test may fail if it asserts what a
later Tornado took back, and stands in `TAKEN_BACK` for that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import tornado

from tests.needs import need
from tests.tornado_suite.run import Report

pytestmark = pytest.mark.xdist_group("tornado_suite")

RUN_INSTALLED = [sys.executable, "-m", "tornado_ws.run", "-m", "tests.tornado_suite.run"]
ROOT = Path(__file__).parent.parent

#: What Tornado's runner asks for beside its tests: nothing logged, and nothing written to stderr.
QUIET_RUN = "a quiet run"


class TakenBack(NamedTuple):
    by: tuple[int, int]
    release_note: str


TAKEN_BACK = {
    "WebSocketTest.test_websocket_callbacks": TakenBack(
        (6, 5), "6.5.0: The callback argument to websocket_connect is deprecated"
    ),
    QUIET_RUN: TakenBack((6, 4), "6.4.0: Unclosed client connections now reliably log a warning"),
}


def excuse_for(test_id: str) -> TakenBack | None:
    excuse = TAKEN_BACK.get(test_id)
    return excuse if excuse and tornado.version_info[:2] < excuse.by else None


def collected() -> list[str]:
    listing = subprocess.run([*RUN_INSTALLED, "--list"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    if listing.returncode:
        raise RuntimeError(f"Tornado's own tests cannot be listed:\n{listing.stderr}")
    return cast("list[str]", json.loads(listing.stdout))


TEST_IDS = collected()


#: Some of Tornado's tests give what they wait for 50 ms. A machine that has much else to do may miss that once.
ATTEMPTS = 3


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    for _ in range(ATTEMPTS):
        found = run_suite(tmp_path_factory.mktemp("tornado_suite") / "report.json")
        failed = [name for name, outcome in found["outcomes"].items() if outcome["status"] == "failed"]
        if all(excuse_for(name) for name in failed):
            break
    return found


def run_suite(path: Path) -> Report:
    command = [*RUN_INSTALLED, "--report", str(path)]
    # Tornado gives each of its tests 5 seconds, unless this says otherwise.
    environment = {**os.environ, "ASYNC_TEST_TIMEOUT": "60"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert path.exists(), f"Tornado's runner did not reach its end:\n{run.stdout}{run.stderr}"
    return cast(Report, json.loads(path.read_text()))


@pytest.mark.parametrize("test_id", TEST_IDS)
def test_tornados_own_test_passes(report: Report, test_id: str) -> None:
    outcome = report["outcomes"][test_id]
    if outcome["status"] == "skipped":
        need(False, f"what Tornado's {test_id} wants ({outcome['detail']})")
    if outcome["status"] != "passed":
        if excuse := excuse_for(test_id):
            pytest.xfail(f"taken back by {excuse.release_note}")
        pytest.fail(f"{outcome['status']} on Tornado {report['tornado']}\n{outcome['detail']}", pytrace=False)


def test_it_was_tornado_ws_that_was_tested(report: Report) -> None:
    assert report["tested"].partition(".")[0] == "tornado_ws"


def test_every_collected_test_ran_and_nothing_else_failed(report: Report) -> None:
    assert report["strays"] == {}
    assert len(report["outcomes"]) == len(TEST_IDS) > 40


def test_the_run_is_quiet(report: Report) -> None:
    if report["complaint"]:
        if excuse := excuse_for(QUIET_RUN):
            pytest.xfail(f"taken back by {excuse.release_note}")
        pytest.fail(report["output"], pytrace=False)


def test_the_runner_agrees(report: Report) -> None:
    failed = any(outcome["status"] == "failed" for outcome in report["outcomes"].values())
    assert bool(report["exit_code"]) == bool(failed or report["complaint"] or report["strays"]), report["output"]


@pytest.mark.parametrize("test_id", sorted(set(TAKEN_BACK) - {QUIET_RUN}))
def test_what_was_taken_back_is_a_test_of_tornado(test_id: str) -> None:
    assert test_id in TEST_IDS
