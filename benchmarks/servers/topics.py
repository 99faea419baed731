"""tornado_ws.Topics over Redis: a client gets what is published to the topic that its URL names."""

from __future__ import annotations

import asyncio

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from benchmarks.payloads import text
from benchmarks.publishers.common import TOPIC, stamped
from benchmarks.servers.common import BACKLOG, HOST, Options, announce, parse_options, run
from tornado_ws import History, Topics, WebSocketHandler, engine


class Subscriber(WebSocketHandler):
    async def open(self, *args: str, **kwargs: str) -> None:
        topics: Topics = self.settings["topics"]
        since = self.get_argument("since", None)
        await topics.subscribe(self, self.get_argument("topic"), since=since)
        if since is None:
            await self.write_message("ready")


async def publish_missed(topics: Topics, count: int) -> str:
    """Publish messages that this process reads; return the position of the one before them."""
    topic = TOPIC.format(0)
    listener = topics.listen(topic)
    await listener.begin()
    (message,) = text(256, 1)
    position = await topics.publish(topic, stamped(message))
    for _ in range(count):
        topics.publish(topic, stamped(message))
    for _ in range(count + 1):
        await anext(listener)
    return str(position)


async def serve(options: Options) -> None:
    histories = {TOPIC.format(0): History(count=options.missed, seconds=900)} if options.missed else None
    topics = Topics(options.redis, history=histories)
    about = {"since": await publish_missed(topics, options.missed)} if options.missed else {}
    application = Application([("/", Subscriber)], topics=topics)
    (listener,) = bind_sockets(0, HOST, backlog=BACKLOG)
    HTTPServer(application).add_sockets([listener])
    announce(listener.getsockname()[1], "tornado", "redis", "hiredis", engine=engine.name, **about)
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = parse_options()
    run(serve(options), options)
