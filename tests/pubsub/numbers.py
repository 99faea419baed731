"""Numbers that go through a broker, and come or do not: none may be lost, come twice, or out of order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.pubsub.redis_server import RedisServer
from tests.support import until
from tornado_ws import Position, TopicGapError, Topics
from tornado_ws.pubsub.listening import Listener
from tornado_ws.pubsub.redis_streams import RedisBroker

#: Messages that are not with the broker, at most: a process refuses more than 16 MiB of them.
_MOST_UNDER_WAY = 20_000

TOPICS = [f"t/{number}" for number in range(5)]


class Collector:
    """Listens, and notes the numbers of each topic, and the gaps."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.numbers: dict[str, list[int]] = {topic: [] for topic in TOPICS}
        self.order: list[tuple[Position, str]] = []
        self.gaps: list[str] = []

    async def run(self) -> None:
        while True:
            try:
                async for message in self._listener:
                    self.numbers[message.topic].append(int(message.data))
                    self.order.append((message.position, message.topic))
                return
            except TopicGapError as error:
                self.gaps.append(str(error))

    @property
    def count(self) -> int:
        return sum(map(len, self.numbers.values()))


@contextlib.asynccontextmanager
async def collecting(topics: Topics) -> AsyncIterator[Collector]:
    async with topics.listen("t/*", limit=1_000_000) as listener:
        collector = Collector(listener)
        task = asyncio.ensure_future(collector.run())
        try:
            yield collector
        finally:
            listener.close()
            await task


@contextlib.asynccontextmanager
async def processes(server: RedisServer, count: int = 2, **settings: Any) -> AsyncIterator[list[Topics]]:
    """Several objects, each of which has all that a process has."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Topics(server.url, **settings)) for _ in range(count)]


class Publisher:
    """Publishes numbers, 0, 1, 2 … in each topic, without waiting for one before the next."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self.sent = 0
        self.futures: list[asyncio.Future[Position]] = []
        self._done = 0

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            topic = TOPICS[self.sent % len(TOPICS)]
            self.futures.append(self._topics.publish(topic, str(self.sent // len(TOPICS))))
            self.sent += 1

    async def go_on(self) -> None:
        while True:
            while self._done < self.sent and self.futures[self._done].done():
                self._done += 1
            if self.sent - self._done < _MOST_UNDER_WAY:
                self.publish(10)
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def publishing(topics: Topics) -> AsyncIterator[Publisher]:
    """Publish all the time, and at the end have it all with the broker."""
    publisher = Publisher(topics)
    task = asyncio.ensure_future(publisher.go_on())
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.gather(*publisher.futures)


async def everything_came(publisher: Publisher, *collectors: Collector) -> None:
    """Wait for all that was published, and see that nothing was lost, repeated or out of order."""
    for collector in collectors:
        await until(lambda: collector.count >= publisher.sent)  # noqa: B023
        for index, topic in enumerate(TOPICS):
            assert collector.numbers[topic] == list(range(len(range(index, publisher.sent, len(TOPICS)))))
        assert collector.gaps == []


def broker_of(topics: Topics) -> RedisBroker:
    broker = topics._broker
    assert isinstance(broker, RedisBroker)
    return broker
