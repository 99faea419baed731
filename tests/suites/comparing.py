"""What the same tests gave with Tornado's module and with ours, in one round or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypedDict

#: By test.
Outcomes = Mapping[str, str]
#: Rounds that a test with two outcomes is given, to tell a difference from chance.
ROUNDS = 3


class Pair(TypedDict):
    """The outcomes of a test in each round, without repetition."""

    tornado: list[str]
    tornado_ws: list[str]


class Comparison(TypedDict):
    #: How many tests had one outcome throughout, by outcome.
    equal: dict[str, int]
    #: Those that had several with one module, and one of them with the other too.
    unsteady: dict[str, Pair]
    #: Those that had no outcome with one module that they had with the other.
    differing: dict[str, Pair]


def compare(rounds: Iterable[tuple[Outcomes, Outcomes]]) -> Comparison:
    """Compare the outcomes with Tornado's module, which are the first of each round, and those with ours.

    A test that one run lacks is ``missing`` there.
    """
    rounds = list(rounds)
    compared = Comparison(equal={}, unsteady={}, differing={})
    for test in sorted({test for pair in rounds for outcomes in pair for test in outcomes}):
        tornado, ours = (sorted({pair[which].get(test, "missing") for pair in rounds}) for which in (0, 1))
        if tornado == ours and len(ours) == 1:
            compared["equal"][ours[0]] = compared["equal"].get(ours[0], 0) + 1
        else:
            kind = compared["unsteady" if set(tornado) & set(ours) else "differing"]
            kind[test] = Pair(tornado=tornado, tornado_ws=ours)
    return compared


def compare_runs(run_both: Callable[[], tuple[Outcomes, Outcomes]]) -> Comparison:
    """Call ``run_both`` once, and up to `ROUNDS` times while a test differs."""
    rounds = [run_both()]
    while (compared := compare(rounds))["differing"] and len(rounds) < ROUNDS:
        rounds.append(run_both())
    return compared
