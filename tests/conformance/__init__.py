"""What RFC 6455 and RFC 7692 require, and which test shows that it is kept.

The requirements stand in ``requirements.ini``. A test that asserts one is marked with its name,
``@pytest.mark.rfc("6455-5.1-client-masks")``; a case of a parametrized test by ``pytest.param(..., marks=...)``. The
page is made from both, so it cannot cite a test that is not there.
"""

from __future__ import annotations

import configparser
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).absolute().parents[2]
PAGE = CHECKOUT / "docs" / "conformance.md"
REQUIREMENTS = Path(__file__).with_name("requirements.ini")

WHO = ("client", "server", "both", "other")
LEVELS = ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT")
#: How a requirement stands: we keep it, we do something else for a reason, or it does not bind us for a reason.
KINDS = ("kept", "deviates", "not applicable")

_TITLES = {"6455": "RFC 6455, the WebSocket protocol", "7692": "RFC 7692, permessage-deflate"}
_MANY_CASES = 3


class Requirement(NamedTuple):
    #: ``RFC-SECTION-NAME``.
    name: str
    who: str
    level: str
    rule: str
    #: One of `KINDS`, and its text: what we do, or the reason.
    kind: str
    text: str

    @property
    def rfc(self) -> str:
        return self.name.split("-")[0]

    @property
    def section(self) -> str:
        return self.name.split("-")[1]


class Citation(NamedTuple):
    """A test that asserts a requirement."""

    file: str
    test: str
    #: The case of a parametrized test, where that alone is marked.
    case: str | None = None


#: By the name of the requirement, in the order of collection.
Citations = Mapping[str, list[Citation]]


def load(path: Path = REQUIREMENTS) -> list[Requirement]:
    """Read the requirements; raises ValueError for one that is not well formed."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, default_section="")
    with path.open(encoding="utf-8") as file:
        parser.read_file(file)
    return [_requirement(name, parser[name]) for name in parser.sections()]


def _requirement(name: str, fields: Mapping[str, str]) -> Requirement:
    kinds = [kind for kind in KINDS if kind in fields]
    unknown = set(fields) - {"who", "level", "rule", *KINDS}
    if unknown or len(kinds) != 1:
        raise ValueError(f"{name}: has {', '.join(fields)}; wanted are who, level, rule and one of {', '.join(KINDS)}")
    found = Requirement(name, fields["who"], fields["level"], fields["rule"], kinds[0], fields[kinds[0]])
    if found.who not in WHO or found.level not in LEVELS or not found.rule or not found.text:
        raise ValueError(f"{name}: {found.who}, {found.level}; allowed are {', '.join(WHO)} and {', '.join(LEVELS)}")
    if name.count("-") < 2 or found.rfc not in _TITLES:
        raise ValueError(f"{name}: is no name of the form RFC-SECTION-NAME, of RFC {' or '.join(_TITLES)}")
    return found


def problems(requirements: Iterable[Requirement], cited: Citations) -> list[str]:
    """What is wrong, one line each: a requirement without a test, and a test of what is no requirement of ours."""
    found = []
    kinds = {requirement.name: requirement.kind for requirement in requirements}
    for name, kind in kinds.items():
        if kind != "not applicable" and not cited.get(name):
            found.append(f"{name} has no test")
    for name, tests in cited.items():
        where = f"{tests[0].file}::{tests[0].test} is marked with {name}"
        if name not in kinds:
            found.append(f"{where}, which {REQUIREMENTS.name} does not have")
        elif kinds[name] == "not applicable":
            found.append(f"{where}, which is not applicable")
    return found


def page(requirements: list[Requirement], cited: Citations) -> str:
    """Return the page of docs/ in Markdown."""
    lines = [
        "# Conformance",
        "",
        "<!-- Written by `python -m tests.conformance`: run it again instead of editing this page. -->",
        "",
        "Every MUST and MUST NOT of RFC 6455 and RFC 7692, and the SHOULDs that can be tested: whom it binds, the",
        "RFC's word for it, what has to hold, what tornado_ws does, and the tests that show it. The tests run over",
        "both engines. The requirements stand in `tests/conformance/requirements.ini`, in our words; the RFC decides.",
        "`tests/test_conformance.py` fails where one has no test.",
        "",
        "| | kept | deviates | not applicable |",
        "|---|---:|---:|---:|",
    ]
    for rfc in _TITLES:
        kinds = [requirement.kind for requirement in requirements if requirement.rfc == rfc]
        lines.append(f"| RFC {rfc} | " + " | ".join(str(kinds.count(kind)) for kind in KINDS) + " |")
    for rfc, of_rfc in itertools.groupby(requirements, lambda requirement: requirement.rfc):
        lines += ["", f"## {_TITLES[rfc]}", ""]
        lines += ["| section | who | | requirement | here | tests |", "|---|---|---|---|---|---|"]
        lines += [_row(requirement, cited.get(requirement.name, [])) for requirement in of_rfc]
    return "\n".join(lines) + "\n"


def _row(requirement: Requirement, tests: list[Citation]) -> str:
    here = requirement.text if requirement.kind == "kept" else f"**{requirement.kind}**: {requirement.text}"
    cells = [requirement.section, requirement.who, requirement.level, requirement.rule, here, _cited(tests)]
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _cited(tests: list[Citation]) -> str:
    links = []
    for (file, test), of_test in itertools.groupby(tests, lambda citation: citation[:2]):
        cases = [citation.case for citation in of_test if citation.case is not None]
        link = f"[`{test}`](../{file})"
        if cases:
            more = f" and {len(cases) - _MANY_CASES} more" if len(cases) > _MANY_CASES else ""
            link += f" ({'; '.join(cases[:_MANY_CASES])}{more})"
        links.append(link)
    return "<br>".join(links)
