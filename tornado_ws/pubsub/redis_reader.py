"""Reading the streams of Redis: one blocking XREAD for all of them, from the last id of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError
from tornado.log import gen_log

from tornado_ws.errors import BrokerError
from tornado_ws.pubsub.broker import Receiver
from tornado_ws.pubsub.redis_link import AwayError, Link, cancel_and_wait, says_away
from tornado_ws.pubsub.redis_stream import Info, Stream
from tornado_ws.pubsub.wire import epoch_commands, epoch_key

#: Entries of each stream in one reply, at most.
COUNT = 500
#: Seconds that a read blocks, and after which it is looked whether anything was lost where nothing hints at it.
BLOCK = 2.0


def look_commands(key: str) -> list[tuple[Any, ...]]:
    """Return the commands that say the epoch of a stream, which is made if there is none, and what is in it."""
    return [*epoch_commands(key), ("XINFO", "STREAM", key)]


def raise_for(reply: Any) -> None:
    """Raise `AwayError` or `BrokerError` for a reply that is an error."""
    if isinstance(reply, ResponseError):
        raise AwayError(str(reply)) if says_away(reply) else BrokerError(str(reply))


def time_of(reply: Any) -> float:
    """Return the time that a reply to TIME says, in seconds since 1970. Raises what the broker said instead."""
    raise_for(reply)
    return int(reply[0]) + int(reply[1]) / 1e6


def looked(replies: Sequence[Any]) -> tuple[str, Info]:
    """Return the epoch and the `Info` of what `look_commands` have asked for. Raises what the broker said instead."""
    for reply in replies[:2]:
        raise_for(reply)
    if says_away(replies[2]):
        raise AwayError(str(replies[2]))
    return (replies[1] or b"").decode(), Info(replies[2])


class Reader:
    """Reads by a task of its own, and gives what it reads to the receiver, one stream after the other.

    :param covers: returns what is true of the names whose messages are in the stream of a number.
    :param max_length: how many entries a stream keeps at least.
    """

    def __init__(
        self,
        link: Link,
        receiver: Receiver,
        own: str,
        epochs: dict[str, str],
        covers: Callable[[int], Callable[[str], bool]],
        max_length: int,
    ) -> None:
        self.streams: dict[int, Stream] = {}
        self._link = link
        self._receiver = receiver
        self._own = own.encode()
        self._epochs = epochs
        self._covers = covers
        #: Entries of a stream in one reply that may have been too many for the stream.
        self._suspicious = min(COUNT, max_length)
        #: Entries of each stream in the next reply. A server may cut off a connection whose reply is too large for its
        #: ``client-output-buffer-limit``: when it does so again and again, less is asked for.
        self._count = COUNT
        self._cuts = 0
        #: The streams of the read under way.
        self._read_now: set[int] = set()
        self._wake = asyncio.Event()
        self._looked_at = 0.0
        self._must_look = True
        self._task: asyncio.Task[None] | None = None

    def add(self, stream: Stream) -> None:
        """Read a stream too. The read under way does not have it: whoever wants that ended asks Redis for it."""
        self.streams[stream.number] = stream
        self._epochs[stream.key] = stream.epoch
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def remove(self, number: int) -> None:
        del self.streams[number]

    def misses(self, number: int) -> bool:
        """Whether a read is under way that does not have this stream."""
        return bool(self._read_now) and number not in self._read_now

    @property
    def client_id(self) -> int | None:
        return self._link.client_id

    async def _run(self) -> None:
        while True:
            if not self.streams:
                self._wake.clear()
                await self._wake.wait()
            await self.step()

    async def step(self) -> None:
        """Read once, or wait for a broker that is away."""
        try:
            await self._read()
        except AwayError as error:
            self._must_look = True
            self._cuts += bool(self._read_now)
            if self._cuts > 1:
                self._count = max(1, self._count // 2)
            await self._link.wait_until_back(error)
        except Exception as error:
            # A reply that nobody expects: permissions, or a key of another type.
            gen_log.exception("Topics: reading from the broker failed")
            self._must_look = True
            await self._link.wait_until_back(error)
        finally:
            self._read_now = set()

    async def _read(self) -> None:
        streams = list(self.streams.values())
        now = asyncio.get_running_loop().time()
        looked_at = self._to_look_at(streams, now)
        commands = [("TIME",), *(command for stream in looked_at for command in look_commands(stream.key))]
        ids = [f"{stream.last[0]}-{stream.last[1]}" for stream in streams]
        keys = [stream.key for stream in streams]
        # Who suspects something waits for nothing.
        suspects = self._must_look or any(stream.is_suspect for stream in streams)
        blocks = () if suspects else ("BLOCK", int(BLOCK * 1000))
        read = ("XREAD", "COUNT", self._count, *blocks, "STREAMS", *keys, *ids)
        await self._link.connect()
        self._read_now = {stream.number for stream in streams}
        replies = await self._link.ask([*commands, read], BLOCK)
        self._read_now = set()
        self._cuts = 0
        if len(looked_at) == len(streams):
            self._must_look, self._looked_at = False, now
        renewed = await self._look(looked_at, time_of(replies[0]), replies[1:])
        await self._take(replies[-1], {stream.key.encode(): stream for stream in streams}, renewed)

    def _to_look_at(self, streams: Sequence[Stream], now: float) -> Sequence[Stream]:
        if self._must_look or now - self._looked_at > BLOCK / 2 or not self._link.is_connected:
            return streams
        # Before Redis 7 nobody counts entries: what was lost can only be seen before it is read.
        return [stream for stream in streams if stream.is_suspect or stream.count is None]

    async def _look(self, streams: Sequence[Stream], clock: float, replies: Sequence[Any]) -> set[bytes]:
        """See whether anything was lost before this read; returns the keys of streams that are read from elsewhere."""
        renewed = set()
        for index, stream in enumerate(streams):
            epoch, info = looked(replies[3 * index : 3 * index + 3])
            last = stream.last
            lost = stream.check(epoch, info, clock)
            if lost is None:
                continue
            if stream.last != last:
                renewed.add(stream.key.encode())
            self._epochs[stream.key] = stream.epoch
            if stream.epoch != epoch:
                await self._link.ask([("SET", epoch_key(stream.key), stream.epoch)])
            self._tell(stream, lost)
        return renewed

    def _tell(self, stream: Stream, lost: str) -> None:
        if self.streams.get(stream.number) is stream:
            self._receiver.gap(self._covers(stream.number), f"stream {stream.key}: {lost}")

    async def _take(self, reply: Any, streams: dict[bytes, Stream], renewed: set[bytes]) -> None:
        if isinstance(reply, ResponseError) and str(reply).startswith("UNBLOCKED"):
            return
        raise_for(reply)
        for stream in streams.values():
            stream.has_more = False
        for key, raws in reply or ():
            stream = streams[key]
            if key in renewed or self.streams.get(stream.number) is not stream:
                continue
            stream.has_more = len(raws) == self._count
            # What was before these may have been trimmed, and so may what waits behind them.
            stream.is_suspect = stream.has_more or len(raws) >= self._suspicious
            lost = stream.check_read(raws)
            if lost is not None:
                self._tell(stream, lost)
            messages = stream.take(raws, self._own)
            try:
                self._receiver.deliver(messages)
            except Exception:
                gen_log.exception("Topics: delivering failed")
            # Other connections have their turn.
            await asyncio.sleep(0)
        if any(stream.has_more for stream in streams.values()):
            self._count = min(COUNT, self._count + self._count // 16 + 1)

    async def close(self) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)
        await self._link.close()
