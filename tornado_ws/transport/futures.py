"""Futures of writes: done, failed, or as another one is."""

from __future__ import annotations

import asyncio

from tornado.ioloop import IOLoop

from tornado_ws.errors import WebSocketClosedError


def completed_future(io_loop: IOLoop) -> asyncio.Future[None]:
    """Return the one Future of a loop that is done: what most writes return."""
    future: asyncio.Future[None] | None = vars(io_loop).get("_ws_done")
    if future is None:
        future = vars(io_loop)["_ws_done"] = asyncio.Future(loop=io_loop.asyncio_loop)  # type: ignore[attr-defined]
        future.set_result(None)
    return future


def failed_future(io_loop: IOLoop) -> asyncio.Future[None]:
    """Return the Future of a write on a closed connection."""
    future: asyncio.Future[None] = asyncio.Future(loop=io_loop.asyncio_loop)  # type: ignore[attr-defined]
    fail(future, WebSocketClosedError())
    return future


def succeed(future: asyncio.Future[None]) -> None:
    """Let ``future`` be done, unless it is."""
    if not future.done():
        future.set_result(None)


def fail(future: asyncio.Future[None], error: BaseException) -> None:
    """Let ``future`` raise ``error``, unless it is done."""
    if not future.done():
        future.set_exception(error)
        # Retrieved here, so that a write which nobody awaited logs no traceback.
        future.exception()


def pass_on(future: asyncio.Future[None], written: asyncio.Future[None]) -> None:
    """Let ``future`` end as ``written`` has, unless it is done."""
    error = None if written.cancelled() else written.exception()
    if error is not None:
        fail(future, error)
    else:
        succeed(future)
