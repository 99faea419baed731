"""What the attack's connections do to a program that is attacked, and what happens meanwhile to another connection.

The other client and the other server are in the program too, so that they are never late: when a question is answered,
the next one is in the kernel already. What happens between two answers is what another connection has to wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from tests.peer import frame, raw_client
from tests.wire import TEXT
from tornado_ws import WebSocketHandler

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


def size_of(protocol: Any) -> int:
    """Return how many bytes came over a connection, those of messages after inflating."""
    if protocol is None:
        return 0
    counters = protocol.counters
    return int(max(counters.wire_bytes_in, counters.message_bytes_in))


class Attacked:
    """What the attack's connections have done so far."""

    def __init__(self) -> None:
        self.callbacks = 0
        #: What coroutines of the application wait for.
        self.is_over = asyncio.Event()
        self.opened = 0
        #: Each has a ``protocol``, None before its opening handshake.
        self.open: set[Any] = set()
        self.ends: Counter[str] = Counter()
        self._closed_bytes = 0

    def end(self, connection: Any, end: str) -> None:
        self.open.discard(connection)
        self.ends[end] += 1
        self._closed_bytes += size_of(connection.protocol)

    def size(self) -> int:
        """Return how many bytes they sent, those of messages after inflating."""
        return self._closed_bytes + sum(size_of(connection.protocol) for connection in self.open)


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


async def _commands() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


#: Is given what is behind the name of the command.
Command = Callable[[str], Awaitable[None]]


async def obey(meter: Meter, attacked: Attacked, port: int, more: Mapping[str, Command]) -> None:
    """Print ``port``, and then do what is written to standard input, with an object of JSON for each command.

    Those of all programs are ``begin`` (asking, and measuring), ``report``, and ``settle``, a report without the
    garbage; ``more`` has those of this one.
    """
    asked: list[Asked] = []
    sock, other_port = bind_unused_port()
    HTTPServer(Application([("/", Asked, {"meter": meter})], asked=asked)).add_sockets([sock])
    async with raw_client(f"ws://127.0.0.1:{other_port}/") as other:

        def ask() -> None:
            with contextlib.suppress(BlockingIOError):
                other.sock.recv(1 << 16)
            other.sock.send(_QUESTION)

        reader = await _commands()
        print(json.dumps({"port": port}), flush=True)
        while line := (await reader.readline()).decode().strip():
            command, _, argument = line.partition(" ")
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
            elif command in more:
                await more[command](argument)
            print(json.dumps(meter.report()), flush=True)


def begin(memory: str) -> tuple[Attacked, Meter]:
    """Begin a program whose memory is measured in one of the `METERS`."""
    logging.disable(logging.CRITICAL)
    if memory == "python":
        tracemalloc.start()
    attacked = Attacked()
    return attacked, Meter(attacked, memory)
