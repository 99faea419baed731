"""Fixtures of the tests of open connections."""

from __future__ import annotations

import logging
import select
import ssl
from typing import NamedTuple

import pytest
import trustme
from tornado.platform.asyncio import AsyncIOLoop

from tests.connection.clock import Clock
from tests.connection.kqueue import imitate_kqueue
from tornado_ws.transport import poller

_LOGGERS = ("tornado.general", "tornado.application", "asyncio")


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
