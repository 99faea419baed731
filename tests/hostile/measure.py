"""An attack and the program that it meets, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import trustme

from tests.programs import untraced
from tests.support import PATIENCE

_ROOT = Path(__file__).parent.parent.parent


class Report(NamedTuple):
    """What the attacked program has measured since the attack began; bytes and seconds."""

    #: Connections of the attack: that were opened, that are open (of a client, or on their way), and how the others
    #: ended: by a close code, or by the exception of `websocket_connect`.
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


class Program:
    """A running `server` or `client`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, context: ssl.SSLContext | None) -> None:
        self._process = process
        self.port = port
        #: What a client of it trusts; None for a client, and without TLS.
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
    assert line, "the program has ended"
    result: dict[str, Any] = json.loads(line)
    return result


@contextlib.asynccontextmanager
async def _running(
    name: str, memory: str, engine: str | None, context: ssl.SSLContext | None = None, **arguments: Any
) -> AsyncIterator[Program]:
    # What a tracer allocates is no cost of an attack either.
    environment = untraced()
    if memory == "heap":
        environment["PYTHONMALLOC"] = "malloc"
    if engine is not None:
        environment["TORNADO_WS_ENGINE"] = engine
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", f"tests.hostile.{name}", json.dumps({"memory": memory, **arguments})),
        cwd=_ROOT,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Program(process, (await answer(process))["port"], context)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def running_server(
    settings: Mapping[str, Any], memory: str, *, tls: bool, engine: str | None = None
) -> AsyncIterator[Program]:
    """Run the server with one of the `tests.hostile.meter.METERS`, on ``engine`` or on that of this process."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = context = None
        if tls:
            authority = trustme.CA()
            context = ssl.create_default_context()
            authority.configure_trust(context)
            certificate = f"{folder}/certificate"
            authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        options = {"settings": dict(settings), "certificate": certificate}
        async with _running("server", memory, engine, context, **options) as program:
            yield program


@contextlib.asynccontextmanager
async def running_client(
    settings: Mapping[str, Any], memory: str, *, port: int, engine: str | None = None
) -> AsyncIterator[Program]:
    """Run the client, as `running_server` does the server. It connects to ``port``."""
    async with _running("client", memory, engine, settings=dict(settings), port=port) as program:
        yield program
