"""`close_all`: close the open connections of an application."""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

from tornado.ioloop import IOLoop
from tornado.web import Application

from tornado_ws.close_codes import GOING_AWAY, encode_close
from tornado_ws.connection.registry import Registered, connections_of


class ClosedAll(NamedTuple):
    """How many connections `close_all` found: those that ended with a closing handshake, and all others."""

    closed: int
    aborted: int


class _Closing:
    """One call of `close_all`."""

    def __init__(self, code: int, reason: str | None, spread: float) -> None:
        self._close_frame = code, reason
        self._spread = spread
        self._io_loop = IOLoop.current()
        self._loop = asyncio.get_running_loop()
        self.waiting: set[Registered] = set()
        self.closed = 0
        self.aborted = 0
        self.done: asyncio.Future[None] = self._loop.create_future()

    def added(self, connection: Registered) -> None:
        # A pair of `tornado_ws.testing` has an IOLoop of its own on the same loop.
        if connection.stream.io_loop.asyncio_loop is self._loop:  # type: ignore[attr-defined]
            self.waiting.add(connection)
            if self._spread:
                delay = random.random() * self._spread
                self._io_loop.call_later(delay, connection.close_when_handled, *self._close_frame)
            else:
                self._io_loop.add_callback(connection.close_when_handled, *self._close_frame)

    def removed(self, connection: Registered) -> None:
        if connection in self.waiting:
            self.waiting.remove(connection)
            self._tell(connection.was_clean)
            self.end_if_empty()

    def count_rest(self) -> None:
        """Count those that are not done: their ``on_message`` or ``on_close`` goes on."""
        for connection in self.waiting:
            self._tell(connection.was_clean and connection.has_ended)

    def _tell(self, was_clean: bool) -> None:
        if was_clean:
            self.closed += 1
        else:
            self.aborted += 1

    def end_if_empty(self) -> None:
        if not self.waiting and not self.done.done():
            self.done.set_result(None)


async def close_all(
    application: Application,
    code: int = GOING_AWAY,
    reason: str | None = None,
    timeout: float = 10.0,
    *,
    spread: float = 0.0,
) -> ClosedAll:
    """Close all WebSocket connections of an application and wait until they are closed.

    What a connection has received by now is handled first, and what its `.on_message` sends goes out before the close
    frame: a coroutine is waited for. What arrives later is not delivered any more, since nobody could answer it. So a
    client knows of every message whether it was handled: if, and only if, it was answered. Until this returns, opening
    handshakes are refused with 503.

    It does not touch HTTP: call `.HTTPServer.stop` before it, and `.HTTPServer.close_all_connections` after it. It
    closes the connections of the current loop; an application served by several has it called in each. It is not to be
    awaited in an `.on_message`, which it would wait for.

    :param application: the `.Application`.
    :param code: the close code, as in `.WebSocketHandler.close`; 1001 by default.
    :param reason: as in `.WebSocketHandler.close`.
    :param timeout: seconds (10) after which whatever is not closed is aborted, and its `.on_close` sees 1006; a client
        has no longer than ``close_timeout`` to answer the close frame in any case.
    :param spread: seconds (0) over which the close frames are sent, each at random, so that clients do not come back
        all at once. ``timeout`` begins after them. Until its turn a connection goes on as before.
    :returns: how many connections ended with a closing handshake and how many did not, a `ClosedAll`. `.on_close` was
        called for all but those whose `.on_message` goes on nevertheless, and has returned if it is a coroutine that
        took no longer than ``timeout``. None is cancelled.
    :raises ValueError: for a code or reason that may not be sent, and for a timeout or spread that is not a number of
        seconds from 0.
    """
    encode_close(code, reason)
    for name, seconds in (("timeout", timeout), ("spread", spread)):
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"{name} is {seconds!r}; it has to be a number of seconds from 0")
    connections = connections_of(application)
    closing = _Closing(code, reason, spread)
    connections.listeners.append(closing)
    try:
        for connection in list(connections.open):
            closing.added(connection)
        closing.end_if_empty()
        await asyncio.wait([closing.done], timeout=spread + timeout)
        for connection in list(closing.waiting):
            connection.abort_with(code, reason)
        # A closed stream says so in the next turn of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        closing.count_rest()
        return ClosedAll(closing.closed, closing.aborted)
    finally:
        connections.listeners.remove(closing)
