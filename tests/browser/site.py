"""A server for the page of `test_client`, in a thread of its own: the browser is driven by the one of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from tornado.web import RequestHandler, StaticFileHandler

from tests.programs import ROOT
from tests.support import PATIENCE, serving
from tornado_ws import History, Topics, WebSocketHandler


class Page(RequestHandler):
    """A page with the client in it, and a stub for time: what it waits for comes at once, and is in ``waits``."""

    def get(self) -> None:
        self.finish(
            "<!DOCTYPE html><title>client</title><link rel=icon href=data:,><script type=module>"
            "import * as client from './tornado_ws.js';"
            "const later = setTimeout.bind(globalThis);"
            "Object.assign(globalThis, client, { waits: [], dice: 1 });"
            "Math.random = () => dice;"
            "globalThis.setTimeout = (f, ms) => (waits.push(Math.round(ms)), later(f, 0));"
            "globalThis.ready = true;"
            "</script>"
        )


class Attempt(WebSocketHandler):
    """Answers each attempt as the test wants it: a status, a close code, or None for staying open."""

    def initialize(self, site: Site) -> None:
        self.site = site

    def prepare(self) -> None:
        self.is_handshake = "Upgrade" in self.request.headers
        self.answer = self.site.answers[0] if self.site.answers else None
        self.site.attempts += self.is_handshake
        if isinstance(self.answer, tuple):
            status, headers = self.answer
            self.set_status(status)
            for name, value in headers.items():
                self.set_header(name, value)
            self.finish()

    def open(self) -> None:
        self.next()
        if self.answer == 1006:
            assert self.ws_connection is not None
            self.ws_connection._abort()
        elif self.answer is not None:
            self.close(self.answer or None)

    def on_finish(self) -> None:
        # The plain request that asks is the last of an attempt that was refused.
        if not self.is_handshake:
            self.next()

    def next(self) -> None:
        if self.site.answers:
            self.site.answers.pop(0)

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


class Feed(WebSocketHandler):
    """Subscribes to the topics that its path names."""

    def initialize(self, site: Site) -> None:
        self.site = site

    async def open(self, names: str) -> None:
        self.site.since.append(self.get_argument("since", None))
        for name in names.split("+"):
            since = None if name.endswith("*") else self.get_argument("since", None)
            await self.site.topics.subscribe(self, name, since=since, envelope=True)
        self.site.feeds.append(self)


class Site:
    def __init__(self, loop: asyncio.AbstractEventLoop, topics: Topics) -> None:
        self.url = ""
        self.topics = topics
        #: What the next attempts are answered with, and how many there were.
        self.answers: list[Any] = []
        self.attempts = 0
        #: What clients of topics have sent, and their connections.
        self.since: list[str | None] = []
        self.feeds: list[Feed] = []
        self._loop = loop

    def run(self, function: Callable[[], object]) -> None:
        """Call ``function`` in the server's loop, and wait for what it returns."""

        async def call() -> None:
            result = function()
            if isinstance(result, Awaitable):
                await result

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE)

    def publish(self, topic: str, *messages: str | bytes) -> None:
        self.run(lambda: [self.topics.publish(topic, message) for message in messages])

    def abort(self) -> None:
        """Cut the connection of the client that came last, as a process that dies does."""

        def abort() -> None:
            if self.feeds[-1].ws_connection is not None:
                self.feeds[-1].ws_connection._abort()

        self.run(abort)


@contextlib.contextmanager
def serving_site() -> Iterator[Site]:
    started: Any = None
    sites: list[Site] = []
    ready = threading.Event()

    async def main() -> None:
        nonlocal started
        async with Topics(history={"few": History(count=2), "*": History(count=1000)}) as topics:
            loop = asyncio.get_running_loop()
            site = Site(loop, topics)
            settings = {"site": site}
            routes: list[Any] = [
                (r"/", Page),
                (r"/(tornado_ws\.js)", StaticFileHandler, {"path": ROOT / "examples" / "client"}),
                (r"/attempt", Attempt, settings),
                (r"/feed/(.*)", Feed, settings),
            ]
            async with serving(routes) as url:
                stop = asyncio.Event()
                site.url = url.replace("ws:", "http:")
                sites.append(site)
                started = loop, stop
                ready.set()
                await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield sites[0]
    finally:
        loop, stop = started
        loop.call_soon_threadsafe(stop.set)
        thread.join()
