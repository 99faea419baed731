"""An echo server whose WebSocket connections Prometheus can watch: ``/`` is the socket, ``/metrics`` what is scraped.

Run ``python examples/metrics/metrics.py``. Needs ``prometheus-client``. Nothing is counted a second time for it:
`tornado_ws.counters` is asked when Prometheus asks. Lines of the log say which connection they are about.
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


class Collector:
    """Gives Prometheus the counters of all connections of this process."""

    def collect(self) -> Iterator[Metric]:
        counters = tornado_ws.counters()
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"websocket_{name}", text, getattr(counters, name))
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"websocket_{name}", text, getattr(counters, name))


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


class Metrics(RequestHandler):
    def initialize(self, registry: prometheus_client.CollectorRegistry) -> None:
        self.registry = registry

    def get(self) -> None:
        self.set_header("Content-Type", prometheus_client.CONTENT_TYPE_LATEST)
        self.finish(prometheus_client.generate_latest(self.registry))


def make_app() -> Application:
    registry = prometheus_client.CollectorRegistry()
    registry.register(Collector())
    return Application([("/", Echo), ("/metrics", Metrics, {"registry": registry})])


async def serve(port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sockets = bind_sockets(port, "127.0.0.1")
    server = HTTPServer(make_app())
    server.add_sockets(sockets)
    print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}/metrics", flush=True)
    await stop.wait()
    server.stop()
    await server.close_all_connections()


def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server whose WebSocket connections Prometheus can watch.")
    parser.add_argument("--port", type=int, default=8888, help="port, 0 for any free one (default: %(default)s)")
    arguments = parser.parse_args()
    handler = logging.StreamHandler()
    handler.addFilter(tornado_ws.ConnectionFilter())
    text = "%(asctime)s %(name)s [%(websocket_id)s %(websocket_peer)s] %(message)s"
    logging.basicConfig(level=logging.INFO, format=text, handlers=[handler])
    asyncio.run(serve(arguments.port))


if __name__ == "__main__":
    main()
