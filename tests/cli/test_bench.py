"""``bench``: figures of an echo server, and nothing but an error for any other."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import PROGRAM, command, ended, started
from tests.cli.terminal import running
from tests.support import Echo, serving, until
from tornado_ws import WebSocketHandler
from tornado_ws.cli import bench


@pytest.mark.gen_test
async def test_figures() -> None:
    sizes: list[int] = []

    class Counts(Echo):
        def get_compression_options(self) -> dict[str, Any]:
            return {}

        def open(self) -> None:
            offered.append("permessage-deflate" in self.request.headers.get("Sec-WebSocket-Extensions", ""))

        def on_message(self, message: str | bytes) -> Any:
            sizes.append(len(message))
            return super().on_message(message)

    offered: list[bool] = []
    arguments = ["--connections", "3", "--messages", "20", "--size", "100", "--compress"]
    async with serving(Counts) as url:
        status, out, err = await command("bench", f"{url}/?secret", *arguments, "--json")
        assert (status, err) == (0, "")
        figures = json.loads(out)
        assert (sizes, offered) == ([100] * 60, [True] * 3)
        assert figures["url"] == f"{url}/"
        assert [figures[name] for name in ("connections", "size", "messages")] == [3, 100, 60]
        assert figures["messages_per_second"] == pytest.approx(60 / figures["seconds"], rel=0.01)
        assert 0 < figures["round_trip_p50_ms"] <= figures["round_trip_p99_ms"]
        assert figures["connections_per_second"] > 0
        status, out, err = await command("bench", url, "--seconds", "0.2")
        assert (status, err) == (0, "")
        assert [line.partition(":")[0] for line in out.splitlines()] == ["connections", "messages", "round trip"]


class Changes(WebSocketHandler):
    def on_message(self, message: str | bytes) -> Any:
        return self.write_message("\x1b[2J")


class Closes(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.close(1011 if self.request.path == "/bad" else 1000)


@pytest.mark.gen_test
async def test_other_servers() -> None:
    async with serving([("/changes", Changes), ("/.*", Closes)]) as url:
        for path, status, said in (
            ("/changes", 1, "bench needs a server that sends every message back; it got '0.0.xxx"),
            ("/changes", 1, r"and sent '\x1b[2J'"),
            ("/good", 1, "it closed the connection"),
            ("/bad", 5, "closed with 1011"),
        ):
            result = await command("bench", url + path, "--connections", "2")
            assert (result.status, result.out) == (status, "")
            assert said in result.err
        result = await command("bench", url + "/changes", "--seconds", "1e-9")
        assert (result.status, result.out, "nothing came back in that time" in result.err) == (1, "", True)
    assert (await command("bench", url)).status == 3


@pytest.mark.gen_test
async def test_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from tornado_ws.cli.arguments import parser

    monkeypatch.setattr(bench, "_PATIENCE", 0.1)
    async with serving(WebSocketHandlerOfNothing) as url:
        assert await bench._bench(parser("x").parse_args(["bench", url])) == 1
    assert "it sent nothing for 0.1 seconds" in capfd.readouterr().err


class WebSocketHandlerOfNothing(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        pass


@pytest.mark.gen_test
async def test_an_interrupt() -> None:
    handlers: list[Echo] = []

    class Opens(Echo):
        def open(self) -> None:
            handlers.append(self)

        def on_close(self) -> None:
            handlers.remove(self)

    async with serving(Opens) as url, started("bench", url, "--seconds", "1000") as process:
        await until(lambda: handlers)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(ended(process), 60) == (130, "", "")
        await until(lambda: not handlers)


@pytest.mark.gen_test
async def test_progress_is_shown_in_a_terminal(tmp_path: Path) -> None:
    async with serving(Echo) as url, running(*PROGRAM, "bench", url, "--seconds", "1000") as terminal:
        await terminal.shows("%")
        await until(lambda: any("messages" in line and not line.startswith("0 ") for line in terminal.lines))
        terminal.type("\x03")
        assert await terminal.ends() == 130


def test_percentiles() -> None:
    times = [float(number) for number in range(1, 201)]
    assert (bench._percentile(times, 50), bench._percentile(times, 99), bench._percentile([7.0], 99)) == (100, 198, 7)
