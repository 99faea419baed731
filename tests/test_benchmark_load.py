"""The programs in C that are the clients of benchmarks: what they count, and that they see what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tornado.web import RequestHandler

from benchmarks.measure import measure
from benchmarks.measured import Setup
from benchmarks.peers import OURS, SERVERS
from benchmarks.process import FailedError, run, running
from benchmarks.publishers.common import stamped
from benchmarks.ring import write_rings
from benchmarks.rows import ROWS
from benchmarks.tools import MissingError, Tools, make_tools
from tests.needs import need
from tests.programs import one_core
from tests.support import PATIENCE, serving
from tornado_ws import WebSocketHandler

pytestmark = pytest.mark.xdist_group("benchmark load")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    need(sys.platform == "linux", "Linux, which the benchmarks are for,")
    try:
        return make_tools(tmp_path_factory.mktemp("tools"), [])
    except MissingError as error:
        need(False, f"what the load is compiled with ({error})")
        raise


def load(tools: Tools, port: int, *options: str) -> Any:
    ring = tools.directory / "ring"
    # Of different sizes: whoever expects another one of them sees that.
    write_rings(ring, ["1", "22", "333", "4444"], deflate=False)
    return run([tools.program("load"), "--port", str(port), "--ring", str(ring), *options], one_core(), PATIENCE)


@pytest.mark.parametrize(("options", "each"), [(("--all-to-all",), 25), (("--broadcast", "--depth", "3"), 15)])
def test_messages_that_go_to_all_are_expected_from_all_and_by_all(
    tools: Tools, options: tuple[str, ...], each: int
) -> None:
    with running([tools.program("floor"), "--broadcast"], one_core(), {}) as (_, announcement):
        port = json.loads(announcement)["port"]
        result = load(tools, port, *options, "--connections", "5", "--warmup", "0.1", "--seconds", "0.1")
    # What is measured are whole rounds, and one at least was before it.
    assert result["messages"] > 0
    assert result["messages"] % each == 0


def test_all_to_all_is_of_one_message_each(tools: Tools) -> None:
    with pytest.raises(FailedError, match="--all-to-all is of one message each"):
        load(tools, 1, "--all-to-all", "--depth", "2")


async def resume(tools: Tools, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Have three clients come back, each of which has missed two messages."""
    port = url.rpartition(":")[2]
    command = [tools.program("subscribe"), "--resume", "--port", port, "--connections", "3", "--each", "2", *options]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def sending(messages: Callable[[], list[str]], close: bool = False) -> type[RequestHandler]:
    class Handler(WebSocketHandler):
        async def open(self, *args: str, **kwargs: str) -> None:
            for message in messages():
                self.write_message(message)
            if close:
                self.close(1012, "messages were missed")

    return Handler


def two() -> list[str]:
    return [stamped("x" * 256), stamped("x" * 70_000)]


@pytest.mark.gen_test
async def test_clients_that_come_back_are_done_when_each_has_all(tools: Tools) -> None:
    async with serving(sending(lambda: ["a heartbeat", *two()])) as url:
        done = await resume(tools, url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["messages"] == 6


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (lambda: [*two(), *two()], "a client got more than it had missed"),
        (lambda: two()[::-1], "a message came behind a newer one"),
        (lambda: ["@123"], "a message without a time"),
        (lambda: ["@" + "x" * 40], "a message without a time"),
    ],
    ids=["too many", "in the wrong order", "with a short time", "with no time"],
)
async def test_messages_that_are_not_as_published_end_the_load(
    tools: Tools, messages: Callable[[], list[str]], says: str
) -> None:
    async with serving(sending(messages)) as url:
        done = await resume(tools, url)
    assert (done.returncode, done.stderr.strip()) == (1, says)


@pytest.mark.gen_test
async def test_a_server_that_closes_a_connection_ends_the_load_with_its_reason(tools: Tools) -> None:
    async with serving(sending(list, close=True)) as url:
        done = await resume(tools, url)
    assert (done.returncode, done.stderr.strip()) == (1, "the server closed a connection: messages were missed")


@pytest.mark.gen_test
async def test_each_topic_has_clients_of_each_server(tools: Tools) -> None:
    asked: list[tuple[str, str]] = []

    def handler(name: str) -> type[RequestHandler]:
        class Handler(WebSocketHandler):
            async def open(self, *args: str, **kwargs: str) -> None:
                asked.append((name, self.get_argument("topic")))
                for message in two():
                    self.write_message(message)

        return Handler

    async with serving(handler("a"), alone=False) as a, serving(handler("b"), alone=False) as b:
        done = await resume(tools, a, "--port", b.rpartition(":")[2], "--connections", "8", "--topics", "2")
    assert done.returncode == 0, done.stderr
    assert sorted(asked) == [(name, topic) for name in "ab" for topic in ("t0", "t0", "t1", "t1")]


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("all-to-all", {"cpu_us", "iterations", "iteration_ms", "p50_us", "p99_us"}),
        ("publish-8-deflate", {"cpu_us", "p50_us", "p99_us", "wire_bytes_out"}),
        ("cluster", {"cpu_us", "a_core", "p50_us", "p99_us"}),
        ("receive", {"cpu_us", "a_core"}),
        ("resume", {"cpu_us", "all_ms", "p50_us", "p99_us", "broker_reads"}),
    ],
)
def test_a_row_is_measured_from_its_programs_to_its_figures(tools: Tools, name: str, figures: set[str]) -> None:
    (row,) = (row for row in ROWS if row.id == name)
    (server,) = (server for server in SERVERS if server.name == OURS)
    need(tools.redis_server, "redis-server, or the package redis,")
    measured = measure(row, server, Setup(tools, max(os.sched_getaffinity(0)), one_core(), 0.1, 0.1))
    assert figures <= set(measured.figures)
    zero = {figure for figure in figures if measured.figures[figure] == 0}
    assert zero == {"broker_reads"} & figures
