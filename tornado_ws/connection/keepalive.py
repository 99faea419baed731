"""Pings that we send, and what is concluded from their answers."""

from __future__ import annotations

import functools
import logging
from typing import NamedTuple, Protocol

from tornado.log import gen_log

from tornado_ws.connection.deadlines import Deadline, a_little_less
from tornado_ws.connection.interfaces import WebSocketParams
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


def ping_timeout(params: WebSocketParams) -> float:
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


class Keepalive(Deadline[Pinged]):
    """The pings to one peer, and what it has done since the first one that waits for a sign of life.

    One is sent every ``interval`` seconds. The peer is given up when it is silent for ``timeout`` seconds after one.
    Any byte from the peer counts as life. While we do not read, the bytes that it takes from us count instead.
    """

    __slots__ = (
        "_interval",
        "_next_ping",
        "_read",
        "_reading",
        "_silent_since",
        "_taken",
        "_timeout",
    )

    def __init__(self, connection: Pinged, interval: float, timeout: float, now: float) -> None:
        """``now`` is in the loop's time: the wall clock may be set, which would end connections, or stop the pings."""
        # Connections that came together, after a restart of the server, are not to be pinged together for ever.
        self._next_ping = now + a_little_less(interval)
        super().__init__(connection, self._next_ping)
        self._interval = interval
        self._timeout = timeout
        #: When the first ping was sent that waits for a sign of life, and how things stood then; None while none does.
        self._silent_since: float | None = None
        self._reading = False
        self._read: object = None
        self._taken = 0

    def on_due(self, now: float) -> bool:
        """See whether the peer lives, and send a ping if it is time; return whether that goes on."""
        connection = self._connection
        if connection is None or connection.is_closing():
            return False
        if self._silent_since is not None:
            if self._is_alive(connection._signs_of_life()):
                self._silent_since = None
            elif now >= self._silent_since + self._timeout:
                connection._give_up("ping timed out")
                return False
        if now >= self._next_ping:
            self._next_ping = now + self._interval
            if self._silent_since is None and self._timeout > 0:
                self._silent_since = now
                signs = connection._signs_of_life()
                self._reading, self._read, self._taken = signs.reading, signs.read, signs.taken
            try:
                connection._send_keepalive_ping()
            except WebSocketClosedError:
                return False
        self.due = self._next_ping
        if self._silent_since is not None:
            self.due = min(self.due, self._silent_since + self._timeout)
        return True

    def _is_alive(self, signs: Signs) -> bool:
        """Return whether the peer has shown life since the ping, or might have without our knowing it."""
        if signs.unread == b"":
            return False
        if signs.read != self._read:
            return True
        if self._reading and signs.reading:
            return signs.unread is not None
        # What it said may be unread. But one that takes nothing of what waits for it is not alive either: an
        # application that awaits its writes would wait, and not read, for ever.
        return not signs.unsent or signs.taken != self._taken
