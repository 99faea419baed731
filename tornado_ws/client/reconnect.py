"""A client that connects again, for as long as its caller goes on."""

from __future__ import annotations

import asyncio
import inspect
import random as _random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from tornado.httpclient import HTTPError, HTTPRequest
from tornado.log import gen_log

from tornado_ws.client.arguments import ConnectArguments
from tornado_ws.client.connect import websocket_connect
from tornado_ws.client.connection import WebSocketClientConnection
from tornado_ws.client.resume import Resume, ResumedConnection
from tornado_ws.close_codes import NORMAL_CLOSURE
from tornado_ws.coroutines import value_of
from tornado_ws.errors import HandshakeError, HandshakeRejectedError, ProxyError, WebSocketError
from tornado_ws.escaping import plain, shown, without_password

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: What may pass: no name, no route, no server, one that is busy, one that answers nonsense.
_ERRORS = (OSError, WebSocketError, HTTPError)

#: Request Timeout, Too Early, Too Many Requests: of the statuses that blame the client, those that pass.
_PASSING = (408, 425, 429)

#: Arguments of `websocket_connect` that tell a server who asks.
_CREDENTIALS = ("cookies", "headers", "ssl_options", "subprotocols")

Credentials: TypeAlias = "Callable[[], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]"
Final: TypeAlias = "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]"


@overload
def reconnect(
    url: str | HTTPRequest,
    *,
    resume: Literal[False] | None = ...,
    first_delay: float = ...,
    max_delay: float = ...,
    reset_after: float = ...,
    final: Final | None = ...,
    sleep: Callable[[float], Awaitable[object]] = ...,
    clock: Callable[[], float] = ...,
    random: Callable[[], float] = ...,
    proxy: str | bool | None = ...,
    credentials: Credentials | None = ...,
    **arguments: Unpack[ConnectArguments],
) -> AsyncIterator[WebSocketClientConnection]: ...


@overload
def reconnect(
    url: str | HTTPRequest,
    *,
    resume: Resume | Literal[True],
    first_delay: float = ...,
    max_delay: float = ...,
    reset_after: float = ...,
    final: Final | None = ...,
    sleep: Callable[[float], Awaitable[object]] = ...,
    clock: Callable[[], float] = ...,
    random: Callable[[], float] = ...,
    proxy: str | bool | None = ...,
    credentials: Credentials | None = ...,
    **arguments: Unpack[ConnectArguments],
) -> AsyncIterator[ResumedConnection]: ...


# Long by what it does between two connections, in the order in which it happens.
async def reconnect(
    url: str | HTTPRequest,
    *,
    resume: Resume | bool | None = None,
    first_delay: float = 0.5,
    max_delay: float = 60.0,
    reset_after: float = 10.0,
    final: Final | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
    random: Callable[[], float] = _random.random,
    proxy: str | bool | None = True,
    credentials: Credentials | None = None,
    **arguments: Unpack[ConnectArguments],
) -> AsyncIterator[WebSocketClientConnection | ResumedConnection]:
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

    Between two attempts it waits a random time from 0 to a limit ("full jitter"): ``first_delay`` at first, doubled for
    each attempt after that up to ``max_delay``. There is no wait before the first attempt. A refusal with a
    ``Retry-After`` (RFC 9110 section 10.2.3: seconds or a date) is waited for at least so long, but no longer than
    ``max_delay``. Each attempt is one line of the log ``tornado.general``, at INFO and without the URL's query.

    With ``resume`` each connection goes on where the one before has ended, if the server's topics have a history and
    its handler subscribes with ``since`` and an envelope (docs/topics.md)::

        async for conn in reconnect("wss://example.com/rooms/a", resume=True):
            try:
                async for message in conn:
                    print(message.topic, message.data)
            except TopicGapError:
                ...  # the server does not have all that was missed
            except WebSocketClosedError:
                pass

    :param url: as in `websocket_connect`.
    :param resume: True, or a `Resume` object: the connections are `ResumedConnection` objects then.
    :param first_delay: seconds (0.5).
    :param max_delay: seconds (60).
    :param reset_after: seconds (10); after a connection that lasted so long the limit is ``first_delay`` again.
    :param final: which failures are raised instead of trying again: exception types, or a function that is called with
        the exception and returns True. By default a refusal with a 4xx status, of a proxy too, is final, unless it
        is 408, 425 or 429; with ``()`` nothing is.
    :param sleep: for tests, as ``clock`` and ``random``.
    :param proxy: as in `websocket_connect`, but by default the environment's: ``HTTPS_PROXY``, ``ALL_PROXY`` and
        ``NO_PROXY``, by the rules of `urllib.request`; False is none.
    :param credentials: a function, or a coroutine function, that is called before each attempt and returns a mapping of
        ``headers``, ``subprotocols``, ``cookies`` and ``ssl_options``, as many of them as there are, for that attempt:
        what expires has to be new. They are in the place of those in ``arguments``. What the function raises is a
        failure of the attempt. None, the default, is the same for all attempts.
    :param arguments: those of `websocket_connect`, without ``sock``.
    :raises TypeError: for ``credentials`` that is no function, or returns no mapping.
    :raises ValueError: unless ``0 < first_delay <= max_delay`` and ``reset_after >= 0``, for ``sock``, and for another
        name that ``credentials`` returns; with ``resume`` also for a URL that has its argument already, and for an
        ``on_message_callback``, a ``codec`` or ``decode_text=False``.
    :raises Exception: what ``final`` says of OSError (`.StreamClosedError` and the errors of `ssl` and of name
        resolution are), `WebSocketError` and `.HTTPError`; and at once any other exception of an attempt, such as
        ValueError for a wrong argument.
    """
    _check_delays(first_delay, max_delay, reset_after)
    if arguments.get("sock") is not None:
        raise ValueError("sock is given, and one socket cannot be connected again; unix is for a path")
    if credentials is not None and not callable(credentials):
        raise TypeError(f"credentials is of type {type(credentials).__name__}; it has to be a function")
    resuming = _checked_resume(resume, url, arguments)
    name = _name(url if isinstance(url, str) else url.url)
    attempt = 0
    while True:
        attempt += 1
        try:
            target = url if resuming is None else resuming.request(url)
            fresh = {} if credentials is None else await _fresh(credentials)
            conn = await websocket_connect(target, proxy=proxy, **{**arguments, **fresh})
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
                    yield conn if resuming is None else ResumedConnection(conn, resuming)
                except GeneratorExit:
                    conn.close(NORMAL_CLOSURE)
                    raise
            if clock() - opened >= reset_after:
                attempt = 0
            failure = None
        delay = random() * min(max_delay, first_delay * 2.0 ** min(max(attempt - 1, 0), 100))
        if isinstance(failure, HandshakeError):
            delay = max(delay, min(max_delay, _retry_after(failure)))
        if failure is not None:
            text = "WebSocket to %s: attempt %d failed: %s; next in %.2f s"
            gen_log.info(text, name, attempt, _words(failure), delay)
        await sleep(delay)


def _check_delays(first_delay: float, max_delay: float, reset_after: float) -> None:
    if not 0 < first_delay <= max_delay < float("inf"):
        raise ValueError(
            f"first_delay is {first_delay!r} and max_delay is {max_delay!r}; they have to be numbers of seconds above "
            "0, and first_delay not the larger one"
        )
    if not reset_after >= 0:
        raise ValueError(f"reset_after is {reset_after!r}; it has to be a number of seconds from 0")


def _checked_resume(resume: object, url: str | HTTPRequest, arguments: Mapping[str, object]) -> Resume | None:
    if resume is None or resume is False:
        return None
    resuming = Resume() if resume is True else resume
    if not isinstance(resuming, Resume):
        raise TypeError(f"resume is of type {type(resume).__name__}; allowed are a Resume, True, False and None")
    if arguments.get("on_message_callback") is not None:
        raise ValueError("on_message_callback takes the messages; with resume they have to be read")
    if arguments.get("codec") is not None or arguments.get("decode_text") is False:
        raise ValueError("codec and decode_text=False are for whole messages; with resume decode the data of each")
    resuming.check(url)
    return resuming


async def _fresh(credentials: Credentials) -> Mapping[str, Any]:
    given: Any = credentials()
    if inspect.isawaitable(given):
        given = await given
    if not isinstance(given, Mapping):
        raise TypeError(f"credentials returned a {type(given).__name__}; it has to return a mapping")
    if wrong := [name for name in given if name not in _CREDENTIALS]:
        raise ValueError(f"credentials returned {shown(wrong)}; allowed are {', '.join(_CREDENTIALS)}")
    return given


def _is_final(error: Exception, final: Final | None) -> bool:
    if final is None:
        status = error.status if isinstance(error, HandshakeRejectedError | ProxyError) else None
        return status is not None and 400 <= status < 500 and status not in _PASSING
    if isinstance(final, type | tuple):
        return isinstance(error, final)
    return value_of(None, "final", final(error))


def _retry_after(error: HandshakeError) -> float:
    """Return how many seconds the server wants us to wait; 0 if it does not say so in a form of RFC 9110."""
    value = error.headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]+", value):
        # Digits without end are no number for `int`.
        return float(value)
    until = _seconds_of(value)
    # The server's own clock, if it tells that, is the one that its date is of.
    now = _seconds_of(error.headers.get("Date", ""))
    return 0.0 if until is None else max(0.0, until - (time.time() if now is None else now))


def _seconds_of(date: str) -> float | None:
    """Return a date of HTTP (RFC 9110 section 5.6.7) as seconds since 1970."""
    try:
        parsed = parsedate_to_datetime(date)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _name(url: str) -> str:
    """Return ``url`` without its query and its user, where secrets are."""
    return plain(without_password(url))


def _words(error: Exception) -> str:
    return plain(error) or type(error).__name__
