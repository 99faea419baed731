"""A Redis or Valkey server for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pubsub.redis_server import KINDS, RedisServer, started


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def redis_server(tmp_path: Path, kind: str) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, kind=kind)
    with started(server):
        yield server
