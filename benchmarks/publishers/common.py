"""What the publishers share: their options, how they are asked to publish, and what a message is."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, NoReturn

from benchmarks.payloads import PAYLOADS
from benchmarks.servers.common import HOST, LIFETIME

#: What the topic of each number is called; `benchmarks/load/subscribe.c` asks servers for the same.
TOPIC = "t{}"
#: Seconds between two looks at what a rate asks for.
_TICK = 0.001


class Options(NamedTuple):
    redis: str
    topics: int
    batch: int
    rate: int
    payload: str


#: Publishes messages, each to its topic, and returns when the broker has them or will get them.
Publish = Callable[[list[tuple[str, str]]], Awaitable[object]]


def parse_options() -> Options:
    """Read the command line, which all publishers share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--redis", metavar="URL", required=True)
    parser.add_argument("--topics", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="messages that are published for each byte that comes")
    parser.add_argument("--rate", type=int, default=0, help="messages a second, from the first byte on")
    parser.add_argument("--payload", choices=PAYLOADS, default="text 256 B")
    arguments = parser.parse_args()
    return Options(arguments.redis, arguments.topics, arguments.batch, arguments.rate, arguments.payload)


def stamped(text: str) -> str:
    """Return a message of the size of ``text`` that says the time, in the form that the load knows."""
    stamp = f"@{time.monotonic_ns():019d} "
    return stamp + text[len(stamp) :]


class Messages:
    """Makes messages of one size, which say when they were made; topics take turns."""

    def __init__(self, options: Options) -> None:
        (text,) = PAYLOADS[options.payload](1)
        assert isinstance(text, str)
        self._text = text
        self._topics = itertools.cycle([TOPIC.format(number) for number in range(options.topics)])

    def make(self, count: int) -> list[tuple[str, str]]:
        return [(next(self._topics), stamped(self._text)) for _ in range(count)]


def run(options: Options, begin: Callable[[Options], Awaitable[Publish]]) -> None:
    """Publish with what ``begin`` returns whenever a byte comes, until whoever sends them is gone."""
    signal.alarm(LIFETIME)
    asyncio.run(_serve(options, begin))


async def _serve(options: Options, begin: Callable[[Options], Awaitable[Publish]]) -> None:
    publish = await begin(options)
    over = asyncio.Event()

    messages = Messages(options)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1):
                if options.rate:
                    await _publish_at_rate(options.rate, messages, publish)
                await publish(messages.make(options.batch))
        finally:
            writer.close()
            over.set()

    server = await asyncio.start_server(answer, HOST, 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await over.wait()


async def _publish_at_rate(rate: int, messages: Messages, publish: Publish) -> NoReturn:
    begun, published = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - begun) * rate)
        if due > published:
            await publish(messages.make(due - published))
            published = due
        await asyncio.sleep(_TICK)
