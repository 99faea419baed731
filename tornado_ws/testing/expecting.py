"""Assertions about what comes over a connection, which say what came instead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, NamedTuple, TypeVar

from tornado_ws import HandshakeError, WebSocketClientConnection, WebSocketClosedError, WebSocketHandler
from tornado_ws.close_codes import ABNORMAL_CLOSURE, NO_STATUS_RECEIVED, NORMAL_CLOSURE
from tornado_ws.escaping import shown
from tornado_ws.testing.frames import CLOSE, Frame
from tornado_ws.testing.raw_peer import RawPeer
from tornado_ws.testing.serving import end

#: Seconds after which something is taken never to come. They pass only when a test fails.
TIMEOUT = 30.0

T = TypeVar("T")


class _End(NamedTuple):
    code: int
    reason: str

    def __str__(self) -> str:
        return f"the end of the connection with {self.code}{f', {shown(self.reason)}' if self.reason else ''}"


async def expect(conn: WebSocketClientConnection | RawPeer, wanted: Any, *, timeout: float = TIMEOUT) -> Any:
    """Wait for the next message, and return it if it is what is wanted.

    :param conn: a client's connection, or a `RawPeer`, of which the next frame is meant, a `Frame`.
    :param wanted: a message to be equal to; a type, such as bytes; or a function that is true of the message.
    :param timeout: seconds (30) after which the test has failed.
    :raises AssertionError: for anything else that comes, which the text shows: another message, the end, or nothing.
    """
    came = await _within(_next(conn), timeout, _described(wanted))
    if isinstance(came, _End) or not _is(came, wanted):
        raise AssertionError(f"expected {_described(wanted)}; got {_shown(came)}")
    return came


async def expect_close(
    conn: WebSocketClientConnection | WebSocketHandler | RawPeer,
    code: int = NORMAL_CLOSURE,
    reason: str | None = None,
    *,
    timeout: float = TIMEOUT,
) -> None:
    """Wait for the end of the connection.

    :param conn: a client's connection, a handler, or a `RawPeer`.
    :param code: the close code (1000); 1005 is a close frame without one, and 1006 no close frame. A handler does not
        tell those two apart, and is taken to have ended with either.
    :param reason: None for any.
    :param timeout: seconds (30) after which the test has failed.
    :raises AssertionError: for another end, for a message that comes before it, and at the timeout.
    """
    wanted = str(_End(code, reason or ""))
    coming = _end_of(conn, code) if isinstance(conn, WebSocketHandler) else _next(conn)
    came = await _within(coming, timeout, wanted)
    if not isinstance(came, _End) or came.code != code or reason not in (None, came.reason):
        raise AssertionError(f"expected {wanted}; got {_shown(came)}")


async def expect_refused(
    connecting: Awaitable[WebSocketClientConnection], status: int | None = None, *, timeout: float = TIMEOUT
) -> HandshakeError:
    """Wait for the opening handshake to be refused, and return the `HandshakeError`: status, headers, body.

    :param connecting: what `websocket_connect` or ``ws_connect`` returns.
    :param status: the HTTP status; None for any.
    :param timeout: seconds (30) after which the test has failed.
    :raises AssertionError: for another status, for a connection, which is closed then, and at the timeout.
    """
    wanted = "a refusal" if status is None else f"a refusal with {status}"
    try:
        conn = await _within(_awaited(connecting), timeout, wanted)
    except HandshakeError as error:
        if status not in (None, error.status):
            raise AssertionError(f"expected {wanted}; got {error.status}: {shown(error.reason)}") from error
        return error
    await end(conn)
    raise AssertionError(f"expected {wanted}; got a connection")


def _next(conn: Any) -> Coroutine[Any, Any, Any]:
    """Return what waits for the next message, or the end."""
    if isinstance(conn, RawPeer):
        return _next_frame(conn)
    if not isinstance(conn, WebSocketClientConnection):
        raise TypeError(
            f"conn is {shown(conn)}; it has to be a WebSocketClientConnection of tornado_ws or a RawPeer, and for "
            "expect_close it may be a WebSocketHandler of tornado_ws"
        )
    if conn._on_message_callback is not None:
        raise ValueError("conn has an on_message_callback, which gets its messages; it has to have none")
    return _next_message(conn)


async def _next_message(conn: WebSocketClientConnection) -> Any:
    try:
        return await conn.__anext__()
    except StopAsyncIteration:
        return _End(conn.close_code or NO_STATUS_RECEIVED, conn.close_reason or "")
    except WebSocketClosedError as error:
        return _End(error.close_code or NO_STATUS_RECEIVED, error.close_reason or "")


async def _next_frame(peer: RawPeer) -> Any:
    try:
        frame = await peer.receive()
    except ConnectionError:
        frame = None
    if frame is None:
        return _End(ABNORMAL_CLOSURE, "")
    if frame.opcode != CLOSE:
        return frame
    code, reason = frame.payload[:2], frame.payload[2:]
    return _End(int.from_bytes(code, "big") or NO_STATUS_RECEIVED, reason.decode(errors="replace"))


async def _end_of(handler: WebSocketHandler, wanted: int) -> _End:
    await handler.wait_closed()
    # A handler does not tell whether there was a close frame.
    without_code = wanted if wanted == NO_STATUS_RECEIVED else ABNORMAL_CLOSURE
    return _End(handler.close_code or without_code, handler.close_reason or "")


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def _within(coroutine: Coroutine[Any, Any, T], timeout: float, wanted: str) -> T:
    try:
        return await asyncio.wait_for(coroutine, timeout)
    except asyncio.TimeoutError:
        raise AssertionError(f"expected {wanted}; nothing came within {timeout} s") from None


def _is(message: Any, wanted: Any) -> bool:
    if isinstance(wanted, type):
        return isinstance(message, wanted)
    if callable(wanted):
        return bool(wanted(message))
    # Python may be told to warn of text that is compared with bytes.
    return isinstance(message, bytes) is isinstance(wanted, bytes) and bool(message == wanted)


def _described(wanted: Any) -> str:
    if isinstance(wanted, type):
        return f"a message of type {wanted.__name__}"
    if callable(wanted):
        return f"a message of which {getattr(wanted, '__qualname__', None) or shown(wanted)} is true"
    return _shown(wanted)


def _shown(message: Any) -> str:
    if isinstance(message, _End):
        return str(message)
    if isinstance(message, Frame):
        return f"the frame {shown(message)}"
    kind = "text " if isinstance(message, str) else "binary " if isinstance(message, bytes) else ""
    size = f" of {len(message)}" if isinstance(message, str | bytes) and len(message) > 200 else ""
    return f"{kind}{shown(message)}{size}"
