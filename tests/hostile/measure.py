"""An attack and the server that it meets, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import trustme

from tests.support import PATIENCE

_ROOT = Path(__file__).parent.parent.parent


class Report(NamedTuple):
    """What the server has measured since the attack began; bytes and seconds."""

    #: Connections of the attack: that were opened, that are open, and the closed ones by their close code.
    opened: int
    open: int
    ends: dict[str, int]
    #: Bytes that it sent, those of messages after inflating; and calls of ``on_message``, ``on_ping`` and ``on_pong``.
    size: int
    callbacks: int
    #: Answers to the other client, and those since the attack was last heard of.
    answers: int
    quiet: int
    #: Bytes of memory: the most, and what is allocated now.
    peak: int
    held: int
    #: Between two answers to the other client.
    most_callbacks: int
    most_size: int
    most_wait: float


class Server:
    """A running `server`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, context: ssl.SSLContext | None) -> None:
        self._process = process
        self.port = port
        #: What a client of it trusts, None without TLS.
        self.context = context

    async def ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        await self._process.stdin.drain()
        return await answer(self._process)

    async def report(self, command: str = "report") -> Report:
        return Report(**await self.ask(command))

    async def until(self, condition: Callable[[Report], object], command: str = "report") -> Report:
        """Wait until a report fulfils ``condition``, for as long as the attack gets on; returns it."""
        before, deadline = None, 0.0
        while not condition(report := await self.report(command)):
            now, got = asyncio.get_running_loop().time(), (report.opened, report.open, report.size, report.callbacks)
            if got != before:
                before, deadline = got, now + PATIENCE
            assert now < deadline, f"waited in vain: {report}"
            await asyncio.sleep(0.005)
        return report


async def answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, "the server has ended"
    result: dict[str, Any] = json.loads(line)
    return result


@contextlib.asynccontextmanager
async def running_server(
    settings: Mapping[str, Any], memory: str, *, tls: bool, engine: str | None = None
) -> AsyncIterator[Server]:
    """Run the server with one of the `tests.hostile.server.METERS`, on ``engine`` or on that of this process."""
    environment = dict(os.environ)
    if memory == "heap":
        environment["PYTHONMALLOC"] = "malloc"
    if engine is not None:
        environment["TORNADO_WS_ENGINE"] = engine
    context = None
    with tempfile.TemporaryDirectory() as folder:
        certificate = None
        if tls:
            authority = trustme.CA()
            context = ssl.create_default_context()
            authority.configure_trust(context)
            certificate = f"{folder}/certificate"
            authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        arguments = {"settings": dict(settings), "memory": memory, "certificate": certificate}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.hostile.server", json.dumps(arguments)),
            cwd=_ROOT,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield Server(process, (await answer(process))["port"], context)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
