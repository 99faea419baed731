"""A server whose WebSocket connections and topics Prometheus can watch, at ``/metrics``.

``/`` is an echo; what one connection to ``/room/NAME`` sends, all of them get. Run it as
``python examples/metrics/metrics.py``, with ``--redis URL`` for rooms that several processes share. Needs
``pip install "tornado_ws[prometheus]"``. Lines of the log say which connection they are about.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from typing import Any

from prometheus_client import CollectorRegistry
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

import tornado_ws
import tornado_ws.prometheus

log = logging.getLogger("metrics")

#: The application names what it watches: with a label for each room, clients would decide how many there are.
COUNTED = ("room/lobby", "room/*")


class Echo(tornado_ws.WebSocketHandler):
    def get_compression_options(self) -> dict[str, Any] | None:
        return {}

    def open(self) -> None:
        # The handler lets go of its connection before on_close.
        self.connection: Any = self.ws_connection

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        counters = self.connection.counters
        log.info("closed: %d messages in, %d out", counters.messages_in, counters.messages_out)


class Room(tornado_ws.WebSocketHandler):
    def initialize(self, topics: tornado_ws.Topics) -> None:
        self.topics = topics

    async def open(self, name: str) -> None:
        self.topic = f"room/{name}"
        await self.topics.subscribe(self, self.topic)

    def on_message(self, message: str | bytes) -> None:
        self.topics.publish(self.topic, message)


def make_app(topics: tornado_ws.Topics) -> Application:
    registry = CollectorRegistry()
    tornado_ws.prometheus.register(registry, topics=topics)
    return Application(
        [
            ("/", Echo),
            (r"/room/(\w+)", Room, {"topics": topics}),
            ("/metrics", tornado_ws.prometheus.MetricsHandler, {"registry": registry}),
        ]
    )


async def serve(port: int, redis_url: str | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        sockets = bind_sockets(port, "127.0.0.1")
    except OSError as error:
        raise SystemExit(f"Cannot listen on port {port}: {error.strerror}. --port 0 takes any free one.") from None
    async with tornado_ws.Topics(redis_url, counted=COUNTED) as topics:
        server = HTTPServer(make_app(topics))
        server.add_sockets(sockets)
        print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}/metrics", flush=True)
        await stop.wait()
        server.stop()
        await server.close_all_connections()


def main() -> None:
    parser = argparse.ArgumentParser(description="A server whose connections and topics Prometheus can watch.")
    port = os.environ.get("PORT", "8888")
    parser.add_argument("--port", type=int, default=port, help="0 for any free one (default: PORT, or 8888)")
    parser.add_argument("--redis", metavar="URL", help="broker of the rooms, as redis://localhost (default: none)")
    arguments = parser.parse_args()
    handler = logging.StreamHandler()
    handler.addFilter(tornado_ws.ConnectionFilter())
    text = "%(asctime)s %(name)s [%(websocket_id)s %(websocket_peer)s] %(message)s"
    logging.basicConfig(level=logging.INFO, format=text, handlers=[handler])
    asyncio.run(serve(arguments.port, arguments.redis))


if __name__ == "__main__":
    main()
