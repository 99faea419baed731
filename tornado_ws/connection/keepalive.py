"""Pings that we send, and what is concluded from their answers."""

from __future__ import annotations

import abc
import asyncio
import functools
import logging
import time
from typing import NamedTuple

from tornado.log import gen_log

from tornado_ws.connection.interfaces import WebSocketProtocol, _WebSocketDelegate, _WebSocketParams
from tornado_ws.errors import WebSocketClosedError
from tornado_ws.observing.latency import UNKNOWN, Latency, RoundTrips

de_dupe_gen_log = functools.lru_cache(gen_log.log)


class _Signs(NamedTuple):
    """Whether we read, what was read from the peer, and how many bytes it has taken."""

    reading: bool
    read: object
    taken: int


class KeepAlive(WebSocketProtocol):
    """A protocol that sends pings every ``ping_interval`` seconds and gives up a peer that is silent for too long.

    Any byte from the peer counts as life. While we do not read, the bytes that it takes from us count instead.
    """

    _round_trips: RoundTrips | None = None

    def __init__(self, handler: _WebSocketDelegate, params: _WebSocketParams) -> None:
        super().__init__(handler)
        self.params = params
        self._ping_coroutine: asyncio.Task[None] | None = None

    @abc.abstractmethod
    def _read(self) -> object:
        """Return what changes with every byte that is read from the peer."""

    @property
    @abc.abstractmethod
    def _wire_bytes_out(self) -> int:
        """Bytes that were written, sent or not."""

    @abc.abstractmethod
    def _unsent(self) -> int:
        """Return how many bytes of those wait for the peer to take them."""

    @abc.abstractmethod
    def _is_reading(self) -> bool: ...

    @abc.abstractmethod
    def _has_unread(self) -> bool:
        """Whether something from the peer is there to be read."""

    @abc.abstractmethod
    def _has_ended(self) -> bool:
        """Whether the peer has closed its side, though the application may still be busy with what came before."""

    @abc.abstractmethod
    def _give_up(self, reason: str) -> None:
        """End the connection with a peer that is probably gone."""

    @property
    def ping_interval(self) -> float:
        return self.params.ping_interval or 0

    @property
    def ping_timeout(self) -> float:
        if self.params.options.keepalive_timeout is not None:
            return self.params.options.keepalive_timeout
        timeout = self.params.ping_timeout
        if timeout is None:
            return self.ping_interval
        if self.ping_interval and timeout > self.ping_interval:
            de_dupe_gen_log(
                logging.WARNING,
                f"The websocket_ping_timeout ({timeout}) cannot be longer than the websocket_ping_interval "
                f"({self.ping_interval}).\nSetting websocket_ping_timeout={self.ping_interval}. For a longer one set "
                "websocket_keepalive_timeout (of a client: keepalive_timeout), which may have any length",
            )
            return self.ping_interval
        return timeout

    @property
    def latency(self) -> Latency:
        """The round trip from a ping of ours to its pong, the last one and the smoothed one in seconds."""
        return self._round_trips.latency if self._round_trips is not None else UNKNOWN

    def start_pinging(self) -> None:
        """Send pings every ``ping_interval`` seconds, unless it is zero."""
        if self._ping_coroutine is None and self.ping_interval > 0:
            self._ping_coroutine = asyncio.get_event_loop().create_task(self.periodic_ping())

    def _stop_pinging(self) -> None:
        if self._ping_coroutine is not None:
            self._ping_coroutine.cancel()
            self._ping_coroutine = None

    @staticmethod
    def ping_sleep_time(*, last_ping_time: float, interval: float, now: float) -> float:
        """Return the seconds until the next ping is due."""
        return max(0, last_ping_time + interval - now)

    async def periodic_ping(self) -> None:
        """Send a ping every interval; give the peer up when it shows no sign of life for the timeout after one."""
        # Not IOLoop.time, which is the wall clock: whoever sets that would end connections, or stop the pings.
        clock = asyncio.get_running_loop().time
        interval = self.ping_interval
        timeout = self.ping_timeout
        ping_time = clock()
        # When the first ping was sent that waits for a sign of life, and how things stood then.
        silent_since = 0.0
        before: _Signs | None = None
        while True:
            pause = self.ping_sleep_time(last_ping_time=ping_time, interval=interval, now=clock())
            if before is not None:
                left = self.ping_sleep_time(last_ping_time=silent_since, interval=timeout, now=clock())
                pause = min(pause, left)
            await asyncio.sleep(pause)
            if self.is_closing():
                return
            now = clock()
            if before is not None:
                if self._is_alive(before):
                    before = None
                elif now >= silent_since + timeout:
                    self._ping_coroutine = None
                    self._give_up("ping timed out")
                    return
            if now >= ping_time + interval:
                ping_time = now
                if before is None and timeout > 0:
                    silent_since = now
                    before = self._signs()
                try:
                    self.write_ping(self._next_ping())
                except WebSocketClosedError:
                    return

    def _signs(self) -> _Signs:
        return _Signs(self._is_reading(), self._read(), self._wire_bytes_out - self._unsent())

    def _is_alive(self, before: _Signs) -> bool:
        """Whether the peer has shown life since ``before``, or might have without our knowing it."""
        if self._has_ended():
            return False
        signs = self._signs()
        if signs.read != before.read:
            return True
        if before.reading and signs.reading:
            return self._has_unread()
        # What it said may be unread. But one that takes nothing of what waits for it is not alive either: an
        # application that awaits its writes would wait, and not read, for ever.
        return not self._unsent() or signs.taken != before.taken

    def _next_ping(self) -> bytes:
        return self._round_trips.next_payload() if self._round_trips is not None else b""

    def _ping_sent(self, payload: bytes) -> None:
        if self._round_trips is None:
            self._round_trips = RoundTrips()
        self._round_trips.sent(payload, time.perf_counter())

    def _pong_received(self, payload: bytes) -> None:
        if self._round_trips is not None:
            self._round_trips.answered(payload, time.perf_counter())
