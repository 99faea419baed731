"""A server in a process of its own, for a test that kills it: ``python -m tests.pubsub.feed_process REDIS_URL PORT``.

It listens at PORT beside others of its kind, and at a port of its own, which it prints.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from tornado_ws import History, Topics, WebSocketHandler
from tornado_ws.pubsub.redis_shard import Shard


class Feed(WebSocketHandler):
    def initialize(self, topics: Topics) -> None:
        self.topics = topics

    async def open(self, name: str) -> None:
        await self.topics.subscribe(self, name, since=self.get_argument("since", None), envelope=True)


class Asked(RequestHandler):
    """Says how many questions this process had for the broker."""

    count = 0

    def get(self) -> None:
        self.finish(str(Asked.count))


def count_questions() -> None:
    ask = Shard.ask

    async def counted(self: Shard, commands: list[tuple[Any, ...]]) -> list[Any]:
        Asked.count += 1
        return await ask(self, commands)

    Shard.ask = counted  # type: ignore[method-assign]


async def main(url: str, port: int) -> None:
    count_questions()
    async with Topics(url, history={"*": History(count=10_000)}) as topics:
        server = HTTPServer(Application([(r"/feed/(.*)", Feed, {"topics": topics}), ("/asked", Asked)]))
        server.add_sockets(bind_sockets(port, "127.0.0.1", reuse_port=True))
        sock, own_port = bind_unused_port()
        server.add_socket(sock)
        print(own_port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
