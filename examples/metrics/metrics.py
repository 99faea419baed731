"""A server whose WebSocket connections and topics Prometheus can watch, at ``/metrics``.

``/`` is an echo; what one connection to ``/room/NAME`` sends, all of them get. Run it as
``python examples/metrics/metrics.py``, with ``--redis URL`` for rooms that several processes share. Needs
``prometheus-client``. Nothing is counted a second time for it: `tornado_ws.counters` and the topics are asked when
Prometheus asks, and they ask nobody. Lines of the log say which connection they are about.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Iterator
from typing import Any

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

import tornado_ws

log = logging.getLogger("metrics")

_COUNTERS = {
    "connections": "Connections so far.",
    "messages_in": "Messages received.",
    "messages_out": "Messages sent.",
    "message_bytes_in": "Bytes of messages received, after inflating.",
    "message_bytes_out": "Bytes of messages sent, before compression.",
    "wire_bytes_in": "Bytes of frames received.",
    "wire_bytes_out": "Bytes of frames sent.",
    "dropped": "Messages not sent to peers that are too slow.",
}
_GAUGES = {
    "open_connections": "Connections that are open.",
    "buffered_amount": "Bytes that wait to be sent.",
}


_TOPIC_COUNTERS = {
    "published": "Messages published here.",
    "failed": "Messages that could not be published.",
    "received": "Messages that came from the broker.",
    "repeated": "Messages that a publisher sent again, and that were left out.",
    "invalid": "Entries of a stream that are no message.",
    "delivered": "Messages given to connections.",
    "refused": "Messages that write limits kept from connections.",
    "dropped": "Messages that waited for slow connections and were not sent.",
    "gaps": "How often messages were lost.",
    "outages": "How often the broker was away.",
    "reconnects": "Connections to the broker that were made anew.",
}
#: Those that each name or prefix of `COUNTED` has too.
_NAME_COUNTERS = ("published", "received", "delivered", "gaps")
#: The application names what it watches: with a label for each room, clients would decide how many there are.
COUNTED = ("room/lobby", "room/*")


class Collector:
    """Gives Prometheus the counters of all connections of this process, and those of its topics."""

    def __init__(self, topics: tornado_ws.Topics) -> None:
        self.topics = topics

    def collect(self) -> Iterator[Metric]:
        counters = tornado_ws.counters()
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"websocket_{name}", text, getattr(counters, name))
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"websocket_{name}", text, getattr(counters, name))
        yield from self.collect_topics()

    def collect_topics(self) -> Iterator[Metric]:
        for name, text in _TOPIC_COUNTERS.items():
            yield CounterMetricFamily(f"topics_{name}", text, getattr(self.topics.counters, name))
        for name in _NAME_COUNTERS:
            family = CounterMetricFamily(f"topic_{name}", _TOPIC_COUNTERS[name], labels=["topic"])
            for topic, of_topic in self.topics.counted.items():
                family.add_metric([topic], getattr(of_topic, name))
            yield family
        lag = self.topics.lag()
        yield GaugeMetricFamily("topics_lag_seconds", "How long messages wait in the broker.", lag.seconds)
        # A server before Redis 7 does not count them.
        if lag.messages is not None:
            yield GaugeMetricFamily("topics_lag_messages", "Messages that wait in the broker.", lag.messages)
        yield GaugeMetricFamily("topics_broker_away", "Whether the broker is away.", int(self.topics.is_away))


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


class Metrics(RequestHandler):
    def initialize(self, registry: prometheus_client.CollectorRegistry) -> None:
        self.registry = registry

    def get(self) -> None:
        self.set_header("Content-Type", prometheus_client.CONTENT_TYPE_LATEST)
        self.finish(prometheus_client.generate_latest(self.registry))


def make_app(topics: tornado_ws.Topics) -> Application:
    registry = prometheus_client.CollectorRegistry()
    registry.register(Collector(topics))
    return Application(
        [
            ("/", Echo),
            (r"/room/(\w+)", Room, {"topics": topics}),
            ("/metrics", Metrics, {"registry": registry}),
        ]
    )


async def serve(port: int, redis_url: str | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sockets = bind_sockets(port, "127.0.0.1")
    async with tornado_ws.Topics(redis_url, counted=COUNTED) as topics:
        server = HTTPServer(make_app(topics))
        server.add_sockets(sockets)
        print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}/metrics", flush=True)
        await stop.wait()
        server.stop()
        await server.close_all_connections()


def main() -> None:
    parser = argparse.ArgumentParser(description="A server whose connections and topics Prometheus can watch.")
    parser.add_argument("--port", type=int, default=8888, help="port, 0 for any free one (default: %(default)s)")
    parser.add_argument("--redis", metavar="URL", help="broker of the rooms, as redis://localhost (default: none)")
    arguments = parser.parse_args()
    handler = logging.StreamHandler()
    handler.addFilter(tornado_ws.ConnectionFilter())
    text = "%(asctime)s %(name)s [%(websocket_id)s %(websocket_peer)s] %(message)s"
    logging.basicConfig(level=logging.INFO, format=text, handlers=[handler])
    asyncio.run(serve(arguments.port, arguments.redis))


if __name__ == "__main__":
    main()
