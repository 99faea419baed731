"""What every test is held to."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import select
import ssl
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import trustme
from hypothesis import HealthCheck, settings
from tornado.platform.asyncio import AsyncIOLoop

from tests.clock import Clock
from tests.kqueue import imitate_kqueue
from tests.programs import cores
from tornado_ws.deflate import backends, codec
from tornado_ws.deflate.streams import StreamPool
from tornado_ws.transport import poller

pytest_plugins = ["tornado_ws.testing.plugin"]

# No example has a time limit: other processes may be busy, and the first text of all takes Hypothesis a while.
settings.register_profile("usual", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("usual")
#: ``pytest tests/engine --hypothesis-profile=thorough`` after a change of an engine.
settings.register_profile("thorough", max_examples=5000)
#: ``make test-fast``
settings.register_profile("fast", max_examples=5)

#: Counts tests.
_numbers = itertools.count()

_LOGGERS = ("tornado.general", "tornado.application", "asyncio")


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have one more worker than cores: many tests wait, for time to pass, for a browser or for other programs."""
    return cores() + 1


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say each reason for skipped tests once. Pytest says it for each place, and one missing tool may have many."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"SKIPPED [{count}] {reason.removeprefix('Skipped: ')}")


def pytest_collection_finish() -> None:
    """Take what was imported out of the collector's sight, or collecting after each test takes most of the run."""
    gc.collect()
    gc.freeze()


#: Where there is no task and no socket, and collecting would take most of the run.
_WITHOUT_A_LOOP = ("tests.engine", "tests.deflate")


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a task pending, an exception unseen or a socket open.

    Python tells of each when the object is collected, so that is done here, while it is known whose it was. For a
    socket that is a ResourceWarning, which setup.cfg makes an error.
    """
    if request.module.__name__.startswith(_WITHOUT_A_LOOP):
        yield
        return
    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    if next(_numbers) % 100 == 0:
        # Pytest keeps something of each test, until looking through that takes longer than the tests do. Not frozen is
        # what the test before left behind: that is found here.
        gc.collect()
        gc.freeze()
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


class Log:
    """What was logged for the eyes of whoever runs the server, lines about single HTTP requests apart."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def records(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.name in _LOGGERS]

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def only(self) -> logging.LogRecord:
        """Return the only record, which may have no traceback."""
        assert len(self.records) == 1, self.lines
        assert not self.records[0].exc_info
        return self.records[0]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    for name in _LOGGERS:
        caplog.set_level(logging.DEBUG, name)
    return Log(caplog)


@pytest.fixture
def clock(io_loop: AsyncIOLoop) -> Clock:
    """For tests with ``gen_test(timeout=FOREVER)``, or the time that passes ends them."""
    return Clock(io_loop.asyncio_loop)


class Tls(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def tls() -> Tls:
    """Contexts that trust each other, for localhost and 127.0.0.1."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client)


#: Those that gather what is ready.
NESTED_POLLERS = ["EpollPoller", "KqueuePoller"]


@pytest.fixture(params=[*NESTED_POLLERS, "LoopPoller"])
def each_poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "KqueuePoller" and not hasattr(select, "kqueue"):
        imitate_kqueue(monkeypatch)
    monkeypatch.setattr(poller, "_make_poller", getattr(poller, request.param))
    return str(request.param)


@pytest.fixture(scope="module", params=["native", "by module"])
def streams(request: pytest.FixtureRequest) -> Iterator[str]:
    """Streams of deflate by the native engine, for the libraries that it knows, and by objects of Python modules."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(codec, "_pool", StreamPool())
        if request.param == "by module":
            patches.setattr(backends, "library_of", lambda backend: None)
        yield request.param
