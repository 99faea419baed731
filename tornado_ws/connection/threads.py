"""Sending from other threads than the one that a connection belongs to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable
from typing import Any

from tornado import gen
from tornado.escape import json_encode

from tornado_ws.connection.interfaces import WebSocketProtocol
from tornado_ws.errors import WebSocketClosedError


def write_message_threadsafe(
    protocol: WebSocketProtocol | None,
    write_message: Callable[[Any, bool], Any],
    message: Any,
    binary: bool,
) -> concurrent.futures.Future[None]:
    """Have the loop of ``protocol`` call ``write_message``; see `.WebSocketHandler.write_message_threadsafe`."""
    # Now, while the caller cannot change it.
    if isinstance(message, dict):
        message = json_encode(message)
    elif isinstance(message, bytearray | memoryview):
        message = bytes(message)

    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    if protocol is None or protocol.stream is None:
        future.set_exception(WebSocketClosedError())
        return future
    loop: asyncio.AbstractEventLoop = protocol.stream.io_loop.asyncio_loop  # type: ignore[attr-defined]
    call = _Call(future, loop, lambda: write_message(message, binary))
    with contextlib.suppress(RuntimeError):
        # Or the loop is closed, and its connections with it: nobody keeps the call.
        loop.call_soon_threadsafe(call)
    return future


class _Call:
    """One call on its way to the loop, which alone keeps it: when nobody does any more, it can never come to its end.

    A loop that is closed drops the calls that have not had their turn, and the tasks that wait, without a word.
    """

    def __init__(
        self, future: concurrent.futures.Future[None], loop: asyncio.AbstractEventLoop, write: Callable[[], Any]
    ) -> None:
        self._future = future
        self._loop = loop
        self._write = write

    def __call__(self) -> None:
        if self._future.cancelled():
            return
        task = asyncio.ensure_future(self._run(), loop=self._loop)
        loop = self._loop

        def cancel_too(future: concurrent.futures.Future[None]) -> None:
            if future.cancelled():
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(task.cancel)

        self._future.add_done_callback(cancel_too)

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

    def __del__(self) -> None:
        if not self._future.done():
            self._end(WebSocketClosedError("the event loop was closed before the message was sent"))
