"""One message of so many bytes, in both directions, in a process that may not grow: ``python -m … BYTES GROWTH``.

Server and client are in this one process, which prints what each of them got and by how much its addresses have grown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import zlib
from pathlib import Path
from typing import Any

from tests.support import serving
from tornado_ws import MessageStream, WebSocketHandler, WriteStream, websocket_connect

#: What is written at a time: a size that is none of the engine's.
CHUNK = os.urandom(150_000)


async def write(stream: WriteStream, size: int) -> None:
    """Write ``size`` bytes to ``stream``."""
    while size:
        part = CHUNK[:size]
        await stream.write(part)
        size -= len(part)


async def read(stream: Any) -> tuple[int, int]:
    """Return how many bytes came, and their checksum."""
    size = checksum = 0
    async for part in stream:
        size += len(part)
        checksum = zlib.adler32(part, checksum)
    return size, checksum


class Server(WebSocketHandler):
    """Says what it got, and sends as much."""

    async def on_message_stream(self, stream: MessageStream) -> None:
        size, checksum = await read(stream)
        await self.write_message(json.dumps((size, checksum)))
        async with self.write_stream(binary=True) as answer:
            await write(answer, size)


async def there_and_back(size: int) -> tuple[list[int], list[int]]:
    async with serving(Server) as url, websocket_connect(url, message_streams=True) as conn:
        async with conn.write_stream(binary=True) as stream:
            await write(stream, size)
        there = json.loads(str(await conn.read_message()))
        return there, list(await read(conn.read_stream()))


def addresses() -> int:
    """Return how many bytes of addresses this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main(size: int, growth: int) -> None:
    # What is imported, and what is made once.
    asyncio.run(there_and_back(len(CHUNK)))
    before = addresses()
    # Beyond this there is no memory.
    resource.setrlimit(resource.RLIMIT_AS, (before + growth, before + growth))
    there, back = asyncio.run(there_and_back(size))
    print(json.dumps({"there": there, "back": back, "grown": addresses() - before}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", type=int, metavar="BYTES")
    parser.add_argument("growth", type=int, metavar="GROWTH")
    given = parser.parse_args()
    main(given.size, given.growth)
