from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.engine.wire import ENGINES, Engine, Peer
from tornado_ws.deflate import backends, codec
from tornado_ws.deflate.streams import StreamPool

#: ``pytest tests/engine --hypothesis-profile=thorough`` after a change of an engine.
settings.register_profile("thorough", max_examples=5000, deadline=None)
#: ``make test-fast``
settings.register_profile("fast", max_examples=5, deadline=None)


@pytest.fixture
def leaves_nothing_behind() -> None:
    """In the place of the one above: no task and no socket here, and collecting would take most of the run."""


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


@pytest.fixture(scope="module", params=["native", "by module"])
def streams(request: pytest.FixtureRequest) -> Iterator[str]:
    """Streams of deflate by the native engine, for the libraries that it knows, and by objects of Python modules."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(codec, "_pool", StreamPool())
        if request.param == "by module":
            patches.setattr(backends, "library_of", lambda backend: None)
        yield request.param
