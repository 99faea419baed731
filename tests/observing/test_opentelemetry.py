"""``tornado_ws.opentelemetry`` with OpenTelemetry's own SDK, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tornado.web import HTTPError

from tests.peer import raw_client, raw_server
from tests.ports import unused_port
from tests.support import Echo, connected, serving, until
from tests.wire import CLOSE, CONTINUATION, PING, TEXT
from tornado_ws import WebSocketClosedError, WebSocketHandler, opentelemetry, reconnect, websocket_connect
from tornado_ws.errors import HandshakeRejectedError, InvalidHandshakeError


class Recorded:
    """What was exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader])

    def instrument(self, **options: Any) -> None:
        opentelemetry.instrument(self.tracer_provider, self.meter_provider, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def of(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self.spans if span.kind is kind]

    def only(self, kind: SpanKind) -> ReadableSpan:
        (span,) = self.of(kind)
        return span

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        metrics = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        return {metric.name: metric for metric in metrics}

    def values(self) -> dict[str, Any]:
        """Return the values of the counters, with the direction behind the name where there is one."""
        return {
            "/".join([name, *map(str, (point.attributes or {}).values())]): point.value
            for name, metric in self.metrics().items()
            for point in metric.data.data_points
            if hasattr(point, "value")
        }

    def points(self, name: str) -> list[dict[str, Any]]:
        """Return the attributes of the points of a histogram that has counted once each."""
        found = self.metrics().get(name)
        points = found.data.data_points if found is not None else []
        assert all(point.count == 1 for point in points)
        return [dict(point.attributes) for point in points]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded()
    yield recorded
    opentelemetry.uninstrument()
    recorded.meter_provider.shutdown()
    recorded.tracer_provider.shutdown()


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    assert parent.context is not None
    return span.parent is not None and span.parent.span_id == parent.context.span_id


class Room(Echo):
    def open(self, name: str) -> None:
        pass


# Handshakes


@pytest.mark.gen_test
async def test_a_handshake_is_a_span_at_each_end_of_one_trace(recorded: Recorded) -> None:
    recorded.instrument()
    async with serving([(r"/room/(\w+)", Room)]) as url:
        address = f"{url}/room/lobby?token=secret".replace("ws://", "ws://ada:secret@")
        async with connected(address) as conn:
            await conn.write_message("x")
            assert await conn.read_message() == "x"
    server, client = recorded.only(SpanKind.SERVER), recorded.only(SpanKind.CLIENT)
    port = int(url.rpartition(":")[2])
    at_both = {
        "http.request.method": "GET",
        "http.response.status_code": 101,
        "server.address": "127.0.0.1",
        "server.port": port,
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
    }
    assert attributes_of(client) == {**at_both, "url.full": f"{url}/room/lobby"}
    of_server = {"url.scheme": "ws", "url.path": "/room/lobby", "http.route": r"/room/(\w+)"}
    assert attributes_of(server) == {**at_both, **of_server, "client.address": "127.0.0.1"}
    assert (server.name, client.name) == (r"GET /room/(\w+)", "GET")
    assert is_child(server, client)
    assert client.parent is None
    assert {server.status.status_code, client.status.status_code} == {StatusCode.UNSET}
    assert len(recorded.spans) == 2


@pytest.mark.gen_test
@pytest.mark.parametrize("connection_spans", [False, True])
async def test_what_callbacks_do_is_in_the_trace_of_the_handshake(recorded: Recorded, connection_spans: bool) -> None:
    tracer = recorded.tracer_provider.get_tracer("the application")

    class Handler(WebSocketHandler):
        async def prepare(self) -> None:
            with tracer.start_as_current_span("prepare"):
                await asyncio.sleep(0)

        def open(self) -> None:
            tracer.start_span("open").end()
            carried.append(baggage.get_baggage("user"))

        def on_close(self) -> None:
            tracer.start_span("on_close").end()

        async def on_message(self, message: str | bytes) -> None:
            await asyncio.sleep(0)
            with tracer.start_as_current_span("on_message"):
                await self.write_message(message)

    def on_message(message: object) -> None:
        with tracer.start_as_current_span("callback"):
            messages.append(message)

    messages: list[object] = []
    carried: list[object] = []
    recorded.instrument(connection_spans=connection_spans)
    async with serving(Handler) as url:
        with tracer.start_as_current_span("the client's work") as work:
            token = context.attach(baggage.set_baggage("user", "ada"))
            conn = await websocket_connect(url, on_message_callback=on_message)
            context.detach(token)
        await conn.write_message("x")
        await until(lambda: messages)
        conn.close()
        await conn.wait_closed()
    named = {span.name: span for span in recorded.spans}
    assert {trace_of(span) for span in recorded.spans} == {work.get_span_context().trace_id}
    server, client = recorded.only(SpanKind.SERVER), recorded.only(SpanKind.CLIENT)
    assert is_child(named["prepare"], server)
    if connection_spans:
        by_role = {attributes_of(span).get("websocket.role"): span for span in recorded.of(SpanKind.INTERNAL)}
        server, client = by_role["server"], by_role["client"]
    for name in ("open", "on_message", "on_close"):
        assert is_child(named[name], server)
    assert is_child(named["callback"], client)
    assert carried == ["ada"]
    # What comes behind the connection in the same task of the application is not in its trace.
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.gen_test
async def test_a_refusal_is_an_error_of_the_client_alone(recorded: Recorded) -> None:
    class Handler(Echo):
        def prepare(self) -> None:
            raise HTTPError(403)

    recorded.instrument()
    async with serving(Handler) as url:
        with pytest.raises(HandshakeRejectedError):
            await websocket_connect(url)
        with pytest.raises(HandshakeRejectedError):
            await websocket_connect(f"{url}/nowhere")
    refused, nowhere = recorded.of(SpanKind.CLIENT)
    assert attributes_of(refused)["http.response.status_code"] == 403
    assert attributes_of(refused)["error.type"] == "403"
    assert refused.status.status_code is StatusCode.ERROR
    assert attributes_of(nowhere)["http.response.status_code"] == 404
    # A path without a WebSocketHandler is another instrumentation's.
    server = recorded.only(SpanKind.SERVER)
    assert attributes_of(server)["http.response.status_code"] == 403
    assert server.status.status_code is StatusCode.UNSET
    assert not server.events
    assert {point["websocket.role"] for point in recorded.points("websocket.handshake.duration")} == {
        "server",
        "client",
    }
    assert recorded.points("websocket.connection.duration") == []


@pytest.mark.gen_test
async def test_a_foreign_origin_is_a_403(recorded: Recorded) -> None:
    recorded.instrument()
    async with serving(Echo) as url:
        with pytest.raises(HandshakeRejectedError):
            await websocket_connect(url, headers={"Origin": "http://elsewhere.example"})
    assert attributes_of(recorded.only(SpanKind.SERVER))["http.response.status_code"] == 403


@pytest.mark.gen_test
async def test_an_exception_before_the_answer_is_an_error_of_the_server(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    class Handler(Echo):
        async def prepare(self) -> None:
            raise RuntimeError("no database")

    recorded.instrument()
    async with serving(Handler) as url:
        with pytest.raises(HandshakeRejectedError):
            await websocket_connect(url)
    server = recorded.only(SpanKind.SERVER)
    assert attributes_of(server)["error.type"] == "500"
    assert server.status.status_code is StatusCode.ERROR
    (event,) = server.events
    assert (event.attributes or {})["exception.message"] == "no database"


@pytest.mark.gen_test
async def test_a_connect_that_fails_is_an_error_of_the_client(recorded: Recorded) -> None:
    recorded.instrument()
    with pytest.raises(ConnectionRefusedError):
        await websocket_connect(f"ws://127.0.0.1:{unused_port()}")
    span = recorded.only(SpanKind.CLIENT)
    assert attributes_of(span)["error.type"] == "ConnectionRefusedError"
    assert "http.response.status_code" not in attributes_of(span)
    assert span.status.status_code is StatusCode.ERROR
    (event,) = span.events
    assert event.name == "exception"


@pytest.mark.gen_test
async def test_an_answer_that_breaks_the_rfc_is_an_error_of_the_client(recorded: Recorded) -> None:
    recorded.instrument()
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        await server.accept(Sec_WebSocket_Accept="wrong")
        with pytest.raises(InvalidHandshakeError):
            await connecting
    span = recorded.only(SpanKind.CLIENT)
    assert attributes_of(span)["error.type"] == "tornado_ws.errors.InvalidHandshakeError"
    assert attributes_of(span)["http.response.status_code"] == 101


@pytest.mark.gen_test
async def test_a_connect_that_is_cancelled_ends_its_span(recorded: Recorded) -> None:
    class Handler(Echo):
        async def prepare(self) -> None:
            begun.set()
            await end.wait()

    begun, end = asyncio.Event(), asyncio.Event()
    recorded.instrument()
    async with serving(Handler) as url:
        connecting = websocket_connect(url)
        await begun.wait()
        connecting.cancel()
        await until(lambda: recorded.of(SpanKind.CLIENT))
        assert attributes_of(recorded.only(SpanKind.CLIENT))["error.type"] == "asyncio.exceptions.CancelledError"
        # The client is gone, and the handler has not answered.
        await until(lambda: recorded.of(SpanKind.SERVER))
        assert attributes_of(recorded.only(SpanKind.SERVER))["error.type"] == "connection_closed"
        end.set()
    assert len(recorded.spans) == 2
    assert "http.response.status_code" not in attributes_of(recorded.only(SpanKind.SERVER))


@pytest.mark.gen_test
async def test_each_attempt_of_reconnect_is_a_span(recorded: Recorded) -> None:
    class Handler(Echo):
        refusals = 2

        def prepare(self) -> None:
            if Handler.refusals:
                Handler.refusals -= 1
                raise HTTPError(503)

    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    recorded.instrument()
    async with serving(Handler) as url:
        connections: Any = reconnect(url, sleep=at_once)
        async with contextlib.aclosing(connections):
            async for _ in connections:
                break
    statuses = [attributes_of(span)["http.response.status_code"] for span in recorded.of(SpanKind.CLIENT)]
    assert statuses == [503, 503, 101]
    assert [span.status.status_code for span in recorded.of(SpanKind.SERVER)] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]


@pytest.mark.gen_test
async def test_a_method_that_nobody_knows_makes_no_name(recorded: Recorded) -> None:
    recorded.instrument()
    async with serving(Echo) as url, raw_client(url, start="BREW {path} HTTP/1.1") as client:
        assert client.status == 405
    assert recorded.only(SpanKind.SERVER).name == "HTTP /"
    assert attributes_of(recorded.only(SpanKind.SERVER))["http.request.method"] == "_OTHER"


# Connections


@pytest.mark.gen_test
async def test_a_connection_has_a_span_where_that_is_asked_for(recorded: Recorded) -> None:
    recorded.instrument(connection_spans=True)
    async with serving([(r"/room/(\w+)", Room)]) as url, connected(f"{url}/room/lobby") as conn:
        await conn.write_message("12345")
        await conn.read_message()
        conn.close(4001, "enough")
        await conn.wait_closed()
    spans = {attributes_of(span)["websocket.role"]: span for span in recorded.of(SpanKind.INTERNAL)}
    assert is_child(spans["server"], recorded.only(SpanKind.SERVER))
    assert is_child(spans["client"], recorded.only(SpanKind.CLIENT))
    assert (spans["server"].name, spans["client"].name) == (r"WebSocket /room/(\w+)", "WebSocket")
    attributes = attributes_of(spans["server"])
    assert attributes["websocket.close.code"] == 4001
    assert attributes["websocket.close.reason"] == "enough"
    assert attributes["websocket.messages_in"] == attributes["websocket.messages_out"] == 1
    assert attributes["websocket.message_bytes_in"] == 5
    assert not any(span.events for span in recorded.spans)


@pytest.mark.gen_test
@pytest.mark.parametrize("hook", ["open", "on_message"])
async def test_an_exception_of_a_callback_is_an_error_of_the_connection(
    recorded: Recorded, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, *args: object) -> None:
        raise RuntimeError("out of tea")

    Handler: Any = type("Handler", (Echo,), {hook: fail})
    recorded.instrument(connection_spans=True)
    async with serving(Handler) as url, connected(url) as conn:
        with contextlib.suppress(WebSocketClosedError):
            await conn.write_message("x")
        assert await conn.read_message() is None
    (span,) = (span for span in recorded.of(SpanKind.INTERNAL) if span.events)
    assert attributes_of(span)["websocket.role"] == "server"
    assert attributes_of(span)["error.type"] == "RuntimeError"
    assert span.status.status_code is StatusCode.ERROR
    # The handshake was answered before.
    assert recorded.only(SpanKind.SERVER).status.status_code is StatusCode.UNSET
    errors = [point.get("error.type") for point in recorded.points("websocket.connection.duration")]
    assert any(errors)


@pytest.mark.gen_test
async def test_messages_are_events_up_to_a_number(recorded: Recorded) -> None:
    recorded.instrument(connection_spans=True, message_events=3)
    async with serving(Echo) as url, raw_client(url) as client:
        await client.send(
            client.frame(TEXT, b"ab", fin=False),
            client.frame(PING, b"123"),
            client.frame(CONTINUATION, b"c"),
        )
        for _ in range(2):
            await client.receive()
        for _ in range(3):
            await client.send_frame(TEXT, b"12345")
            await client.receive()
        await client.send_frame(CLOSE)
        await client.receive_rest()
    span = recorded.only(SpanKind.INTERNAL)
    assert {event.name for event in span.events} == {"websocket.message"}
    events = [dict(event.attributes or {}) for event in span.events]
    assert [event["websocket.message.size"] for event in events] == [3, 3, 5]
    assert [event["network.io.direction"] for event in events] == ["receive", "transmit", "receive"]
    assert {event["websocket.message.type"] for event in events} == {"text"}
    # What is counted has no limit.
    assert attributes_of(span)["websocket.messages_in"] == 4


@pytest.mark.gen_test
async def test_events_and_the_log_of_frames_go_together(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "tornado_ws.frames")
    recorded.instrument(connection_spans=True, message_events=10)
    async with serving(Echo) as url, connected(url) as conn:
        await conn.write_message("x")
        await conn.read_message()
    assert sorted(len(span.events) for span in recorded.of(SpanKind.INTERNAL)) == [2, 2]
    frames = [record.getMessage() for record in caplog.records if record.name == "tornado_ws.frames"]
    assert sum(" TEXT 'x'" in line for line in frames) == 4


# Metrics


@pytest.mark.gen_test
async def test_counters_are_read_when_they_are_exported(recorded: Recorded) -> None:
    recorded.instrument()
    before = recorded.values()
    async with serving(Echo) as url, connected(url) as conn:
        for _ in range(3):
            await conn.write_message("12345")
            await conn.read_message()
        during = recorded.values()
        assert during["websocket.connections.open"] - before["websocket.connections.open"] == 2
    after = recorded.values()
    assert after["websocket.connections.open"] == before["websocket.connections.open"]
    change = {name: after[name] - value for name, value in before.items()}
    assert change["websocket.connections"] == 2
    # Both ends are of this process.
    for direction in ("receive", "transmit"):
        assert change[f"websocket.messages/{direction}"] == 6
        assert change[f"websocket.message.io/{direction}"] == 30
        assert change[f"websocket.wire.io/{direction}"] > 30
    assert change["websocket.messages.dropped"] == change["websocket.buffered"] == 0
    units = {name: metric.unit for name, metric in recorded.metrics().items()}
    assert units == {
        "websocket.handshake.duration": "s",
        "websocket.connection.duration": "s",
        "websocket.messages": "{message}",
        "websocket.message.io": "By",
        "websocket.wire.io": "By",
        "websocket.messages.dropped": "{message}",
        "websocket.connections": "{connection}",
        "websocket.connections.open": "{connection}",
        "websocket.buffered": "By",
    }


@pytest.mark.gen_test
@pytest.mark.parametrize(("code", "shown"), [(1000, "1000"), (3000, "3xxx"), (4711, "4xxx"), (None, None)])
async def test_a_peer_cannot_choose_how_many_series_there_are(
    recorded: Recorded, code: int | None, shown: str | None
) -> None:
    recorded.instrument()
    async with serving(Echo) as url, connected(url) as conn:
        conn.close(code)
        await conn.wait_closed()
    points = recorded.points("websocket.connection.duration")
    (server,) = (point for point in points if point["websocket.role"] == "server")
    assert server.get("websocket.close.code") == shown
    assert server["http.route"] == "/"


# Turning it on and off


class Wrong(NamedTuple):
    options: dict[str, Any]
    error: type[Exception]
    text: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong({"tracer_provider": "x"}, TypeError, "tracer_provider is of type str; allowed are a TracerProvider"),
        Wrong({"meter_provider": 1}, TypeError, "meter_provider is of type int; allowed are a MeterProvider and None"),
        Wrong({"connection_spans": 1}, ValueError, "connection_spans is 1; it has to be True or False"),
        Wrong({"message_events": True, "connection_spans": True}, ValueError, "message_events is True; it has to be"),
        Wrong({"message_events": -1}, ValueError, "message_events is -1; it has to be a whole number from 0"),
        Wrong({"message_events": 5}, ValueError, "message_events is 5 and connection_spans is False"),
    ],
    ids=lambda wrong: str(wrong.options),
)
def test_a_wrong_argument_is_an_error_that_says_what_is_allowed(wrong: Wrong) -> None:
    with pytest.raises(wrong.error, match=wrong.text):
        opentelemetry.instrument(**wrong.options)
    opentelemetry.uninstrument()


def test_instrumenting_twice_is_an_error(recorded: Recorded) -> None:
    recorded.instrument()
    with pytest.raises(RuntimeError, match=r"instrumented already; call uninstrument\(\) first"):
        recorded.instrument()


@pytest.mark.gen_test
async def test_after_uninstrument_nothing_is_recorded(recorded: Recorded) -> None:
    recorded.instrument(connection_spans=True)
    async with serving(Echo) as url:
        async with connected(url):
            opentelemetry.uninstrument()
            assert recorded.values() == {}
        # What was open ends its span.
        await until(lambda: len(recorded.spans) == 4)
        async with connected(url):
            pass
        assert len(recorded.spans) == 4
        recorded.instrument()
        async with connected(url):
            pass
    assert len(recorded.spans) == 6
    assert recorded.values()["websocket.connections"] >= 6


def test_without_opentelemetry_the_extra_is_named() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None\nimport tornado_ws.opentelemetry"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    needed = "tornado_ws.opentelemetry needs opentelemetry-api: pip install 'tornado_ws[otel]'"
    assert f"ImportError: {needed}" in done.stderr


def test_nobody_imports_opentelemetry_who_does_not_ask_for_it() -> None:
    program = "import sys, tornado_ws; tornado_ws.websocket_connect, tornado_ws.HTTPServer; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "opentelemetry" not in done.stdout.split()
    assert "prometheus_client" not in done.stdout.split()
