"""``examples/streams``: files to a server and back, by real programs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.programs import ROOT, environment
from tests.support import until

PROGRAM = str(ROOT / "examples" / "streams" / "files.py")
SIZE = 3_000_001


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        PROGRAM,
        *arguments,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def serving_files(folder: Path) -> AsyncIterator[str]:
    process = await start("server", str(folder), "--port", "0")
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.communicate()


async def run(*arguments: str) -> tuple[str, str]:
    said, complained = await (await start(*arguments)).communicate()
    return said.decode(), complained.decode()


@pytest.mark.gen_test
async def test_a_file_is_sent_and_fetched(tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    sent, kept, fetched = tmp_path / "sent.bin", tmp_path / "kept", tmp_path / "fetched"
    sent.write_bytes(data)
    kept.mkdir()
    expected = {"size": SIZE, "sha256": hashlib.sha256(data).hexdigest()}
    async with serving_files(kept) as url:
        said, complained = await run("put", url, str(sent))
        assert (json.loads(said), complained) == (expected, "")
        said, complained = await run("get", url, "sent.bin", str(fetched))
        assert (json.loads(said), complained) == (expected, "")
        _, complained = await run("get", url, "../sent.bin", str(fetched))
        assert "connection is closed" in complained
    assert (kept / "sent.bin").read_bytes() == fetched.read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fetched", "kept", "sent.bin"]


@pytest.mark.gen_test
async def test_a_sender_that_is_killed_leaves_no_file(tmp_path: Path) -> None:
    kept, pipe = tmp_path / "kept", tmp_path / "pipe"
    kept.mkdir()
    os.mkfifo(pipe)
    async with serving_files(kept) as url:
        client = await start("put", url, str(pipe))
        # It opens the pipe when it is connected, and waits there for more.
        writing = await asyncio.to_thread(pipe.open, "wb")
        with writing:
            writing.write(bytes(200_000))
            writing.flush()
            await until(lambda: any(path.stat().st_size for path in kept.iterdir()))
            client.kill()
            await client.communicate()
            await until(lambda: not list(kept.iterdir()))
