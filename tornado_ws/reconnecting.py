"""A client that connects again, for as long as its caller goes on."""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from tornado.httpclient import HTTPError, HTTPRequest
from tornado.log import gen_log

from tornado_ws.client import WebSocketClientConnection, websocket_connect
from tornado_ws.closing import NORMAL_CLOSURE
from tornado_ws.errors import WebSocketError

#: What may pass: no name, no route, no server, one that is busy, one that answers nonsense.
_ERRORS = (OSError, WebSocketError, HTTPError)

Final: TypeAlias = "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]"


async def reconnect(
    url: str | HTTPRequest,
    *,
    first_delay: float = 0.5,
    max_delay: float = 60.0,
    reset_after: float = 10.0,
    final: Final = (),
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
    random: Callable[[], float] = _random.random,
    **arguments: Any,
) -> AsyncIterator[WebSocketClientConnection]:
    """Yield a connection, and when the caller is done with it the next one, for ever::

        async for conn in reconnect("wss://example.com/feed"):
            try:
                async for message in conn:
                    ...
            except WebSocketClosedError:
                pass

    A connection is closed at the end of its turn of the loop, as ``async with`` does it. An exception in the body ends
    the loop; what may happen to a connection is for the body to catch. The loop is left with ``break``, and then the
    connection is closed soon after; to wait for that, wrap ``reconnect(...)`` in `contextlib.aclosing`.

    Between two attempts it waits a random time from 0 to a limit ("full jitter"), in seconds: ``first_delay`` at first,
    doubled for each attempt after that up to ``max_delay``. The limit is ``first_delay`` again after a connection that
    lasted for ``reset_after`` seconds. There is no wait before the first attempt.

    An attempt may fail with an OSError (`.StreamClosedError` and the errors of `ssl` and of name resolution are),
    a `WebSocketError` or an `.HTTPError`. ``final`` says which of those are raised instead of trying again: exception
    types, or a function that is called with the exception and returns True. By default none is. Any other exception,
    such as ValueError for a wrong argument, is raised at once.

    ``sleep``, ``clock`` and ``random`` are for tests. ``arguments`` are those of `websocket_connect`. Each attempt is
    one line of the log ``tornado.general``, at INFO and without the URL's query.

    Raises ValueError unless ``0 < first_delay <= max_delay`` and ``reset_after >= 0``.
    """
    if not 0 < first_delay <= max_delay < float("inf"):
        raise ValueError(
            f"first_delay is {first_delay!r} and max_delay is {max_delay!r}; they have to be numbers of seconds above "
            "0, and first_delay not the larger one"
        )
    if not reset_after >= 0:
        raise ValueError(f"reset_after is {reset_after!r}; it has to be a number of seconds from 0")
    name = _name(url if isinstance(url, str) else url.url)
    attempt = 0
    while True:
        attempt += 1
        try:
            conn = await websocket_connect(url, **arguments)
        except _ERRORS as error:
            if _is_final(error, final):
                gen_log.info("WebSocket to %s: attempt %d failed for good: %s", name, attempt, _words(error))
                raise
            failure: Exception | None = error
        else:
            gen_log.info("WebSocket to %s: connected at attempt %d", name, attempt)
            opened = clock()
            async with conn:
                try:
                    yield conn
                except GeneratorExit:
                    conn.close(NORMAL_CLOSURE)
                    raise
            if clock() - opened >= reset_after:
                attempt = 0
            failure = None
        delay = random() * min(max_delay, first_delay * 2.0 ** min(max(attempt - 1, 0), 100))
        if failure is not None:
            gen_log.info(
                "WebSocket to %s: attempt %d failed: %s; next in %.2f s", name, attempt, _words(failure), delay
            )
        await sleep(delay)


def _is_final(error: Exception, final: Final) -> bool:
    if isinstance(final, type | tuple):
        return isinstance(error, final)
    return final(error)


def _name(url: str) -> str:
    """Return ``url`` without its query and its user, where secrets are."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
