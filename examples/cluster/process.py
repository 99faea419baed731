"""One process of the cluster: a chat whose messages go through Redis. `cluster.py` starts two of these.

It serves the page, and the WebSocket of the page. What is published in one process reaches the pages of all.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

from tornado.escape import json_decode, json_encode
from tornado.netutil import bind_unix_socket
from tornado.web import Application, StaticFileHandler

import tornado_ws

EXAMPLES = Path(__file__).parent.parent

# Long enough for a page that is away while a process is started again, or while its reader is in a tunnel.
HISTORY = tornado_ws.History(count=1000, seconds=600)

NOT_UNDERSTOOD = 4000


class Page(StaticFileHandler):
    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")


class Chat(tornado_ws.WebSocketHandler):
    def initialize(self, topics: tornado_ws.Topics, name: str) -> None:
        self.topics = topics
        self.name = name

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    async def open(self) -> None:
        # This is no message of the topic, and so in no envelope.
        self.write_message({"served_by": self.name, "pid": os.getpid()})
        since = self.get_argument("since", None)
        await self.topics.subscribe(self, "chat", since=since, envelope=True)

    def on_message(self, message: str | bytes) -> None:
        try:
            request = json_decode(message)
        except ValueError:
            request = None
        match request:
            case {"id": str(id), "page": str(page), "number": int(number), "who": str(who), "text": str(text)}:
                said = {"id": id, "page": page, "number": number, "who": who[:24], "text": text[:1000]}
                # The page sends it again unless it comes back to it; that is what tells it that the broker has it.
                self.topics.publish("chat", json_encode({**said, "via": self.name}))
            case {"kill": True}:
                # No close frame, no goodbye to anybody: what a crash and the kernel's OOM killer do.
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                self.close(NOT_UNDERSTOOD, "not a message of this chat")


async def serve(name: str, redis: str, socket: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with tornado_ws.Topics(redis, history={"chat": HISTORY}) as topics:
        application = Application(
            [
                (r"/chat", Chat, {"topics": topics, "name": name}),
                (r"/(tornado_ws\.js)", Page, {"path": EXAMPLES / "client"}),
                (r"/(demo\.css|page\.js)", Page, {"path": EXAMPLES / "demo" / "static"}),
                (r"/(.*)", Page, {"path": EXAMPLES / "cluster" / "static", "default_filename": "index.html"}),
            ],
            # Below the timeouts of the proxies.
            websocket_ping_interval=20,
            websocket_max_message_size=64 * 1024,
        )
        # The address of a client is what the proxy says; nobody else reaches this socket.
        server = tornado_ws.HTTPServer(application, xheaders=True)
        server.add_socket(bind_unix_socket(socket))
        await stop.wait()
        # Handshakes are answered 503 from here on, and go to another process. Pages come back after a 1012.
        await tornado_ws.close_all(application, code=1012, reason="this process is restarted", timeout=8)
        # Not before: a proxy that looks whether this process accepts would cut what is being closed.
        server.stop()
        await server.close_all_connections()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="what pages call this process")
    parser.add_argument("--redis", required=True, help="URL of the broker")
    parser.add_argument("--socket", required=True, help="Unix socket to listen on")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {arguments.name}: %(message)s")
    asyncio.run(serve(arguments.name, arguments.redis, arguments.socket))


if __name__ == "__main__":
    main()
