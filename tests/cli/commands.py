"""The command line, run as a program beside a server of the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from tests.programs import ROOT, environment
from tests.support import PATIENCE
from tornado_ws import WebSocketHandler, WebSocketProtocol13

#: A warning that nobody sees in a terminal would be a defect all the same.
PROGRAM = [sys.executable, "-W", "error", "-m", "tornado_ws"]


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@contextlib.asynccontextmanager
async def started(*arguments: str, **changes: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the program with pipes, and end it at the latest here."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT, env=environment(**changes)
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process, text: bytes = b"") -> Ended:
    """Give ``text`` and the end of input to a program, wait until it ends, and return what it wrote."""
    out, err = await asyncio.wait_for(process.communicate(text), PATIENCE)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def command(*arguments: str, text: bytes = b"", **changes: str) -> Ended:
    """Run the program with ``text`` as its input."""
    async with started(*arguments, **changes) as process:
        return await ended(process, text)


async def line_of(reader: asyncio.StreamReader | None) -> str:
    """Return the next line of what a program writes, without its end."""
    assert reader is not None
    return (await asyncio.wait_for(reader.readline(), PATIENCE)).decode().rstrip("\n")


def abort(handler: WebSocketHandler) -> None:
    """End a connection without a closing handshake."""
    assert isinstance(handler.ws_connection, WebSocketProtocol13)
    handler.ws_connection._abort()


def hiding(folder: Path, *modules: str) -> str:
    """Return a PYTHONPATH with which ``modules`` cannot be imported."""
    for module in modules:
        (folder / f"{module}.py").write_text(f"raise ImportError('{module} is hidden by the test')\n")
    return os.pathsep.join([str(folder), environment()["PYTHONPATH"]])
