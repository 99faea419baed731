"""Sending from other threads than the one that a connection belongs to."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any

from tornado import gen
from tornado.escape import json_encode

from tornado_ws.errors import WebSocketClosedError
from tornado_ws.protocol import WebSocketProtocol


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

    async def write() -> None:
        await gen.convert_yielded(write_message(message, binary))

    if protocol is not None and protocol.stream is not None:
        writing = write()
        try:
            return asyncio.run_coroutine_threadsafe(writing, protocol.stream.io_loop.asyncio_loop)  # type: ignore[attr-defined]
        except RuntimeError:
            # The loop is closed, and its connections with it.
            writing.close()
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    future.set_exception(WebSocketClosedError())
    return future
