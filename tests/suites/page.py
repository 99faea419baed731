"""What was recorded of packages, as docs/compatibility.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from tests.suites import CHECKOUT, Suite
from tests.suites.comparing import Comparison, Pair

PAGE = CHECKOUT / "docs" / "compatibility.md"
_RECORDED = Path(__file__).with_name("recorded.json")


class Record(TypedDict):
    """What came of the tests of one package; versions of what they ran on."""

    date: str
    version: str
    python: str
    tornado: str
    tornado_ws: str
    engine: str
    compared: Comparison


#: By the name of the package.
Records = dict[str, Record]


def read_records() -> Records:
    return cast(Records, json.loads(_RECORDED.read_text(encoding="utf-8"))) if _RECORDED.exists() else {}


def write_records(records: Records) -> None:
    _RECORDED.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def unexplained(suites: Mapping[str, Suite], records: Records) -> list[str]:
    """Return a line for each test that differs without a reason, and for each reason without such a test."""
    lines = []
    for name, record in records.items():
        differing, reasons = record["compared"]["differing"].keys(), suites[name].reasons.keys()
        lines += [f"{name}: packages.ini does not say why {test} differs" for test in sorted(differing - reasons)]
        lines += [
            f"{name}: packages.ini says why {test} differs, which it does not" for test in sorted(reasons - differing)
        ]
    return lines


def page(suites: Mapping[str, Suite], records: Records) -> str:
    """Return the text of `PAGE`, with the packages in the order of ``suites``."""
    recorded = [(suites[name], records[name]) for name in suites if name in records]
    lines = [
        "# The tests of packages that use tornado.websocket",
        "",
        "<!-- Written by `python -m tests.suites`: run it again instead of editing this page. -->",
        "",
        "Each package was installed from a package index into a virtual environment of its own, in its newest version",
        "and with the newest that it needs. Those of its own tests that are about WebSockets ran with Tornado's",
        "module, and again with `python -m tornado_ws.run -m pytest`, which has `install()` put tornado_ws in its",
        "place. The outcomes are compared test by test. Where one differed, all ran up to three times, to tell a",
        "difference from chance: an unsteady test had several outcomes with a module, and one of these with the other.",
        "",
        "```sh",
        "python -m tests.suites",
        "```",
        "",
        "does it again, with a package index at hand; `python -m tests.suites terminado` does it for one package.",
        "The releases of Bokeh, Distributed and Streamlit hold no tests of WebSockets that could be run.",
        "",
        "| package | version | tests | passed with both | failed with both | skipped with both | unsteady | differ |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_row(suite, record) for suite, record in recorded),
        "",
        "What they ran on, and the arguments of pytest in the folder of the package's source distribution:",
        "",
        "| package | arguments | run on | CPython | Tornado | tornado_ws |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_conditions(suite, record) for suite, record in recorded),
    ]
    lines += _tests("Tests that differ", [(suite, record["compared"]["differing"]) for suite, record in recorded])
    lines += _tests("Unsteady tests", [(suite, record["compared"]["unsteady"]) for suite, record in recorded])
    return "\n".join(lines) + "\n"


def _row(suite: Suite, record: Record) -> str:
    compared = record["compared"]
    equal, others = compared["equal"], (len(compared["unsteady"]), len(compared["differing"]))
    counts = (sum(equal.values()) + sum(others), *map(equal.get, ("passed", "failed", "skipped"), (0, 0, 0)), *others)
    return f"| {suite.name} | {record['version']} | {' | '.join(map(str, counts))} |"


def _conditions(suite: Suite, record: Record) -> str:
    ours = f"{record['tornado_ws']}, {record['engine']} engine"
    versions = (record["date"], record["python"], record["tornado"], ours)
    return f"| {suite.name} | `{' '.join(suite.tests)}` | {' | '.join(versions)} |"


def _tests(title: str, found: list[tuple[Suite, dict[str, Pair]]]) -> list[str]:
    rows = [
        f"| {suite.name} | `{test}` | {', '.join(pair['tornado'])} | {', '.join(pair['tornado_ws'])} "
        f"| {suite.reasons.get(test, '')} |"
        for suite, tests in found
        for test, pair in tests.items()
    ]
    head = ["", f"## {title}", "", "| package | test | Tornado | tornado_ws | why |", "| --- | --- | --- | --- | --- |"]
    return head + rows if rows else []
