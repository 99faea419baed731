"""What the clients share: their options, and the measured loop."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import platform
import signal
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from benchmarks.payloads import PAYLOADS

#: Round trips between two looks at the clock.
_BATCH = 50


class Options(NamedTuple):
    url: str
    message: str | bytes
    warmup: float
    seconds: float


def parse_options() -> Options:
    """Read the command line, which all clients share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--payload", choices=PAYLOADS, default="text 32 B")
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    (message,) = PAYLOADS[arguments.payload](1)
    signal.alarm(int(arguments.warmup + arguments.seconds) + 60)
    return Options(f"ws://127.0.0.1:{arguments.port}/", message, arguments.warmup, arguments.seconds)


async def measure(options: Options, exchange: Callable[[int], Awaitable[object]], package: str) -> None:
    """Call ``exchange`` with a number of round trips to make, again and again, and print what they cost us."""
    await _exchange_for(options.warmup, exchange)
    cpu, begin = time.process_time(), time.perf_counter()
    round_trips = await _exchange_for(options.seconds, exchange)
    result = {
        "messages": round_trips,
        "client_cpu": time.process_time() - cpu,
        "seconds": time.perf_counter() - begin,
        "versions": {"CPython": platform.python_version(), package: importlib.metadata.version(package)},
    }
    print(json.dumps(result), flush=True)


async def _exchange_for(seconds: float, exchange: Callable[[int], Awaitable[object]]) -> int:
    round_trips = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        await exchange(_BATCH)
        round_trips += _BATCH
    return round_trips


class Callbacks:
    """Counts round trips down for a client that is told of messages by a callback."""

    def __init__(self, send: Callable[[], object]) -> None:
        self._send = send
        self._left = 0
        self._done: asyncio.Future[None] | None = None

    async def exchange(self, count: int) -> None:
        self._left = count
        self._done = asyncio.get_running_loop().create_future()
        self._send()
        await self._done

    def received(self) -> None:
        self._left -= 1
        if self._left:
            self._send()
        else:
            assert self._done is not None
            self._done.set_result(None)
