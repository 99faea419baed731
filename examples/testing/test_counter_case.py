"""With unittest: ``python -m unittest`` in this folder."""

from __future__ import annotations

import unittest

from counter import make_app
from tornado.testing import gen_test
from tornado.web import Application

from tornado_ws.testing import AsyncWebSocketTestCase


class CounterTest(AsyncWebSocketTestCase):
    def get_app(self) -> Application:
        return make_app()

    @gen_test
    async def test_numbers_are_added(self) -> None:
        conn = await self.ws_connect("/counter")
        await conn.write_message("7")
        await self.expect(conn, "7")

    @gen_test
    async def test_a_message_that_is_too_big(self) -> None:
        conn = await self.ws_connect("/counter")
        await conn.write_message("1" * 101)
        await self.expect_close(conn, 1009)


if __name__ == "__main__":
    unittest.main()
