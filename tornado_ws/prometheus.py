"""What connections and topics count, for Prometheus: `register` gives it to a registry, `MetricsHandler` shows one.

Needs ``pip install 'tornado_ws[prometheus]'``. Nothing is counted a second time: `tornado_ws.counters` and the topics
are asked when Prometheus asks, and they ask nobody. docs/observing.md has the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

try:
    import prometheus_client
except ImportError as error:
    raise ImportError(
        f"tornado_ws.prometheus needs prometheus-client: pip install 'tornado_ws[prometheus]' ({error})"
    ) from error

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from tornado.web import RequestHandler

from tornado_ws.observing.counters import counters
from tornado_ws.pubsub.topics import Topics

#: Of a connection, by direction: what the name of a counter says, and those of its attributes.
_DIRECTIONS = {
    "messages": "Messages handed to the application (in), and taken from it (out).",
    "message_bytes": "Bytes of messages, before compression.",
    "wire_bytes": "Bytes of frames, headers and control frames among them.",
}
#: The counters of topics: attributes, and what they count.
_TOPICS = {
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
#: Those that each name and prefix of ``counted`` has too.
_NAMED = ("published", "received", "delivered", "gaps")


class Collector:
    """Gives a registry of Prometheus what all connections of this process count, and one `Topics`.

    :param topics: whose counters are given too; None, the default, is none.
    :raises TypeError: for what is no `Topics`.
    """

    def __init__(self, topics: Topics | None = None) -> None:
        if topics is not None and not isinstance(topics, Topics):
            raise TypeError(f"topics is of type {type(topics).__name__}; allowed are a Topics and None")
        self.topics = topics

    def describe(self) -> Iterable[Metric]:
        """Return the names, by which a registry finds what is registered twice."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Ask the counters; may be called in any thread."""
        now = counters()
        yield CounterMetricFamily("websocket_connections", "Connections so far.", now.connections)
        yield GaugeMetricFamily("websocket_open_connections", "Connections that are open.", now.open_connections)
        for name, text in _DIRECTIONS.items():
            family = CounterMetricFamily(f"websocket_{name}", text, labels=["direction"])
            for direction in ("in", "out"):
                family.add_metric([direction], getattr(now, f"{name}_{direction}"))
            yield family
        dropped = "Messages not sent to peers that are too slow."
        yield CounterMetricFamily("websocket_dropped_messages", dropped, now.dropped)
        yield GaugeMetricFamily("websocket_buffered_bytes", "Bytes that wait to be sent.", now.buffered_amount)
        if now.latency.smoothed is not None:
            trips = "Round trips of pings, smoothed; the mean over the open connections."
            yield GaugeMetricFamily("websocket_round_trip_seconds", trips, now.latency.smoothed)
        if self.topics is not None:
            yield from _collect_topics(self.topics)


def _collect_topics(topics: Topics) -> Iterator[Metric]:
    for name, text in _TOPICS.items():
        yield CounterMetricFamily(f"websocket_topics_{name}", text, getattr(topics.counters, name))
    for name in _NAMED:
        family = CounterMetricFamily(f"websocket_topic_{name}", _TOPICS[name], labels=["topic"])
        for topic, of_topic in topics.counted.items():
            family.add_metric([topic], getattr(of_topic, name))
        yield family
    lag = topics.lag()
    yield GaugeMetricFamily("websocket_topics_lag_seconds", "How long messages wait in the broker.", lag.seconds)
    # A server before Redis 7 does not count them.
    if lag.messages is not None:
        waiting = "Messages that wait in the broker."
        yield GaugeMetricFamily("websocket_topics_lag_messages", waiting, lag.messages)
    away = "Whether the broker is away: 1, or else 0."
    yield GaugeMetricFamily("websocket_topics_broker_away", away, int(topics.is_away))


def register(
    registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY, *, topics: Topics | None = None
) -> Collector:
    """Have ``registry`` give out what connections count, and ``topics``; returns what ``registry.unregister`` takes.

    :param registry: by default Prometheus' global one.
    :param topics: as in `Collector`.
    :raises TypeError: for what is no registry, and no `Topics`.
    :raises ValueError: where the registry has metrics of these names already, as when this was called before.
    """
    if not isinstance(registry, prometheus_client.CollectorRegistry):
        raise TypeError(f"registry is of type {type(registry).__name__}; it has to be a CollectorRegistry")
    collector = Collector(topics)
    try:
        registry.register(collector)
    except ValueError as error:
        raise ValueError(
            "the registry has metrics of these names already; tornado_ws.prometheus can be registered once with each "
            f"({error})"
        ) from error
    return collector


class MetricsHandler(RequestHandler):
    """Answers Prometheus, in the format that it accepts: ``(r"/metrics", MetricsHandler, {"registry": registry})``.

    ``registry`` is by default Prometheus' global one.
    """

    def initialize(self, registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY) -> None:
        self.registry = registry

    def get(self) -> None:
        encode, content_type = choose_encoder(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.finish(encode(self.registry))
