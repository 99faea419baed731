"""``tornado_ws.prometheus``; what a server of it answers to a scrape is in `tests.test_metrics_example`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.openmetrics import parser
from tornado.httpclient import AsyncHTTPClient

from tests.support import Echo, connected, serving, until
from tornado_ws import Topics, prometheus


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None, name
    return found


@pytest.mark.gen_test
async def test_a_registry_gives_what_connections_count() -> None:
    registry = CollectorRegistry()
    prometheus.register(registry)
    before = value(registry, "websocket_messages_total", direction="in")
    async with serving(Echo) as url, connected(url, ping_interval=0.01) as conn:
        await conn.write_message("x")
        await conn.read_message()
        # One at each end.
        assert value(registry, "websocket_messages_total", direction="in") == before + 2
        assert value(registry, "websocket_open_connections") == 2
        await until(lambda: registry.get_sample_value("websocket_round_trip_seconds"))
    assert value(registry, "websocket_open_connections") == 0
    # The mean of no connection.
    assert registry.get_sample_value("websocket_round_trip_seconds") is None
    # Without topics there is nothing about them.
    assert not any("topic" in metric.name for metric in registry.collect())


def test_the_global_registry_is_the_default() -> None:
    collector = prometheus.register()
    try:
        assert b"websocket_connections_total" in generate_latest(REGISTRY)
    finally:
        REGISTRY.unregister(collector)
    assert b"websocket_connections_total" not in generate_latest(REGISTRY)


@pytest.mark.gen_test
async def test_registering_twice_is_an_error_that_says_so() -> None:
    registry = CollectorRegistry()
    collector = prometheus.register(registry)
    async with Topics() as topics:
        with pytest.raises(ValueError, match=r"has metrics of these names already; .* once with each"):
            prometheus.register(registry, topics=topics)
        registry.unregister(collector)
        prometheus.register(registry, topics=topics)
        assert value(registry, "websocket_topics_published_total") == 0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: prometheus.register("x"), "registry is of type str; it has to be a CollectorRegistry"),  # type: ignore[arg-type]
        (lambda: prometheus.register(topics=5), "topics is of type int; allowed are a Topics and None"),  # type: ignore[arg-type]
    ],
    ids=["registry", "topics"],
)
def test_a_wrong_argument_is_an_error_that_says_what_is_allowed(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        call()


@pytest.mark.gen_test
@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=1.0.0", "*/*"])
async def test_the_handler_answers_in_the_format_that_is_accepted(accept: str) -> None:
    registry = CollectorRegistry()
    prometheus.register(registry)
    async with serving([("/metrics", prometheus.MetricsHandler, {"registry": registry})]) as url:
        address = url.replace("ws:", "http:") + "/metrics"
        answer = await AsyncHTTPClient(force_instance=True).fetch(address, headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith(accept.partition(";")[0].replace("*/*", "text/plain"))
    if accept != "*/*":
        # Its parser is strict about names, units and types.
        parse: Any = parser.text_string_to_metric_families
        assert "websocket_messages" in {family.name for family in parse(answer.body.decode())}


def test_without_prometheus_client_the_extra_is_named() -> None:
    program = "import sys; sys.modules['prometheus_client'] = None\nimport tornado_ws.prometheus"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    needed = "tornado_ws.prometheus needs prometheus-client: pip install 'tornado_ws[prometheus]'"
    assert f"ImportError: {needed}" in done.stderr
