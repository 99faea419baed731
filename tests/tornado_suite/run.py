"""Run Tornado's own websocket tests, by Tornado's own runner, and write what became of each as JSON.

The program knows nothing of ``tornado_ws``: ``python -m tornado_ws.run -m tests.tornado_suite.run`` puts it
under test, and without ``tornado_ws.run`` the same program shows how Tornado's module fares.

``tornado.test.runtests`` sets the terms, as it does when Tornado tests itself: warnings are errors, and a run
that logs anything or writes to stderr has failed even where every test passed.

With ``TESTED_HTTP_SERVER=tornado_ws`` in the environment the tests have the server of ``tornado_ws``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import re
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import tornado

SUITE = "tornado.test.websocket_test"


class Outcome(TypedDict):
    status: str
    detail: str


class Report(TypedDict):
    tornado: str
    tested: str
    exit_code: int
    output: str
    complaint: str
    outcomes: dict[str, Outcome]
    strays: dict[str, str]


def each_test(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from each_test(item)
        elif type(item).__module__ == SUITE:
            # Not the abstract bases, which Tornado wraps in a class of its tornado.test.util.
            yield item


def short_id(test: unittest.TestCase) -> str:
    return test.id().removeprefix(f"{SUITE}.")


def listed() -> list[str]:
    return [short_id(test) for test in each_test(unittest.defaultTestLoader.loadTestsFromName(SUITE))]


def outcomes_of(ids: list[str], result: unittest.TestResult) -> tuple[dict[str, Outcome], dict[str, str]]:
    """What became of each listed test, and what else failed, such as a ``setUpClass``."""
    outcomes = {test_id: Outcome(status="passed", detail="") for test_id in ids}
    strays: dict[str, str] = {}
    for status, pairs in (
        ("failed", result.failures),
        ("failed", result.errors),
        ("skipped", result.skipped),
        ("expected to fail", result.expectedFailures),
    ):
        for test, detail in pairs:
            test_id = short_id(getattr(test, "test_case", test))
            if test_id not in outcomes:
                strays[test_id] = detail
            elif outcomes[test_id]["status"] == "passed":
                outcomes[test_id] = Outcome(status=status, detail=detail)
    for test in result.unexpectedSuccesses:
        outcomes[short_id(test)] = Outcome(status="failed", detail="expected to fail, and passed")
    if result.testsRun != len(ids):
        strays["the count of tests"] = f"{len(ids)} were collected and {result.testsRun} ran"
    return outcomes, strays


def run_suite() -> Report:
    # Its functions have no annotations.
    runtests: Any = importlib.import_module("tornado.test.runtests")
    ids = listed()
    results: list[unittest.TestResult] = []
    make_runner = runtests.test_runner_factory
    if os.environ.get("TESTED_HTTP_SERVER") == "tornado_ws":
        testing: Any = importlib.import_module("tornado.testing")
        testing.HTTPServer = importlib.import_module("tornado_ws").HTTPServer

    def recording(stderr: object) -> Any:
        class Runner(make_runner(stderr)):  # type: ignore[misc]
            def run(self, test: unittest.TestSuite) -> unittest.TestResult:
                result: unittest.TestResult = super().run(test)
                results.append(result)
                return result

        return Runner

    runtests.test_runner_factory = recording
    sys.argv = [sys.argv[0], SUITE]
    output = io.StringIO()
    exit_code = 0
    with contextlib.redirect_stderr(output):
        try:
            runtests.main()
        except SystemExit as stop:
            exit_code = int(stop.code or 0)
    outcomes, strays = outcomes_of(ids, results[0])
    complaint = re.search(r"logged \d+ infos, .* to stderr", output.getvalue())
    return Report(
        tornado=tornado.version,
        tested=sys.modules["tornado.websocket"].WebSocketHandler.__module__,
        exit_code=exit_code,
        output=output.getvalue(),
        complaint=complaint.group() if complaint else "",
        outcomes=outcomes,
        strays=strays,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the ids of the tests and run none")
    parser.add_argument("--report", type=Path, help="where to write what became of each test, as JSON")
    options = parser.parse_args()
    if options.list:
        print(json.dumps(listed()))
        return 0
    report = run_suite()
    sys.stderr.write(report["output"])
    if options.report:
        options.report.write_text(json.dumps(report, indent=1))
    return report["exit_code"]


if __name__ == "__main__":
    raise SystemExit(main())
