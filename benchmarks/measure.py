"""One measurement: one row, one peer, one fresh process. Each function returns figures by name.

The server (or client) under test has a core of its own; whatever keeps it busy has the other one.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from benchmarks.kinds import Row
from benchmarks.measure_broker import measure_over_broker
from benchmarks.measured import SLACK, Measured, Setup
from benchmarks.peers import FLOOR, HTTP_ALONE, IMPORTS, NODE, Client, Server
from benchmarks.process import python, resident_kib, run, running, usage_of
from benchmarks.tools import Tools, server_command

#: Seconds in which a server comes to rest before its memory is read.
_SETTLE = 0.5
_IMPORTS_A_ROUND = 5
#: Kinds of rows in which each message goes to all clients.
_TO_ALL = ("broadcast", "all-to-all")
#: Options of servers with parts of ours, by what a row needs. Others do it with what they have.
_OURS_ALONE = {"http-server": "--fast-http", "publish": "--topics"}


def measure(row: Row, peer: Server | Client | str, setup: Setup) -> Measured:
    """Measure once. Raises `FailedError`, which says why."""
    if isinstance(peer, str):
        return _importing(peer, setup)
    if isinstance(peer, Client):
        return _client(row, peer, setup)
    if row.over_broker is not None:
        return measure_over_broker(row, peer, setup)
    if "relay" in row.needs:
        # Beside the server: the load never sleeps, and would leave it no time on the other core.
        with running([setup.tools.program("floor")], setup.tested_core, {}) as (_, announcement):
            return _server(row, peer, setup, ["--relay", str(json.loads(announcement)["port"])])
    return _server(row, peer, setup, [])


def _server(row: Row, peer: Server, setup: Setup, options: list[str]) -> Measured:
    kinds = {"echo": _load, "broadcast": _load, "all-to-all": _load, "churn": _churn, "idle": _idle}
    command, environment = server_command(peer, setup.tools, _server_options(row, peer, setup.tools) + options)
    with running(command, setup.tested_core, environment) as (process, announcement):
        about = json.loads(announcement)
        figures = kinds[row.kind](row, peer, setup, process.pid, about.pop("port"))
        return Measured(figures, about)


def _server_options(row: Row, server: Server, tools: Tools) -> list[str]:
    options = []
    if row.kind in _TO_ALL:
        options.append("--broadcast")
    if row.burst:
        options += ["--burst", str(row.burst)]
    if server.name == FLOOR:
        return options
    if "tls" in row.needs:
        assert tools.certificate is not None
        certificate, key = map(str, tools.certificate)
        options += ["--certificate", certificate, "--key", key] if server.name == NODE else ["--tls", certificate, key]
    if "deflate" in row.needs:
        options += ["--compression", server.compression]
    if "pings" in row.needs:
        options += ["--ping-interval", "30"]
    if server.ours or server.name == HTTP_ALONE:
        options += [option for need, option in _OURS_ALONE.items() if need in row.needs]
    if row.shape != "plain":
        options += ["--shape", row.shape]
    options += [f"--{need}" for need in ("json", "uvloop") if need in row.needs]
    return options


def _load(row: Row, server: Server, setup: Setup, pid: int, port: int) -> dict[str, float]:
    tls, deflate = "tls" in row.needs, "deflate" in row.needs
    ring = setup.tools.ring(row.payload, deflate=deflate, compact="json" in row.needs and server.name == NODE)
    command = [
        str(setup.tools.load_tls) if tls else setup.tools.program("load"),
        *("--port", str(port), "--pid", str(pid), "--ring", str(ring)),
        *("--connections", str(row.connections), "--depth", str(row.depth)),
        *("--warmup", str(setup.warmup), "--seconds", str(setup.seconds)),
    ]
    chosen = {"tls": tls, "deflate": deflate, "raw": server.raw, row.kind: row.kind in _TO_ALL}
    command += [f"--{name}" for name, given in chosen.items() if given]
    if row.burst:
        command += ["--burst", str(row.burst)]
    before = usage_of(pid)
    result = run(command, setup.load_core, setup.warmup + setup.seconds + SLACK)
    after = usage_of(pid)
    figures = _cost(result, "server_cpu")
    # Over the warm-up too: the share is what counts.
    system, user = after.system - before.system, after.user - before.user
    if system + user:
        figures["system_share"] = system / (system + user)
    for name in ("p50_us", "p99_us", "load_cpu_share", "load_work_share"):
        figures[name] = result[name]
    if row.kind == "all-to-all":
        figures["iterations"] = figures["rate"] / row.connections**2
        figures["iteration_ms"] = 1000 / figures["iterations"]
    # Seen from the server.
    figures["wire_bytes_in"] = result["wire_out"] / result["messages"]
    figures["wire_bytes_out"] = result["wire_in"] / result["messages"]
    return figures


def _cost(result: dict[str, float], cpu: str) -> dict[str, float]:
    return {
        "cpu_us": result[cpu] / result["messages"] * 1e6,
        "rate": result["messages"] / result["seconds"],
        "busy_share": result[cpu] / result["seconds"],
    }


def _churn(row: Row, server: Server, setup: Setup, pid: int, port: int) -> dict[str, float]:
    command = [
        *(setup.tools.program("churn"), "--port", str(port), "--pid", str(pid), "--width", str(row.connections)),
        *("--warmup", str(setup.warmup), "--seconds", str(setup.seconds)),
    ]
    result = run(command, setup.load_core, setup.warmup + setup.seconds + SLACK)
    return {**_cost(result, "server_cpu"), "load_cpu_share": result["load_cpu_share"]}


def _idle(row: Row, server: Server, setup: Setup, pid: int, port: int) -> dict[str, float]:
    command = [setup.tools.program("idle"), "--port", str(port)]
    deflate = "deflate" in row.needs
    if deflate:
        command.append("--deflate")
    if row.exchange:
        command += ["--ring", str(setup.tools.ring(row.payload, deflate=deflate, compact=False))]
    # What the first connection of all brings (modules, caches) is no cost of a connection.
    with running([*command, "--connections", "1"], setup.load_core, {}):
        pass
    time.sleep(_SETTLE)
    before = resident_kib(pid)
    with running([*command, "--connections", str(row.connections)], setup.load_core, {}, SLACK):
        time.sleep(_SETTLE)
        return {"kib": (resident_kib(pid) - before) / row.connections}


def _client(row: Row, client: Client, setup: Setup) -> Measured:
    with running([setup.tools.program("floor"), "--spin"], setup.load_core, {}) as (_, announcement):
        options = ["--port", str(json.loads(announcement)["port"]), "--payload", row.payload]
        options += ["--warmup", str(setup.warmup), "--seconds", str(setup.seconds)]
        command = python(f"benchmarks.clients.{client.module}", *options)
        result = run(command, setup.tested_core, setup.warmup + setup.seconds + SLACK, client.environment)
    return Measured(_cost(result, "client_cpu"), {"versions": result["versions"]})


def _importing(name: str, setup: Setup) -> Measured:
    program = "".join(f"import {module}\n" for module in IMPORTS[name])
    # The first one may have to compile.
    _cpu_ms(program, setup.tested_core)
    with_it = statistics.median(_cpu_ms(program, setup.tested_core) for _ in range(_IMPORTS_A_ROUND))
    without = statistics.median(_cpu_ms("", setup.tested_core) for _ in range(_IMPORTS_A_ROUND))
    return Measured({"cpu_ms": with_it - without}, {})


def _cpu_ms(program: str, core: int) -> float:
    program += "import time; print(time.process_time() * 1000)"
    return float(run([sys.executable, "-c", program], core, SLACK))
