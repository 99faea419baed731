"""``kill -9`` of a process with 1,000 clients: all of them go on at another one, which asks the broker nothing."""

from __future__ import annotations

import pytest

from tests.pubsub.killing import ROOMS, kill_and_resume
from tests.pubsub.redis_server import RedisServer


@pytest.mark.gen_test
async def test_1000_clients_of_a_process_that_is_killed_resume_at_another(redis_server: RedisServer) -> None:
    outcome = await kill_and_resume(redis_server)
    assert outcome[2:7] == (0, 0, 0, 0, 0), outcome
    assert outcome.clients == 1000
    assert outcome.messages % 1000 == 0
    assert outcome.messages // 1000 > ROOMS
