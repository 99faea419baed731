"""The table of what the RFCs require: each requirement has a test, and the page says what the markers say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import conformance
from tests.conformance import CHECKOUT, Citation, Requirement

KEPT = Requirement("6455-5.1-client-masks", "client", "MUST", "masks", "kept", "it does")
DEVIATES = KEPT._replace(name="6455-9.1-malformed", kind="deviates", text="declined")
FOREIGN = KEPT._replace(name="6455-5.4-intermediary", kind="not applicable", text="we are none")
TEST = Citation("tests/test_x.py", "test_masks")


def test_each_requirement_has_a_test_and_the_page_is_up_to_date() -> None:
    command = [sys.executable, "-m", "tests.conformance", "--check"]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_requirement_without_a_test_is_a_problem_unless_it_does_not_apply() -> None:
    assert conformance.problems([KEPT, DEVIATES, FOREIGN], {}) == [
        "6455-5.1-client-masks has no test",
        "6455-9.1-malformed has no test",
    ]
    assert conformance.problems([KEPT, DEVIATES, FOREIGN], {KEPT.name: [TEST], DEVIATES.name: [TEST]}) == []


@pytest.mark.parametrize(("name", "says"), [("6455-5.1-no", "does not have"), (FOREIGN.name, "is not applicable")])
def test_a_marker_of_what_is_no_requirement_of_ours_is_a_problem(name: str, says: str) -> None:
    (problem,) = conformance.problems([FOREIGN], {name: [TEST]})
    assert problem.startswith(f"tests/test_x.py::test_masks is marked with {name}, which ")
    assert problem.endswith(says)


GOOD = {"who": "both", "level": "MUST", "rule": "masks", "kept": "it does"}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("6455-5.1-x", {"who": "proxy"}),
        ("6455-5.1-x", {"level": "MAY"}),
        ("6455-5.1-x", {"rule": ""}),
        ("6455-5.1-x", {"kept": ""}),
        ("6455-5.1-x", {"deviates": "and keeps"}),
        ("6455-5.1-x", {"where": "everywhere"}),
        ("6455-x", {}),
        ("2616-1-x", {}),
    ],
)
def test_a_requirement_that_is_not_well_formed_is_an_error_that_names_it(
    tmp_path: Path, name: str, changes: dict[str, str]
) -> None:
    path = tmp_path / "requirements.ini"
    for fields in (GOOD, {**GOOD, **changes}):
        title = "6455-5.1-x" if fields is GOOD else name
        path.write_text(f"[{title}]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items()))
        if fields is GOOD:
            assert [requirement.kind for requirement in conformance.load(path)] == ["kept"]
            continue
        with pytest.raises(ValueError, match=name):
            conformance.load(path)


def test_the_page_names_what_each_requirement_is_and_which_cases_of_a_test_show_it() -> None:
    cases = [TEST._replace(test="test_table", case=f"case {number}") for number in range(5)]
    text = conformance.page([KEPT, DEVIATES, FOREIGN], {KEPT.name: [TEST, *cases]})
    assert (
        "| 5.1 | client | MUST | masks | it does | [`test_masks`](../tests/test_x.py)<br>"
        "[`test_table`](../tests/test_x.py) (case 0; case 1; case 2 and 2 more) |\n"
    ) in text
    assert "| 9.1 | client | MUST | masks | **deviates**: declined |  |\n" in text
    assert "| RFC 6455 | 1 | 1 | 1 |\n" in text
