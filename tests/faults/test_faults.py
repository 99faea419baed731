"""A part of the faults, chosen by a seed; ``make faults`` has them all."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS
from tests.faults.shim import build, missing, sweep
from tests.needs import need

#: Another seed chooses others. Printed where something breaks.
SEED = int(os.environ.get("FAULTS_SEED", "1"))
#: Faults for each scenario.
_MOST = 8
#: And of allocations, of which there are more; `make faults` has all.
_MOST_ALLOCATIONS = 40


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lack = missing()
    need(lack is None, lack or "")
    return build(tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize("scenario", ["server-violation", "server-coroutines", "client-small-tls-deflate"])
def test_an_allocation_of_native_code_that_fails_ends_one_connection_at_most(scenario: str, library: Path) -> None:
    result = sweep(library, scenario, "--functions", "alloc", "--most", str(_MOST_ALLOCATIONS))
    _check(result, f"{scenario} --functions alloc")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_call_that_fails_ends_one_connection_at_most(scenario: str, library: Path) -> None:
    seed = SEED + random.Random(scenario).randrange(1 << 20)
    result = sweep(library, scenario, "--seed", str(seed), "--most", str(_MOST), "--first")
    _check(result, f"{scenario} --seed {seed}")


def _check(result: subprocess.CompletedProcess[str], arguments: str) -> None:
    assert result.returncode == 0, f"python -m tests.faults {arguments}\n{result.stdout}{result.stderr}"
