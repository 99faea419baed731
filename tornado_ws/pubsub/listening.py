"""Topics for code that is no connection: an async iterator over their messages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

from tornado_ws.errors import TopicGapError
from tornado_ws.pubsub.messages import Message
from tornado_ws.pubsub.names import matches


class Listener:
    """Yields each `Message` of a topic, or of a prefix, from when it has begun: by ``async with``, or the first step.

    ``async for message in listener`` ends when the topics are closed. It raises `TopicGapError` once where messages
    were lost, after those before them; the next step goes on behind them.
    """

    def __init__(
        self, topic: str, limit: int, begin: Callable[[Listener], Awaitable[None]], end: Callable[[Listener], object]
    ) -> None:
        self.topic = topic
        self._limit = limit
        self._begin = begin
        self._end = end
        self._is_begun = False
        self._is_closed = False
        self._queue: deque[Message | TopicGapError] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Message:
        await self.begin()
        while not self._queue:
            if self._is_closed:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("another task waits for the next message of this listener already")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        found = self._queue.popleft()
        if isinstance(found, TopicGapError):
            raise found
        return found

    async def __aenter__(self) -> Listener:
        await self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def begin(self) -> None:
        """Begin to listen: what is published from now on is for this listener."""
        if not self._is_begun:
            self._is_begun = True
            await self._begin(self)

    def close(self) -> None:
        """Listen no more. What has come already is still yielded."""
        if not self._is_closed:
            self._is_closed = True
            self._end(self)
            self._wake()

    def take(self, messages: Sequence[Message]) -> None:
        """Take those of ``messages`` that are for this listener."""
        for message in messages:
            if matches(self.topic, message.topic):
                if len(self._queue) >= self._limit:
                    self.gap(f"more than {self._limit} messages wait for who listens to {self.topic!r}")
                    break
                self._queue.append(message)
        self._wake()

    def gap(self, why: str) -> None:
        """Messages were lost."""
        if not (self._queue and isinstance(self._queue[-1], TopicGapError)):
            self._queue.append(TopicGapError(why))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done() and (self._queue or self._is_closed):
            self._waiter.set_result(None)
