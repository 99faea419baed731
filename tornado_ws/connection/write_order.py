"""Keeps writes in order while one of them takes its time: a thread compresses it, or it is sent in parts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable
from typing import Any

from tornado.iostream import StreamBufferFullError, StreamClosedError

from tornado_ws.deflate import offload
from tornado_ws.deflate.codec import PerMessageDeflateCompressor
from tornado_ws.errors import WebSocketClosedError
from tornado_ws.transport.futures import fail, pass_on


class OrderedWrites:
    """What waits to be written while a message before it takes its time.

    ``loop`` is the connection's, which may stand still. ``on_error`` is told what an entry has raised that has no
    Future of its own; those behind it have their turn.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_empty: Callable[[], None], on_error: Callable[[BaseException], None]
    ) -> None:
        self._loop = loop
        self._on_empty = on_empty
        self._on_error = on_error
        self._room_future: asyncio.Future[None] | None = None
        self._entries: deque[tuple[Callable[[], asyncio.Future[Any]] | None, Callable[[Any], None]]] = deque()
        #: Bytes of messages that wait.
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def room(self) -> asyncio.Future[None]:
        """Return a Future that is done when nothing waits any more: the same for all who ask."""
        if self._room_future is None:
            self._room_future = self._loop.create_future()
        return self._room_future

    def put(self, finish: Callable[[Any], None], work: Callable[[], asyncio.Future[Any]] | None = None) -> None:
        """Call ``finish`` when all before it is done, with what ``work`` has returned when that is done, or with None.

        ``work`` is called when all before it is done.
        """
        self._entries.append((work, finish))
        if len(self._entries) == 1:
            self._go_on()

    def put_message(
        self,
        write: Callable[[bytes, bool, int], asyncio.Future[None]],
        payload: bytes,
        compressor: PerMessageDeflateCompressor | None,
    ) -> asyncio.Future[None]:
        """Write a message when it is its turn, deflated by ``compressor`` if that is not None.

        ``write`` takes the payload, whether it is deflated, and the message's bytes before that. It may raise.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        size = len(payload)
        self.size += size

        def finish(deflating: asyncio.Future[bytes] | None) -> None:
            self.size -= size
            try:
                if deflating is not None:
                    written = write(deflating.result(), True, size)
                elif compressor is not None:
                    written = write(compressor.compress(payload), True, size)
                else:
                    written = write(payload, False, size)
            except StreamClosedError:
                fail(future, WebSocketClosedError())
                return
            except Exception as error:
                fail(future, error)
                return
            if written.done():
                pass_on(future, written)
            else:
                written.add_done_callback(lambda written: pass_on(future, written))

        work = None
        if compressor is not None and compressor.is_offloaded(payload):
            work = functools.partial(offload.run_in_thread, compressor.compress, payload, loop=self._loop)
        self.put(finish, work)
        return future

    def put_shared(self, write: Callable[[], None], size: int) -> None:
        """Call ``write`` when it is its turn: it writes a message of ``size`` bytes, which nobody awaits."""
        self.size += size

        def finish(_: None) -> None:
            self.size -= size
            with contextlib.suppress(StreamClosedError, StreamBufferFullError):
                write()

        self.put(finish)

    def _go_on(self, worked: asyncio.Future[Any] | None = None) -> None:
        """Finish what can be; ``worked`` is what the work of the first entry has come to."""
        interrupt: BaseException | None = None
        while self._entries:
            work, finish = self._entries[0]
            if work is not None and worked is None:
                work().add_done_callback(self._go_on)
                break
            try:
                finish(worked)
            except BaseException as error:
                self._on_error(error)
                if not isinstance(error, Exception):
                    interrupt = error
            # Not before: what it writes itself comes behind all that waits.
            self._entries.popleft()
            worked = None
        else:
            self._on_empty()
            if self._room_future is not None and not self._room_future.done():
                self._room_future.set_result(None)
        if interrupt is not None:
            raise interrupt
