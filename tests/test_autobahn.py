"""The Autobahn test suite against the server and both clients; `make autobahn` runs all of its cases."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.autobahn.cases import SAMPLE, SelectionError, all_cases, select
from tests.autobahn.judge import SIDES, Outcome, failures, judge, summary
from tests.autobahn.run import parts_of, run_parts
from tests.autobahn.wstest import Wstest, ensure_wstest, find_python27
from tests.needs import need
from tests.programs import cores

pytestmark = pytest.mark.xdist_group("autobahn")

KNOWN = ["1.1.1", "6.4.1", "6.4.2", "6.40.1", "7.1.6", "9.1.1", "10.1.1", "12.1.1", "12.1.2", "12.1.10", *SAMPLE]


@pytest.fixture(scope="module")
def wstest() -> Wstest:
    python27 = find_python27()
    need(python27, "CPython 2.7 with pip, which the Autobahn suite runs on,")
    assert python27 is not None
    return ensure_wstest(python27)


@pytest.fixture(scope="module")
def outcomes(wstest: Wstest) -> list[Outcome]:
    """What all sides did in one run: one after the other they would take twice as long."""
    cases = select("ci", all_cases(wstest))
    parts = [part for side in SIDES for part in parts_of(side, cases)]
    reports = Path(tempfile.mkdtemp(prefix="tornado-ws-autobahn-"))
    outcomes = asyncio.run(run_parts(wstest, parts, reports, cores()))
    # What a failure tells names the suite's own report, which has all that went over the wire.
    if all(outcome.passed for outcome in outcomes):
        shutil.rmtree(reports)
    return outcomes


# The first one waits for the run, and for wstest to be built where there is none yet.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("side", SIDES)
def test_every_case_is_ok(outcomes: list[Outcome], side: str) -> None:
    of_side = [outcome for outcome in outcomes if outcome.side == side]
    assert sum(len(outcome.verdicts) for outcome in of_side) == 247 + 54 + len(SAMPLE)
    if said := failures(of_side):
        pytest.fail(said, pytrace=False)


class TestSelection:
    @pytest.mark.parametrize(
        ("selection", "meant"),
        [
            ("12.1.1", ["12.1.1"]),
            ("6.4", ["6.4.1", "6.4.2"]),
            ("1,10", ["1.1.1", "10.1.1"]),
            ("7.1.6,6.4.2,6.4", ["6.4.1", "6.4.2", "7.1.6"]),
        ],
    )
    def test_means_whole_numbers(self, selection: str, meant: list[str]) -> None:
        assert select(selection, KNOWN) == meant

    @pytest.mark.parametrize("selection", ["", "8", "6.4.3", "6.", "*", "fats", "6.4,11"])
    def test_refuses_what_means_no_case(self, selection: str) -> None:
        with pytest.raises(SelectionError):
            select(selection, KNOWN)

    def test_ci_holds_the_sample_and_no_more_of_12_and_13(self) -> None:
        assert len(SAMPLE) == 48
        chosen = select("ci", KNOWN)
        assert {case for case in chosen if case.startswith(("12.", "13."))} == SAMPLE
        assert "9.1.1" in chosen

    def test_ci_misses_what_the_suite_does_not_list(self) -> None:
        with pytest.raises(SelectionError, match=r"lacks 13\.7\.11"):
            select("ci", [case for case in KNOWN if case != "13.7.11"])


class TestVerdicts:
    def report(self, directory: Path, **standings: tuple[str, str]) -> None:
        index = {}
        for case, (behavior, closing) in standings.items():
            name = f"us_case_{case[1:]}.json"
            index[case[1:].replace("_", ".")] = {
                "behavior": behavior,
                "behaviorClose": closing,
                "reportfile": name,
            }
            detail = {
                "description": "Send <b>something</b>",
                "result": "Nothing came",
                "started": "2026-01-02T03:04:05.678Z",
                "remoteCloseCode": 1002,
            }
            (directory / name).write_text(json.dumps(detail))
        (directory / "index.json").write_text(json.dumps({"us": index}))

    @pytest.mark.parametrize(
        ("case", "behavior", "closing", "passed"),
        [
            ("3.1", "OK", "OK", True),
            ("3.1", "NON-STRICT", "OK", False),
            ("3.1", "OK", "WRONG CODE", False),
            ("3.1", "OK", "INFORMATIONAL", False),
            ("3.1", "INFORMATIONAL", "INFORMATIONAL", False),
            ("3.1", "UNIMPLEMENTED", "OK", False),
            ("7.1.6", "INFORMATIONAL", "INFORMATIONAL", True),
            ("7.13.2", "INFORMATIONAL", "FAILED", False),
        ],
    )
    def test_are_strict(self, tmp_path: Path, case: str, behavior: str, closing: str, passed: bool) -> None:
        self.report(tmp_path, **{f"_{case.replace('.', '_')}": (behavior, closing)})
        outcome = Outcome("server", judge("server", "us", [case], tmp_path))
        assert outcome.passed is passed
        assert bool(failures([outcome])) is not passed

    def test_tell_what_was_sent_and_what_came(self, tmp_path: Path) -> None:
        self.report(tmp_path, _3_1=("FAILED", "OK"))
        said = failures([Outcome("client", judge("client", "us", ["3.1"], tmp_path))])
        for told in ("client 3.1", "FAILED", "Send something", "Nothing came", "1002", "us_case_3_1.json"):
            assert told in said

    def test_are_on_what_was_asked_for(self, tmp_path: Path) -> None:
        self.report(tmp_path, _3_1=("OK", "OK"), _3_2=("FAILED", "FAILED"))
        asked, missing = judge("server", "us", ["3.1", "3.3"], tmp_path)
        assert asked.passed
        assert not missing.passed
        assert "not in the suite's report:\n    3.3" in failures([Outcome("server", [asked, missing])])

    def test_are_on_the_agent_that_ran(self, tmp_path: Path) -> None:
        self.report(tmp_path, _3_1=("OK", "OK"))
        assert not judge("server", "them", ["3.1"], tmp_path)[0].passed

    @pytest.mark.parametrize("text", [None, "", "{", '{"us": {"3.1":'])
    def test_need_a_whole_report(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "index.json").write_text(text)
        assert not judge("server", "us", ["3.1"], tmp_path)[0].passed

    def test_do_not_outweigh_a_run_that_went_wrong(self, tmp_path: Path) -> None:
        self.report(tmp_path, _3_1=("OK", "OK"))
        outcome = Outcome("server", judge("server", "us", ["3.1"], tmp_path), ["the echo server ended by itself"])
        assert not outcome.passed
        assert "ended by itself" in failures([outcome])

    def test_make_a_page_of_the_documentation(self, tmp_path: Path) -> None:
        self.report(tmp_path, _3_1=("OK", "OK"), _7_1_6=("INFORMATIONAL", "INFORMATIONAL"), _6_4_1=("NON-STRICT", "OK"))
        cases = ["3.1", "6.4.1", "7.1.6"]
        page = summary([Outcome("server", judge("server", "us", cases, tmp_path))], {"tornado": "6.2"})
        for told in (
            "| server | 1 | 1 | 1 |",
            "| server | 6.4.1 | NON-STRICT | OK |",
            "| tornado | 6.2 |",
            "2026-01-02",
        ):
            assert told in page
