"""The Prometheus example as a program of its own, scraped over HTTP."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from tests.support import PATIENCE

ROOT = Path(__file__).parent.parent


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(ROOT / "examples" / "metrics" / "metrics.py"), "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        yield process
        process.kill()


def scrape(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        text = response.read().decode()
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_prometheus_sees_what_connections_did(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    assert scrape(url)["websocket_connections_total"] == 0
    with connect(url.replace("http:", "ws:").removesuffix("metrics")) as ws:
        for _ in range(3):
            ws.send("x" * 1000)
            assert ws.recv() == "x" * 1000
        during = scrape(url)
    assert during["websocket_open_connections"] == 1
    assert during["websocket_messages_in_total"] == during["websocket_messages_out_total"] == 3
    assert during["websocket_message_bytes_in_total"] == during["websocket_message_bytes_out_total"] == 3000
    assert 0 < during["websocket_wire_bytes_out_total"] < 200
    assert during["websocket_buffered_amount"] == during["websocket_dropped_total"] == 0
    after = scrape(url)
    assert (after["websocket_open_connections"], after["websocket_connections_total"]) == (0, 1)
    assert after["websocket_messages_in_total"] == 3
    server.send_signal(signal.SIGTERM)
    _, log = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
    lines = [line for line in log.splitlines() if "closed: 3 messages in, 3 out" in line]
    assert len(lines) == 1
    assert "metrics [1 127.0.0.1] " in lines[0]
    assert any("[- -] 200 GET /metrics" in line for line in log.splitlines())
