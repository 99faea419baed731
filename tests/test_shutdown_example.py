"""``examples/shutdown``: a real server, a real signal, under load."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peer import raw_client
from tests.support import PATIENCE, until
from tornado_ws import WebSocketClosedError, websocket_connect

SERVER = Path(__file__).parent.parent / "examples" / "shutdown" / "server.py"
CLIENTS = 8


class Client:
    """Sends numbered messages, more than are answered at once, for as long as it can."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.sent = 0
        self.end: tuple[int | None, str | None] | None = None

    async def run(self, url: str) -> None:
        async with websocket_connect(url) as conn:
            with contextlib.suppress(WebSocketClosedError):
                while True:
                    while self.sent < len(self.answers) + 20:
                        await conn.write_message(f"{self.sent}")
                        self.sent += 1
                    answer = await conn.read_message()
                    if answer is None:
                        break
                    self.answers.append(str(answer))
            async for answer in conn:
                self.answers.append(str(answer))
            self.end = conn.close_code, conn.close_reason


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), "--port", "0", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def last_line(process: asyncio.subprocess.Process) -> list[int]:
    """Return what the server counted: handled, closed, aborted."""
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert err == b""
    assert process.returncode == 0
    return [int(number) for number in re.findall(r"\d+", out.decode())]


@pytest.mark.gen_test
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_every_message_that_was_handled_was_answered(number: signal.Signals) -> None:
    async with running() as (process, url):
        clients = [Client() for _ in range(CLIENTS)]
        tasks = [asyncio.ensure_future(client.run(url)) for client in clients]
        await until(lambda: all(len(client.answers) > 50 for client in clients))
        process.send_signal(number)
        await asyncio.gather(*tasks)
        handled, closed, aborted = await last_line(process)
    for client in clients:
        assert client.end == (1001, "restarting")
        # In order, without a gap; what was not answered was not handled.
        assert client.answers == [f"done: {index}" for index in range(len(client.answers))]
    assert handled == sum(len(client.answers) for client in clients)
    assert handled < sum(client.sent for client in clients), "there was no load"
    assert (closed, aborted) == (CLIENTS, 0)


@pytest.mark.gen_test
async def test_a_client_that_answers_nothing_is_not_waited_for() -> None:
    async with running() as (process, url), raw_client(url):
        process.send_signal(signal.SIGTERM)
        # The server gives it 5 seconds, and everybody together 8.
        assert await last_line(process) == [0, 0, 1]
