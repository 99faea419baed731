"""Which of the suite's 517 cases a run asks for, by their exact ids.

The suite is asked for its ids and our selections are made here: its own patterns are unanchored prefixes, so that
``12.1.1`` with a star in it also means 12.1.10, and an id that it does not know ends it with a KeyError.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Collection, Sequence

from tests.autobahn.wstest import Wstest, environment27

#: What 25.10.1 holds. A suite that lists fewer would make a gate that passes by not asking.
TOTAL = 517

#: Informational for every implementation: the suite overwrites its own verdict on these three.
INFORMATIONAL = frozenset({"7.1.6", "7.13.1", "7.13.2"})

#: Cases with windows of half a second to two seconds, and little work for the processor.
TIMED_GROUPS = frozenset({1, 2, 3, 4, 5, 6, 7, 10})

#: 16 B, 256 B, 4 KiB, and 8 KiB in fragments of 256 B: of each kind of compression case.
SAMPLE = frozenset(
    f"{group}.{kind}.{size}"
    for group, kinds in ((12, range(1, 6)), (13, range(1, 8)))
    for kind in kinds
    for size in (1, 3, 5, 11)
)

_LIST_IDS = """\
import json, sys
from autobahntestsuite import case
from autobahntestsuite.caseset import CaseSet
known = CaseSet(case.CaseSetname, case.CaseBasename, case.Cases, case.CaseCategories, case.CaseSubCategories)
json.dump(known.parseSpecCases({"cases": ["*"]}), sys.stdout)
"""


class SelectionError(ValueError):
    """A selection that means no case, or a suite whose cases are not those that this gate was made for."""


def group_of(case: str) -> int:
    return int(case.split(".", 1)[0])


def in_order(cases: Collection[str]) -> list[str]:
    """The order in which the suite runs them, and counts them for ``runCase?case=N``."""
    return sorted(cases, key=lambda case: [int(part) for part in case.split(".")])


def all_cases(wstest: Wstest) -> list[str]:
    """Every case id that the suite itself knows."""
    with tempfile.TemporaryDirectory() as empty:
        listed = subprocess.run(
            [wstest.python, "-c", _LIST_IDS],
            env=environment27(),
            cwd=empty,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        ).stdout
    known = [str(case) for case in json.loads(listed)]
    if len(set(known)) != TOTAL:
        raise SelectionError(f"the suite lists {len(set(known))} cases, not {TOTAL}")
    return in_order(known)


def time_allowed(cases: Collection[str]) -> float:
    """Seconds after which a run of ``cases`` is stuck: several times what Tornado takes for them."""
    each = {9: 10.0, 12: 30.0, 13: 30.0}
    return 60.0 + sum(each.get(group_of(case), 4.0) for case in cases)


SELECTIONS: dict[str, Callable[[str], bool]] = {
    "fast": lambda case: group_of(case) in TIMED_GROUPS,
    "ci": lambda case: group_of(case) <= 10 or case in SAMPLE,
    "all": lambda case: True,
}


def select(selection: str, known: Sequence[str]) -> list[str]:
    """The ids that ``selection`` means: ``fast``, ``ci``, ``all``, or ids and whole groups with commas between."""
    if chosen := SELECTIONS.get(selection):
        cases = [case for case in known if chosen(case)]
        if selection == "ci" and not SAMPLE.issubset(cases):
            raise SelectionError(f"the suite lacks {', '.join(in_order(SAMPLE.difference(cases)))}")
        return in_order(cases)
    cases = []
    for wanted in selection.split(","):
        found = [case for case in known if case == wanted or case.startswith(wanted + ".")]
        if not found:
            raise SelectionError(f"{wanted!r} is no case, no group of cases and none of {', '.join(SELECTIONS)}")
        cases += found
    return in_order(set(cases))
