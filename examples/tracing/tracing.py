"""What OpenTelemetry is told of a server and its client: ``python examples/tracing/tracing.py``.

It prints the spans and metrics of one conversation, and needs ``pip install "tornado_ws[otel]" opentelemetry-sdk``. A
real program has an exporter for its backend in the place of those that print.
"""

from __future__ import annotations

import asyncio

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

import tornado_ws
import tornado_ws.opentelemetry


class Room(tornado_ws.WebSocketHandler):
    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(f"in {self.path_args[0]}: {message!s}")


async def talk() -> None:
    server = HTTPServer(Application([(r"/room/(\w+)", Room)]))
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)
    async with tornado_ws.websocket_connect(f"ws://127.0.0.1:{sock.getsockname()[1]}/room/lobby") as conn:
        for text in ("hello", "goodbye"):
            await conn.write_message(text)
            await conn.read_message()
    server.stop()
    await server.close_all_connections()


def main() -> None:
    resource = Resource({"service.name": "rooms"})
    tracer_provider = TracerProvider(resource=resource)
    tracer_provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    # It reads the counters once in a minute, and at the end.
    reader = PeriodicExportingMetricReader(ConsoleMetricExporter())
    meter_provider = MeterProvider([reader], resource=resource)
    tornado_ws.opentelemetry.instrument(tracer_provider, meter_provider, connection_spans=True, message_events=10)
    asyncio.run(talk())
    meter_provider.shutdown()
    tracer_provider.shutdown()


if __name__ == "__main__":
    main()
