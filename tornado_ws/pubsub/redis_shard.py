"""The connections for some streams: one that reads, one that publishes, one for questions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from tornado_ws.pubsub.broker import Receiver, TopicCounters
from tornado_ws.pubsub.redis_link import AwayError, Health, Link
from tornado_ws.pubsub.redis_reader import Reader
from tornado_ws.pubsub.redis_source import Make
from tornado_ws.pubsub.redis_writer import Writer
from tornado_ws.pubsub.settings import Settings


class Shard:
    """All streams of a server, or one stream of a cluster."""

    def __init__(
        self,
        make: Make,
        receiver: Receiver,
        health: Health,
        settings: Settings,
        counters: TopicCounters,
        own: str,
        covers: Callable[[int], Callable[[str], bool]],
    ) -> None:
        epochs: dict[str, str] = {}
        self._settings = settings
        self.writer = Writer(Link(make, health, settings.broker_timeout), health, settings, counters, epochs)
        self.reader = Reader(
            Link(make, health, settings.broker_timeout), receiver, own, epochs, covers, settings.max_length
        )
        self._link = Link(make, health, settings.broker_timeout)
        #: Who asks has the link for itself.
        self._asking = asyncio.Lock()

    async def ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Ask the broker, and again for `broker_timeout` seconds while it is away. Raises `BrokerError` then."""
        deadline = time.monotonic() + self._settings.broker_timeout
        async with self._asking:
            while True:
                try:
                    return await self._link.ask(commands)
                except AwayError as error:
                    if time.monotonic() > deadline:
                        self._link.give_up()
                        raise
                    await self._link.wait_until_back(error)

    async def close(self) -> None:
        await self.writer.close()
        await self.reader.close()

    async def let_go(self) -> None:
        """Close what is for questions, as the last thing."""
        await self._link.close()
