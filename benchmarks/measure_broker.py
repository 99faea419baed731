"""One measurement over a broker: Redis, a process that publishes, server processes, and the clients of all of them.

The servers have the core that is measured; Redis, the publisher and the clients have the other one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from benchmarks.kinds import OverBroker, Row
from benchmarks.measured import SLACK, Measured, Setup
from benchmarks.peers import BrokerClient, Server
from benchmarks.process import FailedError, python, run, running
from benchmarks.redis_server import redis_server, watched

#: Messages that came, of those that a rate asks for; below that it is no measurement at that rate.
_ENOUGH = 0.9


def measure_over_broker(row: Row, server: Server, setup: Setup) -> Measured:
    """Measure a row whose messages go over Redis. Raises `FailedError`, which says why."""
    over = row.over_broker
    assert over is not None
    assert setup.tools.redis_server is not None
    assert server.over_broker is not None
    with redis_server(setup.tools.redis_server, setup.load_core) as url, contextlib.ExitStack() as stack:
        options = ["--redis", url, *(["--missed", str(row.missed)] if row.missed else [])]
        command = python(f"benchmarks.servers.{server.over_broker.module}", *options)
        processes = [
            stack.enter_context(running(command, setup.tested_core, server.environment)) for _ in range(over.processes)
        ]
        abouts = [json.loads(announcement) for _, announcement in processes]
        pids = [process.pid for process, _ in processes]
        load = _Load(row, server.over_broker, setup, [about.pop("port") for about in abouts], pids)
        if row.kind == "resume":
            figures = _resume(load, url, abouts[0].pop("since"))
        else:
            figures = _follow(load, over, url, stack, server.environment)
        return Measured(figures, abouts[0])


class _Load:
    """The command of the program in C that is all clients."""

    def __init__(self, row: Row, client: BrokerClient, setup: Setup, ports: list[int], pids: list[int]) -> None:
        self.row, self.client, self.setup = row, client, setup
        self._common = [setup.tools.program("subscribe")]
        for port, pid in zip(ports, pids, strict=True):
            self._common += ["--port", str(port), "--pid", str(pid)]

    def run(self, *options: str) -> Any:
        timeout = self.setup.warmup + self.setup.seconds + SLACK
        return run([*self._common, *options], self.setup.load_core, timeout)


def _follow(
    load: _Load, over: OverBroker, url: str, stack: contextlib.ExitStack, environment: Mapping[str, str]
) -> dict[str, float]:
    """Measure clients that get what is published while they are there."""
    row, client = load.row, load.client
    module = "entries" if row.kind == "receive" else client.module
    asked = ["--redis", url, "--topics", str(over.topics), "--payload", row.payload]
    asked += ["--rate", str(over.rate)] if over.rate else ["--batch", str(over.batch)]
    command = python(f"benchmarks.publishers.{module}", *asked)
    _, announcement = stack.enter_context(running(command, load.setup.load_core, environment))
    options = ["--publisher", str(json.loads(announcement)["port"]), "--topics", str(over.topics)]
    options += ["--connections", str(row.connections), "--path", client.path, "--ready", client.ready]
    options += ["--greeting", client.greeting, "--warmup", str(load.setup.warmup)]
    options += ["--seconds", str(load.setup.seconds)]
    if over.rate:
        options.append("--at-rate")
    elif row.kind == "cluster":
        options += ["--each", str(over.batch)]
    result = load.run(*options)
    # A client of a row of receiving has the last message of each batch.
    messages = result["messages"] * (over.batch if row.kind == "receive" else 1)
    figures = {
        "cpu_us": result["server_cpu"] / messages * 1e6,
        "rate": messages / result["seconds"],
        "a_core": messages / result["server_cpu"],
        "busy_share": result["server_cpu"] / result["seconds"],
    }
    if row.kind == "cluster":
        figures.update(p50_us=result["p50_us"], p99_us=result["p99_us"])
    if over.rate:
        expected = over.rate * row.connections / over.topics
        if figures["rate"] < _ENOUGH * expected:
            raise FailedError(f"{figures['rate']:,.0f} messages a second came, of {expected:,.0f}")
    return figures


def _resume(load: _Load, url: str, since: str) -> dict[str, float]:
    """Measure clients that come back at once, and have missed what the server has in memory."""
    row = load.row
    options = ["--resume", "--each", str(row.missed), "--path", f"{load.client.path}&since={since}"]
    # What the first client of all brings (modules, caches) is no cost of a client.
    load.run(*options, "--connections", "1")
    with watched(url) as commands:
        result = load.run(*options, "--connections", str(row.connections))
    return {
        "cpu_us": result["server_cpu"] / row.connections * 1e6,
        "rate": row.connections / result["seconds"],
        "all_ms": result["seconds"] * 1000,
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
        "broker_reads": commands.reads,
    }
