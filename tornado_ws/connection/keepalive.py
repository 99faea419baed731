"""Pings that we send, and what is concluded from their answers."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import NamedTuple, Protocol

from tornado.log import gen_log

from tornado_ws.connection.interfaces import _WebSocketParams
from tornado_ws.errors import WebSocketClosedError

de_dupe_gen_log = functools.lru_cache(gen_log.log)


class Signs(NamedTuple):
    """Signs of life of a peer."""

    #: Whether we read.
    reading: bool
    #: What changes with every byte that is read from the peer.
    read: object
    #: How many bytes of ours the peer has taken.
    taken: int
    #: How many bytes of ours wait for the peer to take them.
    unsent: int
    #: A byte that is there to be read; b"" where the peer has closed its side; None where there is neither.
    unread: bytes | None


class Pinged(Protocol):
    """A connection that is kept alive."""

    def is_closing(self) -> bool:
        """Return whether either side has begun to close."""

    def _signs_of_life(self) -> Signs:
        """Return how things stand with the peer."""

    def _send_keepalive_ping(self) -> None:
        """Send a ping. Raises `WebSocketClosedError` on a closed connection."""

    def _give_up(self, reason: str) -> None:
        """End the connection with a peer that is probably gone."""


def ping_timeout(params: _WebSocketParams) -> float:
    """Return the seconds of silence after a ping at which the peer is given up: Tornado's 6.5, or what options say."""
    if params.options.keepalive_timeout is not None:
        return params.options.keepalive_timeout
    interval, timeout = params.ping_interval or 0, params.ping_timeout
    if timeout is None:
        return interval
    if interval and timeout > interval:
        de_dupe_gen_log(
            logging.WARNING,
            f"The websocket_ping_timeout ({timeout}) cannot be longer than the websocket_ping_interval "
            f"({interval}).\nSetting websocket_ping_timeout={interval}. For a longer one set "
            "websocket_keepalive_timeout (of a client: keepalive_timeout), which may have any length",
        )
        return interval
    return timeout


def ping_sleep_time(*, last_ping_time: float, interval: float, now: float) -> float:
    """Return the seconds until the next ping is due."""
    return max(0, last_ping_time + interval - now)


async def keep_alive(connection: Pinged, interval: float, timeout: float) -> None:
    """Send a ping every ``interval`` seconds; give the peer up when it is silent for ``timeout`` seconds after one.

    Any byte from the peer counts as life. While we do not read, the bytes that it takes from us count instead.
    """
    # Not IOLoop.time, which is the wall clock: setting that would end connections, or stop the pings.
    clock = asyncio.get_running_loop().time
    ping_time = clock()
    # When the first ping was sent that waits for a sign of life, and how things stood then.
    silent_since = 0.0
    before: Signs | None = None
    while True:
        pause = ping_sleep_time(last_ping_time=ping_time, interval=interval, now=clock())
        if before is not None:
            left = ping_sleep_time(last_ping_time=silent_since, interval=timeout, now=clock())
            pause = min(pause, left)
        await asyncio.sleep(pause)
        if connection.is_closing():
            return
        now = clock()
        if before is not None:
            if _is_alive(before, connection._signs_of_life()):
                before = None
            elif now >= silent_since + timeout:
                connection._give_up("ping timed out")
                return
        if now >= ping_time + interval:
            ping_time = now
            if before is None and timeout > 0:
                silent_since = now
                before = connection._signs_of_life()
            try:
                connection._send_keepalive_ping()
            except WebSocketClosedError:
                return


def _is_alive(before: Signs, signs: Signs) -> bool:
    """Return whether the peer has shown life since ``before``, or might have without our knowing it."""
    if signs.unread == b"":
        return False
    if signs.read != before.read:
        return True
    if before.reading and signs.reading:
        return signs.unread is not None
    # What it said may be unread. But one that takes nothing of what waits for it is not alive either: an
    # application that awaits its writes would wait, and not read, for ever.
    return not signs.unsent or signs.taken != before.taken
