"""Pings that we send, and what is concluded from their answers."""

from __future__ import annotations

import abc
import asyncio
import functools
import logging

from tornado.ioloop import IOLoop
from tornado.log import gen_log

from tornado_ws.errors import WebSocketClosedError
from tornado_ws.protocol import WebSocketProtocol, _WebSocketDelegate, _WebSocketParams

de_dupe_gen_log = functools.lru_cache(gen_log.log)


class KeepAlive(WebSocketProtocol):
    """A protocol that sends pings every ``ping_interval`` seconds and gives up a peer that is silent for too long.

    Any sign of life counts: a pong, a message, a part of a long one.
    """

    def __init__(self, handler: _WebSocketDelegate, params: _WebSocketParams) -> None:
        super().__init__(handler)
        self.params = params
        self._ping_coroutine: asyncio.Task[None] | None = None
        #: Set by every control frame from the peer.
        self._heard = False

    @abc.abstractmethod
    def _progress(self) -> object:
        """Return what changes with every message, and with every part of a long one."""

    @abc.abstractmethod
    def _is_reading(self) -> bool: ...

    @abc.abstractmethod
    def _give_up(self, reason: str) -> None:
        """End the connection with a peer that is probably gone."""

    @property
    def ping_interval(self) -> float:
        return self.params.ping_interval or 0

    @property
    def ping_timeout(self) -> float:
        timeout = self.params.ping_timeout
        if timeout is None:
            return self.ping_interval
        if self.ping_interval and timeout > self.ping_interval:
            de_dupe_gen_log(
                logging.WARNING,
                f"The websocket_ping_timeout ({timeout}) cannot be longer than the websocket_ping_interval "
                f"({self.ping_interval}).\nSetting websocket_ping_timeout={self.ping_interval}",
            )
            return self.ping_interval
        return timeout

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
        """Send a ping every interval; give the peer up when nothing was heard of it for the timeout after one."""
        interval = self.ping_interval
        timeout = self.ping_timeout
        await asyncio.sleep(interval)
        while not self.is_closing():
            self._heard = False
            progress = self._progress()
            ping_time = IOLoop.current().time()
            try:
                self.write_ping(b"")
            except WebSocketClosedError:
                return
            await asyncio.sleep(timeout)
            # A peer that we are not reading from is not to blame for silence.
            if timeout > 0 and not self._heard and progress == self._progress() and self._is_reading():
                self._ping_coroutine = None
                self._give_up("ping timed out")
                return
            await asyncio.sleep(
                self.ping_sleep_time(last_ping_time=ping_time, interval=interval, now=IOLoop.current().time())
            )
