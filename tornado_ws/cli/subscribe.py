"""``subscribe TOPIC...``: print what is published."""

from __future__ import annotations

import argparse
import asyncio
import json
import os

from tornado_ws.cli import statuses
from tornado_ws.cli.display import escaped, text_line, warn
from tornado_ws.cli.interrupts import run_to_end
from tornado_ws.cli.lines import Writer, writing
from tornado_ws.errors import TopicGapError
from tornado_ws.pubsub.listening import Listener
from tornado_ws.pubsub.messages import Message
from tornado_ws.pubsub.names import is_prefix, matches
from tornado_ws.pubsub.topics import Topics

_STDOUT = 1

#: Those of `Settings` that are arguments.
_SETTINGS = ("prefix", "streams", "max_length")


def main(options: argparse.Namespace) -> int:
    """Print messages until there were enough, or a signal comes; returns the exit status."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    stopped = asyncio.Event()
    return await run_to_end(_subscribe(options, stopped), lambda number: stopped.set())


async def _subscribe(options: argparse.Namespace, stopped: asyncio.Event) -> int:
    settings = {name: getattr(options, name) for name in _SETTINGS}
    async with Topics(options.url, **settings) as topics, writing(_STDOUT) as out:
        printing = _Printing(options, out)
        listeners = [topics.listen(pattern) for pattern in _apart(options.topics)]
        works = [stopped.wait(), out.failed(), *(printing.print_all(listener) for listener in listeners)]
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return statuses.OK


def _apart(patterns: list[str]) -> list[str]:
    """Return those of ``patterns`` that no other one has in it: each message is printed once."""
    different = list(dict.fromkeys(patterns))
    return [
        pattern
        for pattern in different
        if not any(is_prefix(other) and other != pattern and matches(other, pattern) for other in different)
    ]


class _Printing:
    def __init__(self, options: argparse.Namespace, out: Writer) -> None:
        self._out = out
        self._rest = options.count
        self._is_json = options.json
        self._names_topic = len(_apart(options.topics)) > 1 or is_prefix(options.topics[0])
        self._is_for_terminal = os.isatty(_STDOUT)

    async def print_all(self, listener: Listener) -> None:
        """Print what comes; return when that was enough."""
        async with listener:
            warn(f"subscribed to {listener.topic}")
            while self._rest != 0:
                try:
                    message = await anext(listener)
                except TopicGapError as error:
                    warn(f"messages of {listener.topic} were lost: {error}")
                    continue
                except StopAsyncIteration:
                    return
                if self._rest != 0:
                    self._out.put(self._line(message).encode() + b"\n")
                    self._rest = self._rest and self._rest - 1
                    await self._out.room()

    def _line(self, message: Message) -> str:
        if self._is_json:
            data = message.data
            value = {"text": data} if isinstance(data, str) else {"binary": data.hex()}
            return json.dumps({"topic": message.topic, "position": str(message.position), **value})
        line = text_line(message.data)
        if self._names_topic:
            line = f"{message.topic}\t{line}"
        return "\t".join(map(escaped, line.split("\t"))) if self._is_for_terminal else line
