"""What every test is held to."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator

import pytest
from tornado.platform.asyncio import AsyncIOLoop


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", type=int, help="run so many cases of each test at most: a few, spread over all")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    most = config.getoption("cases")
    if most is None:
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {case for all_of_one in cases.values() for case in all_of_one[:: -(-len(all_of_one) // most)]}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def pytest_collection_finish() -> None:
    """Take what was imported out of the collector's sight, or collecting after each test takes most of the run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves a task pending, an exception unseen or a socket open.

    Python tells of each when the object is collected, so that is done here, while it is known whose it was. For a
    socket that is a ResourceWarning, which setup.cfg makes an error.
    """
    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    yield
    gc.collect()
    logger.removeHandler(complaints)
    if complaints.texts:
        pytest.fail("left behind:\n" + "\n".join(complaints.texts), pytrace=False)


@pytest.fixture
def io_loop(leaves_nothing_behind: None) -> Iterator[AsyncIOLoop]:
    """In the place of pytest-tornado's, which warns on CPython 3.12 and closes what a test forgot to."""
    loop = AsyncIOLoop(make_current=False)
    asyncio.set_event_loop(loop.asyncio_loop)
    yield loop
    loop.run_sync(_let_go)
    asyncio.set_event_loop(None)
    loop.close()


async def _let_go() -> None:
    """Give what was closed at the end of a test the few turns of the loop that it takes to be gone."""
    for _ in range(10):
        await asyncio.sleep(0)
