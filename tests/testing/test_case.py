"""The TestCase of unittest, as unittest runs it."""

from __future__ import annotations

import ssl
import unittest
from typing import Any

import pytest
from tornado import testing
from tornado.testing import gen_test
from tornado.web import Application

from tests.peer import Recording
from tests.support import PATIENCE, Echo
from tornado_ws import WebSocketClientConnection, websocket_connect
from tornado_ws.testing import AsyncWebSocketTestCase

calls: list[Any] = []


class EchoTest(AsyncWebSocketTestCase):
    def get_app(self) -> Application:
        return Application([("/echo", Recording, {"calls": calls}), ("/other", Echo)])

    @gen_test(timeout=PATIENCE)
    async def test_messages_and_ends(self) -> None:
        conn = await self.ws_connect("/echo?x=1", subprotocols=["a"])
        await conn.write_message("x")
        await self.expect(conn, "x")
        conn.close(4000)
        await self.expect_close(conn, 4000)
        with pytest.raises(AssertionError, match="expected text 'y'; got the end of the connection"):
            await self.expect(conn, "y")
        await self.expect_refused(self.ws_connect("/nowhere"), 404)

    def test_http_beside_it(self) -> None:
        assert self.fetch("/echo").code == 400
        assert self.get_ws_url() == f"ws://127.0.0.1:{self.get_http_port()}/"


class LeavingOpen(AsyncWebSocketTestCase):
    left: list[WebSocketClientConnection]

    def get_app(self) -> Application:
        return Application([("/", Recording, {"calls": calls})])

    @gen_test(timeout=PATIENCE)
    async def test_leave_open(self) -> None:
        type(self).left = [await self.ws_connect(), await websocket_connect(self.get_ws_url())]


class OverTls(AsyncWebSocketTestCase, testing.AsyncHTTPSTestCase):
    def get_app(self) -> Application:
        return Application([("/", Echo)])

    @gen_test(timeout=PATIENCE)
    async def test_over_tls(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        conn = await self.ws_connect(ssl_options=context)
        await conn.write_message("secret")
        await self.expect(conn, "secret")


def outcome_of(case: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert not result.errors
    assert not result.failures
    return result


def test_what_is_open_at_the_end_is_closed() -> None:
    calls.clear()
    assert outcome_of(LeavingOpen).testsRun == 1
    assert [conn.close_code for conn in LeavingOpen.left] == [None, 1001]
    assert all(conn.stream.closed() for conn in LeavingOpen.left)
    assert calls == ["open", "open", ("close", None, None), ("close", 1001, None)]
