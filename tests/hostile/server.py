"""The server that is attacked: a program that takes commands on stdin and prints an object of JSON for each.

The argument is JSON: ``settings`` of the application, ``memory`` ("python" for the peak of what Python has allocated,
"heap" for all that the C library has, looked at with each answer, "none" where time is measured), and ``certificate``,
the name of a file to serve TLS with, or None. The first line printed has the port of the attacked.

The other client is in this process too, so that it is never late: when its question is answered, its next one is in the
kernel already. What happens between two of its answers is what a client has to wait for. Commands: ``begin`` (asking,
and measuring), ``report``, and ``settle``, a report without the garbage.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import ssl
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from tests.connection.peer import TEXT, frame, raw_client
from tornado_ws import WebSocketHandler
from tornado_ws.observing.counters import Counters

_QUESTION = frame(TEXT, b"?", masked=True)


class _HeapInfo(ctypes.Structure):
    """``struct mallinfo2`` of malloc.h."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    ]


def heap_meter() -> Callable[[], int]:
    """Return what tells how many bytes the C library has allocated. Raises AttributeError where it does not tell."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _HeapInfo

    def size() -> int:
        info = mallinfo()
        return int(info.uordblks + info.hblkhd)

    return size


METERS: dict[str, Callable[[], Callable[[], int]]] = {
    "python": lambda: lambda: tracemalloc.get_traced_memory()[0],
    "heap": heap_meter,
    "none": lambda: lambda: 0,
}


class Attacked:
    """What the attack's connections have done so far."""

    def __init__(self) -> None:
        self.callbacks = 0
        #: What coroutines of the application wait for.
        self.is_over = asyncio.Event()
        self.opened = 0
        self.open: set[Target] = set()
        self.ends: Counter[str] = Counter()
        self._closed_bytes = 0

    def end(self, handler: Target) -> None:
        self.open.discard(handler)
        self.ends[f"{handler.close_code}"] += 1
        self._closed_bytes += handler.size()

    def size(self) -> int:
        """Return how many bytes they sent, those of messages after inflating."""
        return self._closed_bytes + sum(handler.size() for handler in self.open)


class Target(WebSocketHandler):
    """Takes everything and answers nothing."""

    def initialize(self, attacked: Attacked) -> None:
        self.attacked = attacked

    def size(self) -> int:
        counters: Counters = self.protocol.counters
        return max(counters.wire_bytes_in, counters.message_bytes_in)

    def open(self) -> Any:
        self.protocol: Any = self.ws_connection
        self.attacked.opened += 1
        self.attacked.open.add(self)

    def on_message(self, message: str | bytes) -> Any:
        self.attacked.callbacks += 1

    def on_ping(self, data: bytes) -> Any:
        self.attacked.callbacks += 1

    def on_pong(self, data: bytes) -> Any:
        self.attacked.callbacks += 1

    def on_close(self) -> None:
        self.attacked.end(self)


class Compressed(Target):
    def get_compression_options(self) -> dict[str, Any]:
        return {}


class Offloading(Target):
    """Messages of more than 64 KiB are inflated by threads."""

    def get_compression_options(self) -> dict[str, Any]:
        return {"offload_size": 64 * 1024}


class Slow(Target):
    """Not done with anything before the attack is over."""

    async def _stay(self) -> None:
        self.attacked.callbacks += 1
        await self.attacked.is_over.wait()

    def on_message(self, message: str | bytes) -> Any:
        return self._stay()

    def on_ping(self, data: bytes) -> Any:
        return self._stay()


class Closing(Target):
    """Closes at once."""

    def open(self) -> Any:
        super().open()
        self.close()


TARGETS: dict[str, type[Target]] = {
    "plain": Target,
    "compressed": Compressed,
    "offloading": Offloading,
    "slow": Slow,
    "closing": Closing,
}


class Meter:
    """What happens between two answers, and what is allocated."""

    def __init__(self, attacked: Attacked, memory: str) -> None:
        self._attacked = attacked
        self._traced = memory == "python"
        self._allocated = METERS[memory]()
        self.answers = 0
        self._quiet_since = 0
        self._most_wait = 0.0
        self._most_callbacks = self._most_size = 0

    def begin(self) -> None:
        gc.collect()
        self._base = self._peak = self._allocated()
        if self._traced:
            tracemalloc.reset_peak()
        self._callbacks, self._size, self._time = self._attacked.callbacks, self._attacked.size(), time.perf_counter()

    def answered(self) -> None:
        now, callbacks, size = time.perf_counter(), self._attacked.callbacks, self._attacked.size()
        self.answers += 1
        self._most_wait = max(self._most_wait, now - self._time)
        self._most_callbacks = max(self._most_callbacks, callbacks - self._callbacks)
        self._most_size = max(self._most_size, size - self._size)
        if (callbacks, size) != (self._callbacks, self._size):
            self._quiet_since = self.answers
        self._callbacks, self._size, self._time = callbacks, size, now
        if not self._traced:
            self._peak = max(self._peak, self._allocated())

    def report(self) -> dict[str, Any]:
        peak = tracemalloc.get_traced_memory()[1] if self._traced else self._peak
        return {
            "opened": self._attacked.opened,
            "open": len(self._attacked.open),
            "ends": self._attacked.ends,
            "size": self._attacked.size(),
            "callbacks": self._attacked.callbacks,
            "answers": self.answers,
            "quiet": self.answers - self._quiet_since,
            "peak": peak - self._base,
            "held": self._allocated() - self._base,
            "most_callbacks": self._most_callbacks,
            "most_size": self._most_size,
            "most_wait": self._most_wait,
        }


class Asked(WebSocketHandler):
    """What the other client asks."""

    def initialize(self, meter: Meter) -> None:
        self.meter = meter
        self.ask: Callable[[], None] = lambda: None

    def open(self) -> None:
        self.application.settings["asked"].append(self)

    def on_message(self, message: str | bytes) -> None:
        self.meter.answered()
        self.write_message("!")
        self.ask()


async def commands() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def main() -> None:
    arguments = json.loads(sys.argv[1])
    logging.disable(logging.CRITICAL)
    if arguments["memory"] == "python":
        tracemalloc.start()
    attacked = Attacked()
    meter = Meter(attacked, arguments["memory"])
    asked: list[Asked] = []
    application = Application(
        [(f"/{name}", target, {"attacked": attacked}) for name, target in TARGETS.items()]
        + [("/", Asked, {"meter": meter})],
        asked=asked,
        **arguments["settings"],
    )
    options = None
    if arguments["certificate"] is not None:
        options = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        options.load_cert_chain(arguments["certificate"])
    sock, port = bind_unused_port()
    HTTPServer(application, ssl_options=options).add_sockets([sock])
    other_sock, other_port = bind_unused_port()
    HTTPServer(application).add_sockets([other_sock])
    async with raw_client(f"ws://127.0.0.1:{other_port}/") as other:

        def ask() -> None:
            with contextlib.suppress(BlockingIOError):
                other.sock.recv(1 << 16)
            other.sock.send(_QUESTION)

        reader = await commands()
        print(json.dumps({"port": port}), flush=True)
        while command := (await reader.readline()).decode().strip():
            if command == "begin":
                meter.begin()
                other.sock.send(_QUESTION)
                while not meter.answers:
                    await asyncio.sleep(0)
                asked[0].ask = ask
                other.sock.send(_QUESTION)
            elif command == "settle":
                attacked.is_over.set()
                gc.collect()
            print(json.dumps(meter.report()), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
