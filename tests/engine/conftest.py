from __future__ import annotations

import pytest

from tests.engine.reading import ENGINES, Engine, Peer


@pytest.fixture(scope="session", params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.param
    return found


@pytest.fixture(scope="session", params=[True, False], ids=["from a client", "from a server"])
def peer(request: pytest.FixtureRequest, engine: Engine) -> Peer:
    return Peer(engine, is_client=request.param)


@pytest.fixture(scope="session")
def client(engine: Engine) -> Peer:
    return Peer(engine, is_client=True)


@pytest.fixture(scope="session")
def server(engine: Engine) -> Peer:
    return Peer(engine, is_client=False)
