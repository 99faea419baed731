"""The metrics: what all connections of the process count, read when somebody exports it, and durations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from tornado_ws.observing.counters import ProcessCounters, counters

#: Seconds. A handshake takes as long as a request, a connection as long as somebody stays.
_HANDSHAKES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CONNECTIONS = (0.1, 1, 10, 60, 300, 900, 3600, 14400, 86400)

_RECEIVED = {"network.io.direction": "receive"}
_SENT = {"network.io.direction": "transmit"}

#: Name, unit, description, and the values by their attributes.
_Figure = tuple[str, str, str, Callable[[ProcessCounters], list[Observation]]]

_COUNTERS: list[_Figure] = [
    (
        "websocket.messages",
        "{message}",
        "Messages handed to the application, and taken from it.",
        lambda now: [Observation(now.messages_in, _RECEIVED), Observation(now.messages_out, _SENT)],
    ),
    (
        "websocket.message.io",
        "By",
        "Bytes of messages, before compression.",
        lambda now: [Observation(now.message_bytes_in, _RECEIVED), Observation(now.message_bytes_out, _SENT)],
    ),
    (
        "websocket.wire.io",
        "By",
        "Bytes of frames, headers and control frames among them.",
        lambda now: [Observation(now.wire_bytes_in, _RECEIVED), Observation(now.wire_bytes_out, _SENT)],
    ),
    (
        "websocket.messages.dropped",
        "{message}",
        "Messages not sent to peers that are too slow.",
        lambda now: [Observation(now.dropped)],
    ),
    (
        "websocket.connections",
        "{connection}",
        "Connections so far.",
        lambda now: [Observation(now.connections)],
    ),
]
_UP_DOWN_COUNTERS: list[_Figure] = [
    (
        "websocket.connections.open",
        "{connection}",
        "Connections that are open.",
        lambda now: [Observation(now.open_connections)],
    ),
    (
        "websocket.buffered",
        "By",
        "Bytes that wait to be sent.",
        lambda now: [Observation(now.buffered_amount)],
    ),
]


class _Snapshot:
    """One addition of the counters for all instruments that are read one after the other, in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters = ProcessCounters()
        self._had: set[str] | None = None

    def counters_for(self, name: str) -> ProcessCounters:
        with self._lock:
            # Who asks a second time reads anew.
            if self._had is None or name in self._had:
                self._counters = counters()
                self._had = set()
            self._had.add(name)
            return self._counters


class Instruments:
    """What one call of ``instrument`` records to."""

    #: The API has no way to take a callback back, and the SDK keeps the first ones of an instrument. So they ask here
    #: whether their provider is the one that is recorded to.
    _provider: MeterProvider | None = None

    def __init__(self, provider: MeterProvider, name: str) -> None:
        meter = provider.get_meter(name)
        self.handshake_duration = meter.create_histogram(
            "websocket.handshake.duration",
            "s",
            "Opening handshakes, from the request to the answer or the failure.",
            explicit_bucket_boundaries_advisory=_HANDSHAKES,
        )
        self.connection_duration = meter.create_histogram(
            "websocket.connection.duration",
            "s",
            "Connections, from the opening handshake to the end.",
            explicit_bucket_boundaries_advisory=_CONNECTIONS,
        )
        snapshot = _Snapshot()

        def callback_for(figure: _Figure) -> Callable[[CallbackOptions], Iterable[Observation]]:
            name, _, _, values = figure

            def observe(_: CallbackOptions) -> Iterable[Observation]:
                return values(snapshot.counters_for(name)) if Instruments._provider is provider else []

            return observe

        for figure in _COUNTERS:
            meter.create_observable_counter(figure[0], [callback_for(figure)], *figure[1:3])
        for figure in _UP_DOWN_COUNTERS:
            meter.create_observable_up_down_counter(figure[0], [callback_for(figure)], *figure[1:3])
        Instruments._provider = provider

    def stop(self) -> None:
        """Give out no counters any more."""
        Instruments._provider = None
