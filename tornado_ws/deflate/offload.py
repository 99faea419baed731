"""Large messages, inflated by threads (``offload_size``), and in order; `.write_order` is the other direction.

An `OffloadingInflater` inflates the beginning of a message at once, as any inflater does. What goes on beyond the
size is held back as it came, and so is every message behind it, for a stream of deflate has an order. The reader gives
such a message as an event with `.contract.DEFERRED`; the connection asks for the rest when it is that message's turn.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tornado_ws.deflate.codec import inflate_all
from tornado_ws.engine.chunks import add_piece
from tornado_ws.engine.contract import TEXT, Inflater
from tornado_ws.engine.validation import check_size, too_big_inflated

#: Threads of the process; each holds the GIL for little of its time.
_MAX_THREADS = 4

_executor: ThreadPoolExecutor | None = None


def _forget_threads() -> None:
    """A fork takes no threads along."""
    global _executor
    _executor = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def run_in_thread(
    work: Callable[..., Any], *args: Any, loop: asyncio.AbstractEventLoop | None = None
) -> asyncio.Future[Any]:
    """Return a Future of what ``work`` returns. Where no thread can be started it is done at once, in this one.

    The Future is that of ``loop``, by default the running one.
    """
    global _executor
    done: Future[Any] = Future()
    # Taken out by the thread that does it: an executor that cannot start a thread keeps what it was given.
    claim = [work]

    def run() -> None:
        try:
            claimed = claim.pop()
        except IndexError:
            return
        if done.set_running_or_notify_cancel():
            try:
                result = claimed(*args)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(result)

    try:
        if _executor is None:
            _executor = ThreadPoolExecutor(_MAX_THREADS, "tornado_ws-deflate")
        _executor.submit(run)
    except Exception:
        run()
    return asyncio.wrap_future(done, loop=loop)


class OffloadingInflater:
    """Inflates at once up to ``offload_size`` bytes of a message, and holds back the rest.

    ``limit`` is that of a message's bytes, as the reader's.
    """

    def __init__(self, inflater: Inflater, offload_size: int, limit: int) -> None:
        self.inflater = inflater
        self.limit = limit
        self._offload_size = offload_size
        #: Messages that were held back and are not inflated yet. Until they are, the inflater is theirs.
        self.waiting = 0
        self._inflated = 0
        self._held: list[bytes | bytearray | memoryview] | None = None
        self._held_size = 0

    def inflate(self, data: bytes, limit: int) -> bytes:
        """As `.contract.Inflater`, but what is beyond the size is not returned."""
        if self._held is None and not self.waiting:
            piece = self.inflater.inflate(data, min(limit, self._offload_size - self._inflated))
            self._inflated += len(piece)
            if self._inflated > self._offload_size:
                self._held = []
            return piece
        if self._held is None:
            self._held = []
        add_piece(self._held, data)
        self._held_size += len(data)
        # What no deflater can make larger than this; a message may be stored as it is, in blocks.
        check_size(self._held_size, self.limit + (self.limit >> 7) + 1024)
        return b""

    def end_message(self) -> Rest | None:
        """Return what was held back of the message, None if nothing was; see `.contract.Inflater`."""
        held, self._held = self._held, None
        self._inflated = self._held_size = 0
        if held is None and not self.waiting:
            self.inflater.end_message()
            return None
        self.waiting += 1
        return Rest(self, b"".join(held or ()))


class Rest:
    """What is to be inflated yet of a message; ``size`` is its bytes now."""

    def __init__(self, owner: OffloadingInflater, payload: bytes) -> None:
        self._owner = owner
        self._payload = payload
        self.size = len(payload)

    def inflate(
        self, opcode: int, begun: bytes, decode: Callable[[bytes], str | bytes]
    ) -> asyncio.Future[tuple[str | bytes, int]]:
        """Return a Future of the message that began with ``begun``, and its size in bytes; ``decode`` is for text.

        It fails with `.ProtocolError` for what does not inflate, is too large or is not UTF-8. One at a time, in the
        order in which they came.
        """
        inflating = run_in_thread(self._inflate, opcode, begun, decode)
        inflating.add_done_callback(self._on_inflated)
        return inflating

    def _inflate(self, opcode: int, begun: bytes, decode: Callable[[bytes], str | bytes]) -> tuple[str | bytes, int]:
        room = self._owner.limit - len(begun)
        rest = inflate_all(self._owner.inflater, self._payload, room)
        if len(rest) > room:
            raise too_big_inflated()
        self._owner.inflater.end_message()
        message = begun + rest
        return (decode(message) if opcode == TEXT else message), len(message)

    def _on_inflated(self, inflating: asyncio.Future[Any]) -> None:
        self._owner.waiting -= 1
