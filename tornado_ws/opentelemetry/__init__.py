"""OpenTelemetry: spans of opening handshakes and connections, metrics of connections and messages.

Needs ``pip install 'tornado_ws[otel]'``, which is the API alone: without an SDK that the application sets up nothing is
recorded. Nothing happens before `instrument` is called. docs/observing.md has the names of all that is recorded.
"""

from __future__ import annotations

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError(
        f"tornado_ws.opentelemetry needs opentelemetry-api: pip install 'tornado_ws[otel]' ({error})"
    ) from error

from tornado_ws.connection import interfaces
from tornado_ws.escaping import shown
from tornado_ws.opentelemetry.instruments import Instruments
from tornado_ws.opentelemetry.observer import SpanObserver

_NAME = "tornado_ws"


def instrument(
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    *,
    connection_spans: bool = False,
    message_events: int = 0,
) -> None:
    """Record the handshakes that begin from now on, and their connections, in this process.

    :param tracer_provider: where spans go; None, the default, is OpenTelemetry's global one.
    :param meter_provider: where metrics go; None, the default, is OpenTelemetry's global one.
    :param connection_spans: whether each connection has a span too. It is exported when the connection ends.
    :param message_events: how many messages of a connection, in both directions together, are events of its span; 0,
        the default, is none. All bytes of the connection are looked at for it, as for the log of frames.
    :raises RuntimeError: when it was called before, and `uninstrument` was not.
    :raises TypeError: for what is no provider.
    :raises ValueError: for wrong ``connection_spans`` and ``message_events``, and for events without a span.
    """
    if interfaces.observer is not None:
        raise RuntimeError("tornado_ws is instrumented already; call uninstrument() first")
    for name, given, kind in (
        ("tracer_provider", tracer_provider, trace.TracerProvider),
        ("meter_provider", meter_provider, metrics.MeterProvider),
    ):
        if given is not None and not isinstance(given, kind):
            raise TypeError(f"{name} is of type {type(given).__name__}; allowed are a {kind.__name__} and None")
    if not isinstance(connection_spans, bool):
        raise ValueError(f"connection_spans is {shown(connection_spans)}; it has to be True or False")
    if not isinstance(message_events, int) or isinstance(message_events, bool) or message_events < 0:
        raise ValueError(f"message_events is {shown(message_events)}; it has to be a whole number from 0")
    if message_events and not connection_spans:
        raise ValueError(
            f"message_events is {message_events} and connection_spans is False; the events are those of a connection's "
            "span, so it has to be True"
        )
    tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
    instruments = Instruments(meter_provider or metrics.get_meter_provider(), _NAME)
    interfaces.observer = SpanObserver(tracer, instruments, connection_spans, message_events)


def uninstrument() -> None:
    """Record nothing that begins from now on, and give out no counters; does nothing where nothing is recorded.

    Connections that are open end their spans, and count in the histograms.
    """
    if isinstance(interfaces.observer, SpanObserver):
        interfaces.observer.instruments.stop()
        interfaces.observer = None
