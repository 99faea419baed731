"""Lines in and lines out, of whatever a descriptor stands for.

Not every loop can wait for every kind (files, terminals), and a descriptor that is made non-blocking is so for the
shell too. So threads read and write; they are daemons, since nothing ends a read of a terminal from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

_CHUNK = 65536

#: Bytes of one line, at most: input without line ends would take all memory.
MOST = 64 << 20

#: Bytes that may wait to be written, before who writes is to wait.
_FULL = 1 << 20


class OutputError(Exception):
    """Output cannot be written. ``is_closed`` (bool) tells whether whoever read it has gone."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write the output: {error.strerror}")
        self.is_closed = isinstance(error, BrokenPipeError)


async def read_lines(descriptor: int) -> AsyncIterator[bytes]:
    """Yield each line without its end (LF or CR LF); the last one need not have an end.

    Raises ValueError for a line of more than `MOST` bytes, and for what cannot be read.
    """
    pieces: list[bytes] = []
    size = 0
    async for chunk in _chunks(descriptor):
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            yield b"".join([*pieces, piece]).removesuffix(b"\r")
            pieces, size = [], 0
        if rest:
            pieces.append(rest)
            size += len(rest)
        if size > MOST:
            raise ValueError(f"a line of the input has {size} bytes or more; allowed are {MOST}")
    if pieces:
        yield b"".join(pieces)


async def read_all(descriptor: int) -> bytes:
    """Return what there is up to the end. Raises ValueError for what cannot be read."""
    return b"".join([chunk async for chunk in _chunks(descriptor)])


async def _chunks(descriptor: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    wanted = threading.Semaphore()
    is_over = False

    def read() -> None:
        found: bytes | OSError = b"first"
        while found and not isinstance(found, OSError):
            wanted.acquire()
            if is_over:
                return
            try:
                found = _patiently(_until_readable, descriptor, os.read, descriptor, _CHUNK)
            except OSError as error:
                found = error
            if not _tell(loop, chunks.put_nowait, found):
                return

    threading.Thread(target=read, name="input", daemon=True).start()
    try:
        while found := await chunks.get():
            if isinstance(found, OSError):
                raise ValueError(f"the input cannot be read: {found.strerror}")
            wanted.release()
            yield found
    finally:
        is_over = True
        wanted.release()


class Writer:
    """Writes to a descriptor, in order. It begins at once and has to be closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._waiting = 0
        self._full = _FULL
        self._error: OSError | None = None
        self._changed = asyncio.Event()
        threading.Thread(target=self._run, name="output", daemon=True).start()

    @property
    def is_full(self) -> bool:
        return self._waiting >= self._full

    def allow_more(self) -> None:
        """From now on as much may wait as a line may have."""
        self._full = MOST
        self._changed.set()

    def put(self, data: bytes) -> None:
        """Have ``data`` written behind all before."""
        self._waiting += len(data)
        self._queue.put(data)

    async def room(self) -> None:
        """Wait until it is not full. Raises `OutputError` when writing has failed."""
        await self._until(lambda: not self.is_full)

    async def drain(self) -> None:
        """Wait until all is written. Raises `OutputError` when writing has failed."""
        await self._until(lambda: not self._waiting)

    async def failed(self) -> None:
        """Wait until writing fails, for ever if it does not; raises `OutputError` then."""
        await self._until(lambda: False)

    def close(self) -> None:
        """Write what was put, and no more."""
        self._queue.put(None)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while True:
            if self._error is not None:
                raise OutputError(self._error)
            if condition():
                return
            self._changed.clear()
            await self._changed.wait()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            view = memoryview(data)
            try:
                while view:
                    view = view[_patiently(_until_writable, self._descriptor, os.write, self._descriptor, view) :]
            except OSError as error:
                _tell(self._loop, self._written, 0, error)
                return
            if not _tell(self._loop, self._written, len(data), None):
                return

    def _written(self, size: int, error: OSError | None) -> None:
        self._waiting -= size
        self._error = error
        self._changed.set()


@contextlib.asynccontextmanager
async def writing(descriptor: int) -> AsyncIterator[Writer]:
    """Give a `Writer`, and at the end wait until all is written."""
    writer = Writer(descriptor)
    try:
        yield writer
        await writer.drain()
    finally:
        writer.close()


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> bool:
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        # The loop is closed.
        return False
    return True


def _until_readable(descriptor: int) -> None:
    select.select([descriptor], [], [])


def _until_writable(descriptor: int) -> None:
    select.select([], [descriptor], [])


def _patiently(wait: Callable[[int], None], descriptor: int, call: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``call(*arguments)``, also of a descriptor that others made non-blocking."""
    while True:
        try:
            return call(*arguments)
        except BlockingIOError:
            wait(descriptor)
