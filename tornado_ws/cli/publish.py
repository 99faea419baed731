"""``publish TOPIC [MESSAGE]``: publish from a shell, or from a program of any kind."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator

from tornado_ws.cli import statuses
from tornado_ws.cli.interrupts import run_to_end
from tornado_ws.cli.lines import read_all, read_lines, writing
from tornado_ws.escaping import shown
from tornado_ws.pubsub.topics import Topics

#: Those of `Settings` that are arguments.
_SETTINGS = ("prefix", "streams", "max_length", "publish_timeout")


def main(options: argparse.Namespace) -> int:
    """Publish, and print the position of each message; returns the exit status."""
    return asyncio.run(run_to_end(_publish(options)))


async def _publish(options: argparse.Namespace) -> int:
    settings = {name: getattr(options, name) for name in _SETTINGS}
    async with Topics(options.url, **settings) as topics, writing(1) as out:
        async for data in _messages(options):
            position = await topics.publish(options.topic, data if options.binary else _text(data))
            out.put(f"{position}\n".encode())
            await out.room()
    return statuses.OK


async def _messages(options: argparse.Namespace) -> AsyncIterator[bytes]:
    if options.message is not None:
        # What is no text stays as it was given.
        yield options.message.encode(errors="surrogateescape")
    elif options.lines:
        async for line in read_lines(0):
            yield line
    else:
        yield await read_all(0)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the message is {shown(data, 40)}; it has to be UTF-8, or --binary") from error
