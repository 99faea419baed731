"""A TestCase of unittest with a server that serves WebSockets."""

from __future__ import annotations

import contextlib
from typing import Any

from tornado.testing import AsyncHTTPTestCase

from tornado_ws import WebSocketClientConnection, close_all
from tornado_ws.testing import expecting
from tornado_ws.testing.serving import END_TIMEOUT, connected


class AsyncWebSocketTestCase(AsyncHTTPTestCase):
    """`.AsyncHTTPTestCase` for WebSockets: override ``get_app``, and mark coroutines with `tornado.testing.gen_test`::

        class EchoTest(AsyncWebSocketTestCase):
            def get_app(self):
                return Application([("/echo", Echo)])

            @gen_test
            async def test_echo(self):
                conn = await self.ws_connect("/echo")
                await conn.write_message("hello")
                await self.expect(conn, "hello")

    What is open when the test has ended is closed.
    """

    expect = staticmethod(expecting.expect)
    expect_close = staticmethod(expecting.expect_close)
    expect_refused = staticmethod(expecting.expect_refused)

    def __init__(self, methodName: str = "runTest") -> None:
        if methodName == "runTest":
            # Pytest makes a case of that name to look at its class; Tornado before 6.4.1 fails where there is none.
            self.runTest = lambda: None
        super().__init__(methodName)

    def setUp(self) -> None:
        super().setUp()
        self._ws_opened = contextlib.AsyncExitStack()

    def tearDown(self) -> None:
        try:
            self.io_loop.run_sync(self._close)
        finally:
            super().tearDown()

    async def _close(self) -> None:
        await self._ws_opened.aclose()
        await close_all(self._app, timeout=END_TIMEOUT)

    def get_ws_url(self, path: str = "/") -> str:
        """Return the ``ws://`` URL of a path, ``wss://`` where ``get_protocol`` returns https."""
        return "ws" + self.get_url(path).removeprefix("http")

    async def ws_connect(self, path: str = "/", **arguments: Any) -> WebSocketClientConnection:
        """Connect to the server.

        :param path: what is asked for, with the query.
        :param arguments: those of `websocket_connect`.
        """
        return await self._ws_opened.enter_async_context(connected(self.get_ws_url(path), **arguments))
