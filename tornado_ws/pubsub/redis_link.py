"""One connection to Redis by redis-py: commands out in one write, and their raw replies."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import AuthenticationError, RedisError, ResponseError
from tornado.log import gen_log

from tornado_ws.errors import BrokerError
from tornado_ws.pubsub.broker import TopicCounters
from tornado_ws.pubsub.redis_source import Make

#: In C what redis-py does in Python for each word. None without hiredis, or before its version 2.2.
_pack: Callable[[tuple[Any, ...]], bytes] | None
try:
    from hiredis import pack_command as _pack
except ImportError:
    _pack = None

#: Seconds between attempts to connect: the first, and the most.
DELAYS = 0.05, 1.0

#: How replies begin that say that a broker cannot serve now, and will soon.
_AWAY = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "UNBLOCKED",
    "NOREPLICAS",
    "MOVED",
    "ASK",
)


class AwayError(BrokerError):
    """There is no connection to the broker, or it cannot serve now."""


def says_away(reply: Any) -> bool:
    """Whether a reply says that the broker cannot serve now."""
    return isinstance(reply, ResponseError) and (str(reply).startswith(_AWAY) or type(reply).__name__ in _AWAY_TYPES)


#: redis-py takes the first word of what it has a class for.
_AWAY_TYPES = {
    "BusyLoadingError",
    "ReadOnlyError",
    "MasterDownError",
    "ClusterDownError",
    "TryAgainError",
    "MovedError",
    "AskError",
}


class Health:
    """Whether the broker is there, for all connections to it: one log line when it goes, and one when it is back."""

    def __init__(self, name: str, counters: TopicCounters) -> None:
        self.name = name
        self._counters = counters
        self._away: set[object] = set()

    @property
    def is_away(self) -> bool:
        return bool(self._away)

    def away(self, who: object, error: BaseException) -> None:
        if not self._away:
            self._counters.outages += 1
            gen_log.warning("Topics: the broker %s is away: %s", self.name, error)
        self._away.add(who)

    def back(self, who: object) -> None:
        if who in self._away:
            self._away.discard(who)
            if not self._away:
                gen_log.warning("Topics: the broker %s is back", self.name)

    def reconnected(self) -> None:
        """A connection was made anew."""
        self._counters.reconnects += 1

    def forget(self, who: object) -> None:
        """Take no notice of who has stopped asking: it does not know whether the broker is back."""
        self._away.discard(who)


class Link:
    """One connection, made when it is needed. Only one task may use it at a time."""

    def __init__(self, make: Make, health: Health, timeout: float) -> None:
        self._make = make
        self._health = health
        self._timeout = timeout
        self._connection: Any = None
        self._delay = DELAYS[0]
        self._was_connected = False
        #: What Redis calls this connection; None before it was asked.
        self.client_id: int | None = None

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    async def connect(self) -> None:
        """Connect, if there is no connection. Raises `AwayError`, and `BrokerError` where credentials are wrong."""
        if self._connection is not None:
            return
        connection: Any = None
        try:
            connection = await asyncio.wait_for(self._make(), self._timeout)
            await asyncio.wait_for(connection.connect(), self._timeout)
            connection_id = await self._exchange(connection, [("CLIENT", "ID")], self._timeout)
        except BaseException as error:
            if connection is not None:
                await self._disconnect(connection)
            if isinstance(error, AuthenticationError):
                raise BrokerError(f"broker {self._health.name} refuses the credentials: {error}") from error
            if isinstance(error, (RedisError, OSError, asyncio.TimeoutError)):
                raise AwayError(f"cannot connect: {error or type(error).__name__}") from error
            raise
        self.client_id = connection_id[0] if isinstance(connection_id[0], int) else None
        self._connection = connection
        if self._was_connected:
            self._health.reconnected()
        self._was_connected = True

    async def ask(self, commands: Sequence[tuple[Any, ...]], patience: float = 0.0) -> list[Any]:
        """Send ``commands`` in one write, and return their replies; one that is an error is a ResponseError among them.

        ``patience`` is how many seconds they may take beyond what is usual. Raises what `connect` does.
        """
        await self.connect()
        connection = self._connection
        try:
            replies = await self._exchange(connection, commands, self._timeout + patience)
        except BaseException as error:
            self._connection = self.client_id = None
            await self._disconnect(connection)
            if isinstance(error, (RedisError, OSError, asyncio.TimeoutError)):
                raise AwayError(str(error) or "no answer in time") from error
            raise
        self._delay = DELAYS[0]
        self._health.back(self)
        return replies

    async def _exchange(self, connection: Any, commands: Sequence[tuple[Any, ...]], seconds: float) -> list[Any]:
        return await asyncio.wait_for(_exchange(connection, commands), seconds)

    async def wait_until_back(self, error: BaseException) -> None:
        """Say that the broker is away, let go of the connection, and wait before the next attempt."""
        self._health.away(self, error)
        await self._let_go()
        # Not all processes at once.
        await asyncio.sleep(self._delay * random.uniform(0.5, 1))
        self._delay = min(2 * self._delay, DELAYS[1])

    def give_up(self) -> None:
        """Nobody waits any more for the broker to be back."""
        self._health.forget(self)

    async def close(self) -> None:
        self.give_up()
        await self._let_go()

    async def _let_go(self) -> None:
        connection, self._connection, self.client_id = self._connection, None, None
        if connection is not None:
            await self._disconnect(connection)

    @staticmethod
    async def _disconnect(connection: Any) -> None:
        with contextlib.suppress(RedisError, OSError, asyncio.TimeoutError):
            await connection.disconnect(nowait=True)


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel ``task``, and wait for its end.

    Once is not enough: before Python 3.12 `asyncio.wait_for` forgets a cancellation that comes together with what it
    waits for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


async def _exchange(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    packed: Any = connection.pack_commands(commands) if _pack is None else b"".join(map(_pack, commands))
    await connection.send_packed_command(packed, check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response(disconnect_on_error=False))
        except ResponseError as error:
            replies.append(error)
    return replies
