"""The Prometheus example as a program of its own, scraped over HTTP."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from tests.pubsub.redis_server import RedisServer, started
from tests.support import PATIENCE

ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the example; gives it and its URL."""
    command = [sys.executable, str(ROOT / "examples" / "metrics" / "metrics.py"), "--port", "0", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def scrape(url: str) -> dict[str, float]:
    """Return the values by name, with the label behind it where there is one: ``name/topic``."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        text = response.read().decode()
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_sees_what_connections_did() -> None:
    with running() as (server, url):
        _connections_are_seen(server, url)


def _connections_are_seen(server: subprocess.Popen[str], url: str) -> None:
    assert scrape(url)["websocket_connections_total"] == 0
    with connect(url.replace("http:", "ws:").removesuffix("metrics")) as ws:
        for _ in range(3):
            ws.send("x" * 1000)
            assert ws.recv() == "x" * 1000
        during = scrape(url)
    assert during["websocket_open_connections"] == 1
    for direction in ("in", "out"):
        assert during[f"websocket_messages_total/{direction}"] == 3
        assert during[f"websocket_message_bytes_total/{direction}"] == 3000
    assert 0 < during["websocket_wire_bytes_total/out"] < 200
    assert during["websocket_buffered_bytes"] == during["websocket_dropped_messages_total"] == 0
    after = scrape(url)
    assert (after["websocket_open_connections"], after["websocket_connections_total"]) == (0, 1)
    assert after["websocket_messages_total/in"] == 3
    server.send_signal(signal.SIGTERM)
    _, log = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
    lines = [line for line in log.splitlines() if "closed: 3 messages in, 3 out" in line]
    assert len(lines) == 1
    assert "metrics [1 127.0.0.1] " in lines[0]
    assert any("[- -] 200 GET /metrics" in line for line in log.splitlines())


def scraped_until(url: str, name: str, least: float) -> dict[str, float]:
    """Scrape until the value of ``name`` is there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = scrape(url)
        if found[name] >= least:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def test_prometheus_sees_what_topics_did(tmp_path: Path) -> None:
    """Two processes that share a broker, whose connections are cut once."""
    redis_server = RedisServer(tmp_path)
    with (
        started(redis_server),
        running("--redis", redis_server.url) as (_, here),
        running("--redis", redis_server.url) as (_, there),
    ):
        rooms = [url.replace("http:", "ws:").replace("metrics", "room/") for url in (here, there)]
        with (
            connect(f"{rooms[0]}lobby") as first,
            connect(f"{rooms[1]}lobby") as second,
            connect(f"{rooms[1]}attic") as third,
        ):
            for client in (first, second, third):
                # Who hears itself is subscribed.
                client.send(str(id(client)))
                while client.recv() != str(id(client)):
                    pass
            before = scrape(there)
            first.send("for the lobby")
            for client in (first, second):
                while client.recv() != "for the lobby":
                    pass
            third.send("for the attic")
            assert third.recv() == "for the attic"
            after = scrape(there)
        for topic, expected in (("room/lobby", [0, 1, 1, 0]), ("room/*", [1, 1, 1, 0])):
            names = [f"websocket_topic_{each}_total/{topic}" for each in ("published", "received", "delivered", "gaps")]
            assert [after[name] - before[name] for name in names] == expected
        assert after["websocket_topics_received_total"] - before["websocket_topics_received_total"] == 2
        for name in ("lag_messages", "lag_seconds", "broker_away", "outages_total", "reconnects_total"):
            assert after[f"websocket_topics_{name}"] == 0
        redis_server.kill_connections()
        cut = scraped_until(there, "websocket_topics_reconnects_total", 1)
        assert cut["websocket_topics_gaps_total"] == 0
