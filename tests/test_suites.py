"""`tests.suites`: what runs the tests of a package twice, what compares them, and the page that is made of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.programs import ROOT
from tests.suites import Suite, load
from tests.suites.comparing import ROUNDS, Comparison, Outcomes, Pair, compare, compare_runs
from tests.suites.page import PAGE, Record, page, read_records, unexplained
from tests.suites.running import run

#: Tests that pass with both modules, with neither, with one of them, and none of these.
_PROJECT = """
import pytest
from tornado.websocket import WebSocketHandler

is_ours = WebSocketHandler.__module__.startswith("tornado_ws.")

def test_passes(): pass
def test_fails(): assert False
def test_is_skipped(): pytest.skip("as it is")
def test_wants_tornado(): assert not is_ours
def test_wants_ours(): assert is_ours

@pytest.fixture
def broken(): yield; assert not is_ours
def test_with_a_fixture(broken): pass
"""


def _run(folder: Path, *, installed: bool) -> Outcomes:
    found = run(Path(sys.executable), folder, ["-q"], installed=installed, path=[ROOT])
    assert found["engine"] == (sys.modules["tornado_ws"].engine.name if installed else None)
    return {test.removeprefix("test_project.py::"): outcome for test, outcome in found["outcomes"].items()}


def test_a_project_is_run_with_both_modules_and_compared(tmp_path: Path) -> None:
    (tmp_path / "test_project.py").write_text(_PROJECT)
    compared = compare([(_run(tmp_path, installed=False), _run(tmp_path, installed=True))])
    assert compared["equal"] == {"failed": 1, "passed": 1, "skipped": 1}
    assert compared["unsteady"] == {}
    assert compared["differing"] == {
        "test_wants_ours": Pair(tornado=["failed"], tornado_ws=["passed"]),
        "test_wants_tornado": Pair(tornado=["passed"], tornado_ws=["failed"]),
        "test_with_a_fixture": Pair(tornado=["passed"], tornado_ws=["failed"]),
    }


@pytest.mark.parametrize(
    ("text", "says"), [("def test(): pass", "has tested None, not tornado.websocket"), ("", "ran no test")]
)
def test_a_run_that_shows_nothing_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "test_project.py").write_text(text)
    with pytest.raises(RuntimeError, match=says):
        _run(tmp_path, installed=False)


def test_a_module_that_cannot_be_imported_has_failed(tmp_path: Path) -> None:
    (tmp_path / "test_project.py").write_text("import tornado.websocket, undefined")
    assert _run(tmp_path, installed=True) == {"test_project.py": "failed"}


def test_a_test_that_has_both_outcomes_by_chance_is_no_difference() -> None:
    rounds: list[tuple[Outcomes, Outcomes]] = [
        ({"a": "passed", "b": "passed"}, {"a": "failed", "b": "failed"}),
        ({"a": "passed", "b": "passed"}, {"a": "passed", "b": "failed"}),
        ({"a": "passed", "b": "passed"}, {"a": "passed"}),
        ({}, {}),
    ]
    left = list(rounds)
    compared = compare_runs(lambda: left.pop(0))
    assert len(rounds) - len(left) == ROUNDS
    assert compared["unsteady"] == {"a": Pair(tornado=["passed"], tornado_ws=["failed", "passed"])}
    assert compared["differing"] == {"b": Pair(tornado=["passed"], tornado_ws=["failed", "missing"])}
    left = [rounds[-1], rounds[0]]
    assert compare_runs(lambda: left.pop(0))["differing"] == {}
    assert left == [rounds[0]]


def _record(**differing: Pair) -> Record:
    return Record(
        date="2026-01-02",
        version="3.4",
        python="3.11.7",
        tornado="6.6.1",
        tornado_ws="1.0.0",
        engine="native",
        compared=Comparison(equal={"passed": 5, "failed": 1}, unsteady={}, differing=differing),
    )


def test_the_page_says_what_differs_and_why() -> None:
    suite = Suite("package", ("package[test]",), ("--pyargs", "package.tests"), {"test_b": "it asks for a bug"})
    records = {"package": _record(test_b=Pair(tornado=["passed"], tornado_ws=["failed"]))}
    text = page({"package": suite}, records)
    assert "| package | 3.4 | 7 | 5 | 1 | 0 | 0 | 1 |\n" in text
    assert "| package | `--pyargs package.tests` | 2026-01-02 | 3.11.7 | 6.6.1 | 1.0.0, native engine |\n" in text
    assert "| package | `test_b` | passed | failed | it asks for a bug |\n" in text
    assert unexplained({"package": suite}, records) == []
    assert unexplained({"package": suite}, {"package": _record()}) == [
        "package: packages.ini says why test_b differs, which it does not"
    ]
    assert unexplained({"package": suite._replace(reasons={})}, records) == [
        "package: packages.ini does not say why test_b differs"
    ]


def test_the_page_is_what_was_recorded_and_every_difference_has_a_reason() -> None:
    suites, records = load(), read_records()
    assert records.keys() == suites.keys()
    assert PAGE.read_text(encoding="utf-8") == page(suites, records), "run python -m tests.suites --page"
    assert unexplained(suites, records) == []


@pytest.mark.parametrize("fields", ["requirements = a", "tests = a", "requirements = a\ntests = b\nreasons = c"])
def test_a_package_that_is_not_whole_is_an_error_that_names_it(tmp_path: Path, fields: str) -> None:
    path = tmp_path / "packages.ini"
    path.write_text(f"[some_package]\n{fields}\n")
    with pytest.raises(ValueError, match="some_package"):
        load(path)
