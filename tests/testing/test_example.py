"""The tests of the example, as their reader would run them."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.needs import has_native_engine
from tests.programs import ROOT, run

COUNTER = ROOT / "examples" / "testing"

#: `tornado.testing.gen_test` gives a coroutine 5 seconds.
PATIENT = {"ASYNC_TEST_TIMEOUT": "60"}


def test_the_example_passes_with_pytest_and_with_unittest(tmp_path: Path) -> None:
    # Not below the setup.cfg of tornado_ws, which has settings of pytest.
    project = shutil.copytree(COUNTER, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    plugins = ("-p", "pytest_asyncio.plugin", "-p", "anyio.pytest_plugin", "-p", "no:cacheprovider")
    outcome = run(
        "-m", "pytest", "-q", *plugins, cwd=project, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", ASYNC_TEST_TIMEOUT="60"
    )
    # One of them runs with both engines.
    expected = "12 passed" if has_native_engine() else "11 passed, 1 skipped"
    assert expected in outcome.stdout, outcome.stdout + outcome.stderr
    outcome = run("-m", "unittest", "-q", "test_counter_case", cwd=project, **PATIENT)
    assert outcome.stderr.rstrip().endswith("OK"), outcome.stderr
