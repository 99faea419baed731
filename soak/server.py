"""The process of our server."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application

from soak.checks import Receiver
from soak.plans import RAW_SERVER, TO_CLIENT, TO_SERVER, Plan
from soak.process import BACKLOG, HOSTS, NEVER, Part, run
from tornado_ws import WebSocketClosedError, WebSocketHandler


class Numbered(WebSocketHandler):
    """Does the server's side of the plan whose number is the path."""

    plan: Plan

    def initialize(self, part: Server) -> None:
        self.part = part
        self.sent = 0
        self.pushing: asyncio.Task[None] | None = None
        self.is_closing_down = False

    def prepare(self) -> None:
        self.plan = self.part.plan(int(self.request.path[1:]))
        self.receiver = Receiver(self.plan, TO_SERVER, self.part.failures)

    def get_compression_options(self) -> dict[str, Any] | None:
        return self.plan.compression

    def check_origin(self, origin: str) -> bool:
        return self.plan.end != "refused"

    @property
    def websocket_close_timeout(self) -> float:
        return 0.1 if self.plan.end == "no answer" else NEVER

    @property
    def websocket_keepalive_timeout(self) -> float:
        return 0.1 if self.plan.end == "no pong" else NEVER

    @property
    def ping_interval(self) -> float | None:
        return 0.1 if self.plan.end == "no pong" else 2 if self.plan.number % 4 == 0 else None

    def open(self) -> None:
        self.part.opened(self.plan)
        if self.plan.streams and self.plan.awaits:
            self.pushing = asyncio.ensure_future(self._push())
        elif self.plan.streams:
            for _ in range(self.plan.messages):
                self._send()
        self._end_if_done()

    async def _push(self) -> None:
        try:
            for _ in range(self.plan.messages):
                await self._send()
        except (WebSocketClosedError, StreamClosedError):
            return
        self._end_if_done()

    def _send(self) -> Any:
        message = self.plan.message(TO_CLIENT, self.sent)
        self.sent += 1
        if self.sent % 3 == 0:
            self.ping(b"%d" % self.sent)
        return self.write_message(message, binary=isinstance(message, bytes))

    def _end_if_done(self) -> None:
        plan = self.plan
        ends = plan.end in ("close by server", "no answer", "close by server at once")
        if not ends or self.is_closing_down or self.sent < plan.last:
            return
        if plan.end == "close by server at once" or self.receiver.count == plan.messages:
            self.is_closing_down = True
            self.close(plan.code, plan.reason or None)

    def on_message(self, message: str | bytes) -> Any:
        self.part.progress += 1
        self.receiver.take(message)
        if self.plan.awaits:
            return self._answer_later()
        if not self.plan.streams and self.sent < self.plan.last:
            # The client's end may have come before, while its messages wait to be handed out.
            with contextlib.suppress(WebSocketClosedError):
                self._send()
        self._end_if_done()
        return None

    async def _answer_later(self) -> None:
        await asyncio.sleep(0.001 * (self.plan.number % 3))
        try:
            if not self.plan.streams and self.sent < self.plan.last:
                await self._send()
        except (WebSocketClosedError, StreamClosedError):
            return
        self._end_if_done()

    def on_close(self) -> None:
        if self.pushing is not None:
            self.pushing.cancel()
        self.receiver.end()
        if self.close_code != self.plan.seen_code:
            self.part.failures.add(self.plan, f"the server's close_code is {self.close_code} ({self.close_reason})")
        elif self.plan.tells_reason("server") and self.close_reason != self.plan.reason:
            self.part.failures.add(self.plan, f"the server's close_reason is {self.close_reason!r}")
        self.part.closed(self.plan)


class Server(Part):
    opens: collections.Counter[int]
    closes: collections.Counter[int]

    async def do_listen(self) -> dict[str, list[tuple[str, int]]]:
        application = Application(
            [("/[0-9]+", Numbered, {"part": self})], log_function=lambda handler: None, websocket_ping_timeout=0
        )
        addresses = {}
        for kind, ssl_options in (("ws", None), ("wss", self.server_context())):
            server = HTTPServer(application, ssl_options=ssl_options)
            sockets = [sock for host in HOSTS for sock in bind_sockets(0, host, backlog=BACKLOG)]
            server.add_sockets(sockets)
            addresses[kind] = [sock.getsockname() for sock in sockets]
        return addresses

    async def do_begin(self, phase: str) -> None:
        self.phase = phase
        self.opens = collections.Counter()
        self.closes = collections.Counter()

    def opened(self, plan: Plan) -> None:
        self.opens[plan.number] += 1
        self.progress += 1

    def closed(self, plan: Plan) -> None:
        self.closes[plan.number] += 1
        self.progress += 1

    async def do_end(self, first: int, last: int) -> None:
        """Return when each connection has ended."""
        due = collections.Counter(
            number for number in range(first, last) if (plan := self.plan(number)).pair != RAW_SERVER and plan.opens
        )
        await self.waits_in_vain(lambda: self.closes.total() >= due.total())
        for what, counts in (("opened", self.opens), ("closed", self.closes)):
            if counts == due:
                continue
            for number in {*counts, *due}:
                if counts[number] != due[number]:
                    self.failures.add(self.plan(number), f"{what} {counts[number]} times in place of {due[number]}")
        # Nothing is left to hold what the connections were.
        self.opens.clear()
        self.closes.clear()


if __name__ == "__main__":
    run(Server)
