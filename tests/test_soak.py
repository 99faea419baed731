"""A short run of `make soak`: numbered messages, and connections that end in every way."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from soak.checks import Failures, Receiver
from soak.plans import CONNECTS, ENDS, LOAD, TO_CLIENT, TO_SERVER, plan_of

#: Enough for each way to end.
CONNECTIONS, CONNECTS_THAT_END = 200, 600

if sys.platform != "linux":
    pytest.skip("the soak asks /proc what a process holds", allow_module_level=True)


def test_nothing_is_lost_doubled_reordered_or_left() -> None:
    # A failure says the seed. No time limit of its own: the programme gives up where nothing happens any more.
    command = [sys.executable, "-m", "soak", "--seed", f"{random.getrandbits(32):x}"]
    sizes = ["--connections", str(CONNECTIONS), "--connects", str(CONNECTS_THAT_END)]
    done = subprocess.run([*command, *sizes], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_short_run_has_each_end() -> None:
    plans = [plan_of("any", CONNECTS, number) for number in range(2 * CONNECTS_THAT_END)]
    assert {(plan.pair, plan.end) for plan in plans} == {(pair, end) for pair, ends in ENDS.items() for end in ends}


def test_messages_that_are_lost_doubled_or_reordered_are_seen() -> None:
    plan = next(plan for number in range(1000) if (plan := plan_of("any", LOAD, number)).least(TO_SERVER) == 8)
    messages = [plan.message(TO_SERVER, number) for number in range(8)]
    for received in (
        messages[:-1],
        messages[1:],
        [messages[0], *messages],
        [*messages[:6], messages[7], messages[6]],
        [*messages, messages[7]],
    ):
        failures = Failures()
        receiver = Receiver(plan, TO_SERVER, failures)
        for message in received:
            receiver.take(message)
        receiver.end()
        assert failures.count, received
    failures = Failures()
    receiver = Receiver(plan, TO_SERVER, failures)
    for message in messages:
        receiver.take(message)
    receiver.end()
    assert not failures.count
    assert plan.message(TO_CLIENT, 0) != messages[0]
