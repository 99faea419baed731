"""A handler to be tested: it adds up the numbers that a client sends."""

from __future__ import annotations

from tornado.web import Application

import tornado_ws


class Counter(tornado_ws.WebSocketHandler):
    """Answers each number with the sum so far. Anything else is an error, which closes the connection with 4000."""

    def open(self) -> None:
        self.sum = 0

    async def on_message(self, message: str | bytes) -> None:
        try:
            self.sum += int(message)
        except ValueError:
            self.close(4000, "no number")
        else:
            await self.write_message(str(self.sum))


def make_app() -> Application:
    return Application([("/counter", Counter)], websocket_max_message_size=100)
