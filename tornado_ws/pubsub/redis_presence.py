"""Who is present, over all processes: a hash for each topic and process, which Redis forgets when nobody renews it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import ResponseError

from tornado_ws.errors import BrokerError
from tornado_ws.pubsub.members import Members
from tornado_ws.pubsub.redis_link import cancel_and_wait
from tornado_ws.pubsub.wire import Keys, fields_of

#: Asks the server that has a topic.
Ask = Callable[[str, list[tuple[Any, ...]]], Awaitable[list[Any]]]


class Presence:
    """The members that connections of this process are, written to Redis again and again."""

    def __init__(self, ask: Ask, keys: Keys, origin: str, seconds: float) -> None:
        self._ask = ask
        self._keys = keys
        self._origin = origin
        self._seconds = seconds
        self._members = Members()
        #: Topics that Redis does not have as they are here.
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def enter(self, topic: str, member: str, data: str) -> None:
        self._members.enter(topic, member, data)
        self._begin()
        await self._ask(topic, self._commands(topic))

    def leave(self, topic: str, member: str) -> None:
        self._members.leave(topic, member)
        self._changed.add(topic)
        self._begin()
        self._wake.set()

    async def all_of(self, topic: str) -> dict[str, Any]:
        key = self._keys.presence(topic)
        (origins,) = await self._ask(topic, [("SMEMBERS", key)])
        if isinstance(origins, ResponseError):
            raise BrokerError(str(origins))
        found: dict[str, Any] = {}
        replies = (
            await self._ask(topic, [("HGETALL", f"{key}:{origin.decode()}") for origin in origins]) if origins else []
        )
        gone = [origin for origin, reply in zip(origins, replies, strict=True) if not reply]
        if gone:
            await self._ask(topic, [("SREM", key, *gone)])
        for reply in replies:
            if isinstance(reply, list):
                found.update((member.decode(), json.loads(data)) for member, data in fields_of(reply).items())
        return found

    def _commands(self, topic: str) -> list[tuple[Any, ...]]:
        """Return what makes Redis have the members of ``topic`` that are here, for some time."""
        key = self._keys.presence(topic)
        own = f"{key}:{self._origin}"
        members = self._members.of(topic)
        if not members:
            return [("DEL", own), ("SREM", key, self._origin)]
        fields = [part for item in members.items() for part in item]
        limit = int(self._seconds * 1000)
        # In one piece: nobody is to see a hash without those that are in it.
        return [
            ("MULTI",),
            ("DEL", own),
            ("HSET", own, *fields),
            ("PEXPIRE", own, limit),
            ("SADD", key, self._origin),
            ("PEXPIRE", key, 10 * limit),
            ("EXEC",),
        ]

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._seconds / 3)
            topics = self._changed if self._wake.is_set() else {*self._members, *self._changed}
            self._wake.clear()
            self._changed = set()
            with contextlib.suppress(BrokerError):
                for topic in topics:
                    await self._ask(topic, self._commands(topic))

    async def close(self) -> None:
        if self._task is None:
            return
        await cancel_and_wait(self._task)
        topics = [*self._members, *self._changed]
        self._members.clear()
        with contextlib.suppress(BrokerError, asyncio.TimeoutError):
            for topic in topics:
                await asyncio.wait_for(self._ask(topic, self._commands(topic)), 1.0)
