"""Sending from other threads than the one that a connection belongs to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import weakref
from collections.abc import Callable
from typing import Any

from tornado import gen
from tornado.escape import json_encode
from tornado.ioloop import IOLoop

from tornado_ws.connection.interfaces import WebSocketProtocol
from tornado_ws.errors import WebSocketClosedError

#: Seconds between two turns of a timer that has nothing to do.
_LONG = 1e6


def write_message_threadsafe(
    protocol: WebSocketProtocol | None,
    write_message: Callable[[Any, bool], Any],
    message: Any,
    binary: bool,
    has_codec: bool = False,
) -> concurrent.futures.Future[None]:
    """Have the loop of ``protocol`` call ``write_message``; see `.WebSocketHandler.write_message_threadsafe`."""
    if not has_codec:
        # Now, while the caller cannot change it. What a codec takes is not known here.
        if isinstance(message, dict):
            message = json_encode(message)
        elif isinstance(message, bytearray | memoryview):
            message = bytes(message)

    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    if protocol is None or protocol.stream is None:
        future.set_exception(WebSocketClosedError())
        return future
    io_loop = protocol.stream.io_loop
    loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
    call = _Call(future, io_loop, lambda: write_message(message, binary))
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        call.loop_closed()
    else:
        # One that is closed meanwhile may have taken the call after it had dropped all others.
        if loop.is_closed():
            call.loop_closed()
    return future


class _Call:
    """One call on its way to the loop, which alone keeps it: when nobody does any more, it can never come to its end.

    A loop that is closed drops the calls that have not had their turn, and the tasks that wait, without a word. A task
    may have others that keep it, so those that have had their turn are `_Waiting`.
    """

    def __init__(self, future: concurrent.futures.Future[None], io_loop: IOLoop, write: Callable[[], Any]) -> None:
        self._future = future
        self._io_loop = io_loop
        self._write = write

    def __call__(self) -> None:
        if self._future.cancelled():
            return
        loop: asyncio.AbstractEventLoop = self._io_loop.asyncio_loop  # type: ignore[attr-defined]
        waiting = _waiting_of(self._io_loop).calls
        task = asyncio.ensure_future(self._run(), loop=loop)

        def cancel_too(future: concurrent.futures.Future[None]) -> None:
            if future.cancelled():
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(task.cancel)

        waiting.add(self)
        self._future.add_done_callback(cancel_too)
        task.add_done_callback(lambda _: waiting.discard(self))

    async def _run(self) -> None:
        try:
            await gen.convert_yielded(self._write())
        except asyncio.CancelledError:
            # By the thread, which has seen to the Future itself, or as the loop ends.
            self._end(WebSocketClosedError("the event loop has ended"))
            raise
        except Exception as error:
            self._end(error)
        except BaseException as error:
            self._end(error)
            raise
        else:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        # The thread may have cancelled the Future, up to this moment.
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            if error is None:
                self._future.set_result(None)
            else:
                self._future.set_exception(error)

    def loop_closed(self) -> None:
        if not self._future.done():
            self._end(WebSocketClosedError("the event loop was closed before the message was sent"))

    def __del__(self) -> None:
        self.loop_closed()


class _Waiting:
    """The calls of a loop that have had their turn and wait for their writes.

    The loop alone keeps this, by a timer: it drops its timers when it is closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.calls: set[_Call] = set()
        self._loop = loop
        self._stay()

    def _stay(self) -> None:
        self._loop.call_later(_LONG, self._stay)

    def __del__(self) -> None:
        for call in list(self.calls):
            call.loop_closed()


def _waiting_of(io_loop: IOLoop) -> _Waiting:
    reference: weakref.ref[_Waiting] | None = vars(io_loop).get("_ws_waiting_calls")
    waiting = reference() if reference is not None else None
    if waiting is None:
        waiting = _Waiting(io_loop.asyncio_loop)  # type: ignore[attr-defined]
        vars(io_loop)["_ws_waiting_calls"] = weakref.ref(waiting)
    return waiting
