"""A part of the faults, chosen by a seed; ``make faults`` has them all."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS
from tests.faults.shim import Swept, sweep
from tornado_ws import engine

#: Another seed chooses others. Printed where something breaks.
SEED = int(os.environ.get("FAULTS_SEED", "1"))
#: Faults for each scenario.
_MOST = 8
#: And of allocations, of which there are more; `make faults` has all.
_MOST_ALLOCATIONS = 40
_SCENARIOS_OF_ALLOCATIONS = (
    "server-violation",
    "server-coroutines",
    "server-read-ahead",
    "server-parts",
    "server-parts-deflate",
    "client-small-tls-deflate",
)


if engine.name == "native":

    @pytest.mark.parametrize("scenario", _SCENARIOS_OF_ALLOCATIONS)
    def test_an_allocation_of_native_code_that_fails_ends_one_connection_at_most(scenario: str, library: Path) -> None:
        swept = sweep(library, scenario, "--functions", "alloc", "--most", str(_MOST_ALLOCATIONS))
        _check(swept, f"{scenario} --functions alloc")
        assert f"{_MOST_ALLOCATIONS} faults broke nothing" in swept.output


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_call_that_fails_ends_one_connection_at_most(scenario: str, library: Path) -> None:
    seed = SEED + random.Random(scenario).randrange(1 << 20)
    swept = sweep(library, scenario, "--seed", str(seed), "--most", str(_MOST))
    _check(swept, f"{scenario} --seed {seed}")


def _check(swept: Swept, arguments: str) -> None:
    assert swept.broken is None, f"python -m tests.faults {arguments}\n{swept.output}"
