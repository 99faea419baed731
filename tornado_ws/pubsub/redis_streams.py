"""The broker of many processes: Redis streams.

A topic belongs to one of N streams by its hash. Everybody reads the streams of the topics that somebody is subscribed
to, and gets what is published there, its own messages too, in the one order that the stream has.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from tornado.log import gen_log

from tornado_ws.connection.writing import SharedMessage
from tornado_ws.errors import BrokerError
from tornado_ws.pubsub.broker import Lag, Receiver, TopicCounters
from tornado_ws.pubsub.history import Rules
from tornado_ws.pubsub.messages import Id, Message, Position
from tornado_ws.pubsub.names import is_prefix
from tornado_ws.pubsub.redis_link import Health
from tornado_ws.pubsub.redis_presence import Presence
from tornado_ws.pubsub.redis_reader import look_commands, looked, time_of
from tornado_ws.pubsub.redis_shard import Shard
from tornado_ws.pubsub.redis_source import source_of
from tornado_ws.pubsub.redis_stream import Stream, before
from tornado_ws.pubsub.settings import Settings
from tornado_ws.pubsub.wire import Keys, add_command

#: Seconds for which a stream is read on when nobody is subscribed any more: clients come back.
LINGER = 60.0
#: Seconds for which a client is waited for that has seen more than this process.
AHEAD = 2.0
#: Entries in one reply when older messages are read.
PAGE = 1000
#: Bytes of a message beside its data, about.
OVERHEAD = 200


class RedisBroker:
    """See `tornado_ws.pubsub.broker.Broker`."""

    def __init__(self, receiver: Receiver, url: str, rules: Rules, settings: Settings, counters: TopicCounters) -> None:
        self._source = source_of(url)
        self._receiver = receiver
        self._rules = rules
        self._settings = settings
        self._counters = counters
        self._keys = Keys(settings.prefix, settings.streams)
        #: Who publishes, for readers.
        self._origin = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._health = Health(self._source.name, counters)
        self._shards: dict[int, Shard] = {}
        self._joining: dict[int, asyncio.Task[None]] = {}
        self._refilling: dict[int, asyncio.Task[None]] = {}
        self._presence = Presence(self._ask_about, self._keys, self._origin, settings.presence_seconds)
        self._sweeper: asyncio.TimerHandle | None = None

    def _covers(self, number: int) -> Callable[[str], bool]:
        return lambda name: is_prefix(name) or self._keys.number_of(name) == number

    def shard_of(self, number: int) -> Shard:
        """Return the connections for a stream: in a cluster each stream has its own."""
        index = number if self._source.is_divided else 0
        shard = self._shards.get(index)
        if shard is None:
            shard = self._shards[index] = Shard(
                self._source.maker(self._keys.stream(number)),
                self._receiver,
                self._health,
                self._settings,
                self._counters,
                self._origin,
                self._covers,
            )
        return shard

    async def _ask_about(self, topic: str, commands: list[tuple[Any, ...]]) -> list[Any]:
        return await self.shard_of(self._keys.number_of(topic)).ask(commands)

    def _streams(self) -> dict[int, Stream]:
        return {number: stream for shard in self._shards.values() for number, stream in shard.reader.streams.items()}

    # Reading

    async def join(self, name: str) -> None:
        wanted = range(self._settings.streams) if is_prefix(name) else (self._keys.number_of(name),)
        for number in wanted:
            stream = self.shard_of(number).reader.streams.get(number)
            if stream is not None:
                stream.idle_since = None
        missing = [number for number in wanted if number not in self.shard_of(number).reader.streams]
        if missing:
            await asyncio.gather(*(_shared(self._joining, number, self._begin(number)) for number in missing))

    async def _begin(self, number: int) -> None:
        key, shard = self._keys.stream(number), self.shard_of(number)
        reader = shard.reader
        epoch, info = looked(await shard.ask(look_commands(key)))
        reader.add(Stream(number, key, epoch, info, self._rules, self._counters))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(LINGER / 2, self._sweep)
        # Else it would be read when the read under way ends by itself.
        while reader.misses(number) and reader.client_id is not None:
            replies = await shard.ask([("CLIENT", "UNBLOCK", reader.client_id)])
            if not isinstance(replies[0], int):
                break
            await asyncio.sleep(0.005)

    def _sweep(self) -> None:
        """Read no more what nobody has been subscribed to for a while, and drop messages that are too old."""
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(LINGER / 2, self._sweep)
        names = list(self._receiver.names())
        used = {self._keys.number_of(name) for name in names if not is_prefix(name)}
        has_prefix = any(is_prefix(name) for name in names)
        for number, stream in self._streams().items():
            stream.recent.expire()
            if has_prefix or number in used:
                stream.idle_since = None
            elif stream.idle_since is None:
                stream.idle_since = loop.time()
            elif loop.time() - stream.idle_since > LINGER and number not in self._joining:
                self.shard_of(number).reader.remove(number)

    def _stream_of(self, topic: str) -> Stream:
        number = self._keys.number_of(topic)
        return self.shard_of(number).reader.streams[number]

    def head(self, topic: str) -> Position:
        return self._stream_of(topic).head

    def missed(self, topic: str, since: Position) -> list[Message] | None:
        stream = self._stream_of(topic)
        return stream.recent.missed(topic, since, stream.head)

    async def recover(self, topic: str, since: Position) -> None:
        stream = self._stream_of(topic)
        deadline = time.monotonic() + AHEAD
        while since.epoch == stream.epoch and since.id > stream.last and time.monotonic() < deadline:
            # Another process was ahead of this one.
            await asyncio.sleep(0.005)
        is_covered = since.id == stream.last or stream.recent.covers(topic, since.id)
        if since.epoch != stream.epoch or is_covered or stream.is_refilled or self._rules.of(topic) is None:
            return
        try:
            await _shared(self._refilling, stream.number, self._refill(stream))
        except BrokerError as error:
            gen_log.warning("Topics: older messages of stream %s cannot be read: %s", stream.key, error)

    async def _refill(self, stream: Stream) -> None:
        """Read what was in a stream before this process began to."""
        shard = self.shard_of(stream.number)
        replies = await shard.ask([("TIME",), *look_commands(stream.key)])
        epoch, info = looked(replies[1:])
        if epoch != stream.epoch or info.last < stream.last:
            return
        milliseconds = int((time_of(replies[0]) - self._rules.seconds) * 1000)
        lowest: Id = (max(milliseconds, 0), 0)
        floor = before(lowest) if lowest > (0, 0) else (0, 0)
        if info.first is not None and (info.added is None or info.trimmed > 0) and info.first > lowest:
            floor = before(info.first)
        # Another one, if anything is lost meanwhile.
        recent = stream.recent
        raws: list[Any] = []
        begin = f"{lowest[0]}-{lowest[1]}"
        while True:
            end = f"{stream.last[0]}-{stream.last[1]}"
            (page,) = await shard.ask([("XRANGE", stream.key, begin, end, "COUNT", PAGE)])
            if not isinstance(page, list):
                raise BrokerError(str(page))
            raws += page
            if len(page) < PAGE:
                break
            begin = f"({page[-1][0].decode()}"
        if stream.recent is recent:
            recent.refill(stream.older_of(raws), floor)
            stream.is_refilled = True

    # Publishing

    def publish(self, topic: str, shared: SharedMessage, exclude: Any) -> asyncio.Future[Position]:
        number = next(self._numbers)
        stream_number = self._keys.number_of(topic)
        key = self._keys.stream(stream_number)
        command = add_command(
            key, self._settings.max_length, topic, shared.payload, shared.binary, self._origin, number
        )
        if exclude is not None:
            stream = self.shard_of(stream_number).reader.streams.get(stream_number)
            if stream is not None:
                stream.excluded[number] = exclude
        return self.shard_of(stream_number).writer.put(command, len(shared.payload) + len(topic) + OVERHEAD)

    # Presence

    async def enter(self, topic: str, member: str, data: Any) -> None:
        await self._presence.enter(topic, member, json.dumps(data))

    def leave(self, topic: str, member: str) -> None:
        self._presence.leave(topic, member)

    async def presence(self, topic: str) -> dict[str, Any]:
        return await self._presence.all_of(topic)

    # What is seen of it

    @property
    def is_away(self) -> bool:
        return self._health.is_away

    def lag(self) -> Lag:
        every = [stream.lag() for stream in self._streams().values()]
        waiting = [lag.messages for lag in every if lag.messages is not None]
        return Lag(
            sum(waiting) if len(waiting) == len(every) else None, max((lag.seconds for lag in every), default=0.0)
        )

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in [*self._joining.values(), *self._refilling.values()]:
            task.cancel()
        await asyncio.gather(*(shard.close() for shard in self._shards.values()))
        await self._presence.close()
        await asyncio.gather(*(shard.let_go() for shard in self._shards.values()))
        await self._source.close()


async def _shared(tasks: dict[int, asyncio.Task[None]], number: int, coroutine: Any) -> None:
    """Await ``coroutine``, or the one that somebody else awaits for that number already."""
    task = tasks.get(number)
    if task is None:
        task = tasks[number] = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(lambda _: tasks.pop(number, None))
    else:
        coroutine.close()
    # Whoever gives up does so for nobody else.
    await asyncio.shield(task)
