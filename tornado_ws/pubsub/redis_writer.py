"""Publishing to Redis: what a turn of the loop publishes goes out in one pipeline, in order, and is sent again after
an interruption.

Nobody knows what a broker has of a pipeline that was interrupted. So all of it is sent again, in the same order; every
entry has the number of its message, and readers leave out what they have had.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from tornado.log import gen_log

from tornado_ws.errors import PublishError
from tornado_ws.pubsub.broker import TopicCounters
from tornado_ws.pubsub.messages import Position, parse_id
from tornado_ws.pubsub.redis_link import AwayError, Health, Link, cancel_and_wait, says_away
from tornado_ws.pubsub.settings import Settings
from tornado_ws.pubsub.wire import epoch_commands

#: What one pipeline has at most.
MESSAGES = 500
BYTES = 1 << 20

#: Seconds after which the epoch of a stream is asked for again.
EPOCH_AGE = 1.0

#: Seconds that the end waits for a broker that is away.
CLOSE_TIMEOUT = 5.0


class Publication:
    """A message on its way to the broker."""

    __slots__ = ("command", "deadline", "future", "is_sent", "size")

    def __init__(self, command: tuple[Any, ...], size: int, future: asyncio.Future[Position], deadline: float) -> None:
        self.command = command
        self.size = size
        self.future = future
        self.deadline = deadline
        self.is_sent = False


class Writer:
    """Publishes by a task of its own. ``epoch_of`` says the epoch of the stream that a command is for."""

    def __init__(
        self, link: Link, health: Health, settings: Settings, counters: TopicCounters, epochs: dict[str, str]
    ) -> None:
        self._link = link
        self._health = health
        self._settings = settings
        self._counters = counters
        #: The epoch of each stream, by its key.
        self._epochs = epochs
        self._epochs_asked: dict[str, float] = {}
        self._waiting: deque[Publication] = deque()
        self._in_flight: deque[Publication] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._has_complained = False
        self._task: asyncio.Task[None] | None = None

    def put(self, command: tuple[Any, ...], size: int) -> asyncio.Future[Position]:
        """Publish by a command, which takes ``size`` bytes."""
        loop = asyncio.get_running_loop()
        publication = Publication(command, size, loop.create_future(), loop.time() + self._settings.publish_timeout)
        if self._settings.publish_policy == "fail" and self._health.is_away:
            self._fail(publication, f"the broker {self._health.name} is away")
        elif self._size and self._size + size > self._settings.publish_limit:
            self._fail(publication, f"{self._size} bytes wait for the broker {self._health.name} already")
        else:
            self._size += size
            self._waiting.append(publication)
            self._begin(loop)
        return publication.future

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_idle.clear()
        self._wake.set()
        if self._task is None:
            self._task = loop.create_task(self._run())
        if self._timer is None:
            self._timer = loop.call_later(self._settings.publish_timeout, self._on_timer)

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            try:
                await self._send_some()
            except AwayError as error:
                self._send_again()
                # It may come back without its data.
                self._epochs.clear()
                failures += 1
                # One is what an idle connection that the broker has closed costs, too.
                if self._settings.publish_policy == "fail" and failures > 1:
                    self._fail_all(f"the broker {self._health.name} is away")
                await self._link.wait_until_back(error)
            except Exception as error:
                gen_log.exception("Topics: publishing failed")
                self._send_again()
                self._fail_all(str(error))
            else:
                failures = 0
            if not self._waiting:
                self._link.give_up()
                self._wake.clear()
                self._is_idle.set()

    async def _send_some(self) -> None:
        size = 0
        while self._waiting and len(self._in_flight) < MESSAGES and size < BYTES:
            publication = self._waiting.popleft()
            if publication.future.done():
                # It has failed, or nobody wants it any more.
                self._let_go(publication)
                continue
            size += publication.size
            self._in_flight.append(publication)
        if not self._in_flight:
            return
        await self._link.connect()
        for publication in self._in_flight:
            publication.is_sent = True
        keys = list(dict.fromkeys(str(publication.command[1]) for publication in self._in_flight))
        now = asyncio.get_running_loop().time()
        unknown = [key for key in keys if key not in self._epochs or self._epochs_asked.get(key, 0) + EPOCH_AGE < now]
        epochs = [command for key in unknown for command in epoch_commands(key)]
        replies = await self._link.ask([*epochs, *(publication.command for publication in self._in_flight)])
        for index, key in enumerate(unknown):
            reply = replies[2 * index + 1]
            self._epochs[key] = reply.decode() if isinstance(reply, bytes) else ""
            self._epochs_asked[key] = now
        self._take_replies(replies[len(epochs) :])

    def _take_replies(self, replies: Sequence[Any]) -> None:
        sent = list(self._in_flight)
        self._in_flight.clear()
        # What is behind the last message that the broker has taken may be sent again: the order stays.
        behind = max((index for index, reply in enumerate(replies) if isinstance(reply, bytes)), default=-1)
        again: list[Publication] = []
        for index, (publication, reply) in enumerate(zip(sent, replies, strict=True)):
            if isinstance(reply, bytes):
                self._done(publication, reply)
            elif says_away(reply) and index > behind:
                again.append(publication)
            else:
                self._let_go(publication)
                self._fail(publication, f"the broker {self._health.name} refuses it: {reply}")
        if again:
            self._waiting.extendleft(reversed(again))
            raise AwayError(str(replies[-1]))
        self._has_complained = False

    def _done(self, publication: Publication, reply: bytes) -> None:
        self._let_go(publication)
        if not publication.future.done():
            publication.future.set_result(Position(self._epochs[str(publication.command[1])], parse_id(reply)))

    def _let_go(self, publication: Publication) -> None:
        self._size -= publication.size

    def _send_again(self) -> None:
        self._waiting.extendleft(reversed(self._in_flight))
        self._in_flight.clear()

    def _fail(self, publication: Publication, why: str, is_unknown: bool = False) -> None:
        self._counters.failed += 1
        if not self._has_complained:
            self._has_complained = True
            gen_log.error("Topics: messages are not published: %s", why)
        if not publication.future.done():
            publication.future.set_exception(PublishError(f"message was not published: {why}", is_unknown))
            # Whoever does not await it has the log line and the counter.
            publication.future.exception()

    def _on_timer(self) -> None:
        """Fail what has waited for too long. What comes first has waited longest."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for queue in (self._in_flight, self._waiting):
            while queue and queue[0].deadline <= loop.time():
                # A message of a pipeline under way stays in it, for its reply to be counted.
                publication = queue[0] if queue is self._in_flight else queue.popleft()
                if queue is self._in_flight:
                    self._expire_in_flight(loop.time())
                    break
                self._let_go(publication)
                self._expire(publication)
        rest = [each.deadline for queue in (self._in_flight, self._waiting) for each in queue if not each.future.done()]
        if rest:
            self._timer = loop.call_at(max(rest[0], loop.time() + 0.01), self._on_timer)

    def _expire_in_flight(self, now: float) -> None:
        for publication in self._in_flight:
            if publication.deadline <= now and not publication.future.done():
                self._expire(publication)

    def _expire(self, publication: Publication) -> None:
        seconds = self._settings.publish_timeout
        doubt = "; it may have been before" if publication.is_sent else ""
        why = f"the broker {self._health.name} did not take it within {seconds:g} s{doubt}"
        self._fail(publication, why, publication.is_sent)

    def _fail_all(self, why: str) -> None:
        while self._waiting:
            publication = self._waiting.popleft()
            self._let_go(publication)
            self._fail(publication, why, publication.is_sent)

    async def close(self) -> None:
        """Send what waits, for as long as its time limit allows, and end."""
        if self._task is not None:
            try:
                await asyncio.wait_for(self._is_idle.wait(), min(self._settings.publish_timeout, CLOSE_TIMEOUT))
            except asyncio.TimeoutError:
                self._send_again()
                self._fail_all("the topics are closed, and the broker is away")
            await cancel_and_wait(self._task)
        if self._timer is not None:
            self._timer.cancel()
        await self._link.close()
