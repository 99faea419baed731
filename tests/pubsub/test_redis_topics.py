"""Topics of many processes over a Redis server: what goes wrong there, and that no message is lost or repeated."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import Log
from tests.pubsub.redis_server import RedisServer
from tests.pubsub.room import room
from tests.support import disconnect, until
from tornado_ws import BrokerError, History, Position, PublishError, TopicGapError, Topics
from tornado_ws.pubsub import redis_streams, redis_writer
from tornado_ws.pubsub.listening import Listener
from tornado_ws.pubsub.redis_streams import RedisBroker
from tornado_ws.pubsub.wire import Keys

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

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            topic = TOPICS[self.sent % len(TOPICS)]
            self.futures.append(self._topics.publish(topic, str(self.sent // len(TOPICS))))
            self.sent += 1

    async def go_on(self) -> None:
        while True:
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


# Who gets what


@pytest.mark.gen_test
async def test_processes_hear_each_other_and_themselves(redis_server: RedisServer) -> None:
    async with processes(redis_server) as (here, there), room(here) as ours, room(there) as theirs:
        clients = [await ours.join("a"), await ours.join("a"), await theirs.join("a"), await theirs.join("b")]
        await clients[0].write_message("from the first")
        for client in clients[1:3]:
            assert await client.read_message() == "from the first"
        position = await there.publish("room/a", b"\x00\xff")
        for client in clients[:3]:
            assert await client.read_message() == b"\x00\xff"
        assert position > (ours.subscriptions[0].position or position)
        there.publish("room/b", {"é": 1})
        assert await clients[3].read_message() == '{"\\u00e9": 1}'
        assert here.count("room/a") == 2
        await disconnect(clients[1])
        await until(lambda: here.count("room/a") == 1)


@pytest.mark.gen_test
async def test_all_processes_have_the_same_order(redis_server: RedisServer) -> None:
    async with processes(redis_server, 3) as every, contextlib.AsyncExitStack() as stack:
        collectors = [await stack.enter_async_context(collecting(topics)) for topics in every]
        for number in range(200):
            for topics in every:
                topics.publish(TOPICS[number % 5], str(number))
            if number % 10 == 0:
                await asyncio.sleep(0)
        for collector in collectors:
            await until(lambda: collector.count == 600)  # noqa: B023
        orders = [
            [[position for position, topic in collector.order if topic == name] for name in TOPICS]
            for collector in collectors
        ]
        assert orders[0] == orders[1] == orders[2]
        assert all(each == sorted(each) for each in orders[0])


@pytest.mark.gen_test
async def test_who_subscribes_gets_what_is_published_from_then_on(redis_server: RedisServer) -> None:
    """One topic after the other, while a read for the topics before is under way."""
    async with processes(redis_server) as (here, there), contextlib.AsyncExitStack() as stack:
        for number in range(30):
            listener = await stack.enter_async_context(here.listen(f"topic/{number}"))
            await there.publish(f"topic/{number}", str(number))
            assert (await anext(listener)).data == str(number)


@pytest.mark.gen_test
async def test_a_write_in_a_turn_is_one_for_what_one_read_has(redis_server: RedisServer) -> None:
    async with processes(redis_server) as (here, there), room(here) as members:
        client = await members.join("a")
        for number in range(2000):
            there.publish("room/a", str(number))
        assert [await client.read_message() for _ in range(2000)] == [str(number) for number in range(2000)]


@pytest.mark.gen_test
async def test_presence_is_of_all_processes(redis_server: RedisServer) -> None:
    async with processes(redis_server) as (here, there), room(here) as ours, room(there) as theirs:
        client = await ours.join("a")
        await theirs.join("a")
        await here.subscribe(ours.handlers[0], "room/a", presence={"name": "é"})
        await there.subscribe(theirs.handlers[0], "room/a", presence="b")
        for topics in (here, there):
            found = await topics.presence("room/a")
            assert len(found) == 2
            assert {"name": "é"} in found
            assert "b" in found
        await disconnect(client)
        while await there.presence("room/a") != ["b"]:
            await asyncio.sleep(0.01)
    async with processes(redis_server, 1) as (later,):
        assert await later.presence("room/a") == []


@pytest.mark.gen_test
async def test_who_dies_is_present_no_more(redis_server: RedisServer) -> None:
    async with processes(redis_server, presence_seconds=0.5) as (here, there), room(here) as ours:
        await ours.join("a")
        await here.subscribe(ours.handlers[0], "room/a", presence="a")
        task = broker_of(here)._presence._task
        assert task is not None
        begin = time.monotonic()
        while time.monotonic() < begin + 1:
            # It is renewed.
            assert await there.presence("room/a") == ["a"]
            await asyncio.sleep(0.05)
        # What a process that dies does.
        task.cancel()
        while await there.presence("room/a"):
            await asyncio.sleep(0.05)


# History


@pytest.mark.gen_test
async def test_what_was_missed_comes_from_memory_without_a_question(redis_server: RedisServer) -> None:
    async with processes(redis_server, history={"room/*": History(count=50)}) as (here, there), room(here) as members:
        await members.join("a")
        positions = [await there.publish("room/a", str(number)) for number in range(20)]
        await until(lambda: here.counters.received == 20)
        before = int(redis_server.ask("INFO", "commandstats")["cmdstat_xread"]["calls"])
        asked: list[Any] = []
        shard: Any = broker_of(here).shard_of(0)
        shard.ask = asked.append
        for number in range(20):
            client = await members.join("a", since=positions[number])
            assert [await client.read_message() for _ in range(19 - number)] == [*map(str, range(number + 1, 20))]
            assert members.subscriptions[-1].recovered
        assert asked == []
        assert before > 0
        del shard.ask


@pytest.mark.gen_test
async def test_what_is_older_than_a_process_comes_from_the_stream_and_is_read_once(redis_server: RedisServer) -> None:
    history = {"room/*": History(count=5000)}
    async with processes(redis_server, 1, history=history) as (first,):
        sent = [first.publish("room/a" if number % 2 else "room/b", str(number)) for number in range(4000)]
        positions = await asyncio.gather(*sent)
    async with processes(redis_server, 1, history=history) as (second,), room(second) as members:
        asked = 0
        broker: Any = broker_of(second)
        refill = broker._refill

        async def counted(stream: Any) -> None:
            nonlocal asked
            asked += 1
            await refill(stream)

        broker._refill = counted
        await asyncio.gather(*(members.join("a", since=positions[101]) for _ in range(10)))
        for number in members.subscribed:
            assert members.subscribed[number][1].missed == (4000 - 102) // 2
            assert members.subscribed[number][1].recovered
        second.publish("room/a", "new")
        client = await members.join("a", since=positions[3989])
        assert [await client.read_message() for _ in range(6)] == [*map(str, range(3991, 4000, 2)), "new"]
        assert asked == 1
        del broker._refill


@pytest.mark.gen_test
async def test_what_the_stream_has_no_more_is_said(redis_server: RedisServer) -> None:
    history = {"room/*": History(count=5000)}
    async with processes(redis_server, 1, history=history) as (first,):
        positions = [await first.publish("room/a", str(number)) for number in range(20)]
    key = Keys("tornado_ws", 16).stream(Keys("tornado_ws", 16).number_of("room/a"))
    redis_server.ask("XTRIM", key, "MAXLEN", "=", "10")
    async with processes(redis_server, 1, history=history) as (second,), room(second) as members:
        await members.join("a", since=positions[5])
        client = await members.join("a", since=positions[10])
        assert [each.recovered for each in members.subscriptions] == [False, True]
        assert [await client.read_message() for _ in range(9)] == [*map(str, range(11, 20))]


@pytest.mark.gen_test
async def test_a_client_that_is_ahead_of_a_process_gets_nothing_twice(redis_server: RedisServer) -> None:
    history = {"room/*": History()}
    async with processes(redis_server, history=history) as (here, there), room(here) as members:
        await members.join("a")
        # The reader of this process gets on only when the client is back.
        stream = broker_of(here)._stream_of("room/a")
        positions = [await there.publish("room/a", str(number)) for number in range(3)]
        assert stream.last < positions[2].id or here.counters.received
        client = await members.join("a", since=positions[2])
        assert members.subscriptions[1].recovered
        here.publish("room/a", "new")
        assert await client.read_message() == "new"


# Faults


@pytest.mark.gen_test
async def test_connections_to_the_broker_are_cut(redis_server: RedisServer) -> None:
    async with processes(redis_server) as (here, there), collecting(here) as ours, collecting(there) as theirs:
        async with publishing(here) as publisher:
            for _ in range(20):
                counts = ours.count, theirs.count
                await until(lambda: ours.count > counts[0] and theirs.count > counts[1])  # noqa: B023
                await until(redis_server.kill_connections)
        await everything_came(publisher, ours, theirs)
        assert here.counters.outages > 0
        assert here.counters.failed == 0


@pytest.mark.gen_test
async def test_what_was_interrupted_after_the_broker_had_it_is_left_out(redis_server: RedisServer) -> None:
    """The worst moment for a cut: the messages are there, and nobody has said so."""
    async with processes(redis_server) as (here, there), collecting(there) as theirs:
        publisher = Publisher(here)
        link: Any = broker_of(here).shard_of(0).writer._link
        exchange = link._exchange

        async def cut(*args: Any) -> Any:
            await exchange(*args)
            link._exchange = exchange
            raise ConnectionResetError("as a test says")

        publisher.publish(5)
        await asyncio.gather(*publisher.futures)
        link._exchange = cut
        publisher.publish(100)
        await asyncio.gather(*publisher.futures)
        publisher.publish(5)
        await everything_came(publisher, theirs)
        assert there.counters.repeated == 100


@pytest.mark.gen_test
async def test_the_broker_stands_still_for_a_while(redis_server: RedisServer) -> None:
    async with processes(redis_server, broker_timeout=0.5) as (here, there), collecting(there) as theirs:
        async with publishing(here) as publisher:
            await until(lambda: theirs.count > 100)
            redis_server.pause()
            # Longer than the process waits for an answer.
            await until(lambda: here.counters.outages)
            redis_server.go_on()
            count = theirs.count
            await until(lambda: theirs.count > count + 100)
        await everything_came(publisher, theirs)


@pytest.mark.gen_test
async def test_a_process_stands_still_for_a_while(redis_server: RedisServer) -> None:
    async with processes(redis_server) as (here, there), collecting(there) as theirs:
        async with publishing(here) as publisher:
            await until(lambda: theirs.count > 100)
            time.sleep(2.5)
            publisher.publish(5000)
        await everything_came(publisher, theirs)


@pytest.mark.gen_test
async def test_the_broker_is_restarted_with_its_data(redis_server: RedisServer, log: Log) -> None:
    async with processes(redis_server) as (here, there), collecting(here) as ours, collecting(there) as theirs:
        async with publishing(here) as publisher, room(there) as members:
            client = await members.join("a")
            await until(lambda: theirs.count > 100)
            redis_server.stop()
            await until(lambda: here.counters.outages and there.counters.outages)
            redis_server.start()
            count = theirs.count
            await until(lambda: theirs.count > count + 100)
            here.publish("room/a", "still there")
            assert await client.read_message() == "still there"
        await everything_came(publisher, ours, theirs)
        await until(lambda: sum("is back" in line for line in log.lines) == 2)
        assert sum("is away" in line for line in log.lines) == here.counters.outages + there.counters.outages == 2


@pytest.mark.gen_test
@pytest.mark.parametrize("how", ["restarted", "flushed"])
async def test_the_broker_loses_its_data_and_everybody_is_told(redis_server: RedisServer, how: str) -> None:
    history = {"*": History()}
    async with (
        processes(redis_server, history=history) as (here, there),
        collecting(there) as theirs,
        room(there) as members,
    ):
        client = await members.join("a")
        position = await here.publish("room/a", "before")
        assert await client.read_message() == "before"
        if how == "restarted":
            redis_server.stop()
            redis_server.lose_data()
            redis_server.start()
        else:
            redis_server.ask("FLUSHALL")
        assert await client.read_message() is None
        assert client.close_code == 1012
        await until(lambda: len(theirs.gaps) == 1)
        assert "lost its data" in theirs.gaps[0]
        back = await members.join("a", since=position)
        assert not members.subscriptions[-1].recovered
        new = await here.publish("room/a", "after")
        assert new.epoch != position.epoch
        assert await back.read_message() == "after"


@pytest.mark.gen_test
async def test_older_data_than_was_read_is_a_gap(redis_server: RedisServer) -> None:
    async with processes(redis_server, 1, streams=1) as (topics,), collecting(topics) as collector:
        first = await topics.publish(TOPICS[0], "0")
        await topics.publish(TOPICS[0], "1")
        await until(lambda: collector.count == 2)
        entry = redis_server.ask("XRANGE", "tornado_ws:{0}", "-", "+", "COUNT", 1)[0]
        redis_server.ask("DEL", "tornado_ws:{0}")
        fields = [part for pair in entry[1].items() for part in pair]
        redis_server.ask("XADD", "tornado_ws:{0}", entry[0], *fields)
        await until(lambda: collector.gaps)
        assert "older data" in collector.gaps[0]
        last = await topics.publish(TOPICS[0], "2")
        await until(lambda: collector.count == 3)
        assert last.epoch != first.epoch
        assert collector.numbers[TOPICS[0]] == [0, 1, 2]


@pytest.mark.gen_test
async def test_a_stream_that_is_trimmed_beyond_what_was_read_is_a_gap(redis_server: RedisServer) -> None:
    async with (
        processes(redis_server, streams=1, max_length=100) as (here, there),
        collecting(there) as theirs,
        collecting(here),
    ):
        publisher = Publisher(here)
        publisher.publish(50)
        await everything_came(publisher, theirs)
        link: Any = broker_of(there).shard_of(0).reader._link
        connect = link._make

        async def refused() -> Any:
            raise ConnectionRefusedError("as a test says")

        link._make = refused
        redis_server.kill_connections()
        await until(lambda: there.counters.outages)
        publisher.publish(2000)
        await asyncio.gather(*publisher.futures)
        link._make = connect
        await until(lambda: theirs.gaps)
        assert "trimmed" in theirs.gaps[0]
        publisher.publish(5)
        await until(lambda: theirs.numbers[TOPICS[0]][-1] == 410)
        for numbers in theirs.numbers.values():
            assert numbers == sorted(set(numbers))
        assert len(theirs.gaps) == 1


@pytest.mark.gen_test
async def test_a_stream_that_is_trimmed_up_to_what_was_read_is_no_gap(redis_server: RedisServer) -> None:
    async with processes(redis_server, 1, streams=1) as (topics,), collecting(topics) as collector:
        publisher = Publisher(topics)
        for _ in range(5):
            publisher.publish(50)
            await everything_came(publisher, collector)
            redis_server.ask("XTRIM", "tornado_ws:{0}", "MAXLEN", "=", "0")
            redis_server.kill_connections()
        await everything_came(publisher, collector)
        assert topics.counters.gaps == 0


# Publishing while the broker is away


@pytest.mark.gen_test
async def test_publishing_waits_and_then_fails(redis_server: RedisServer, log: Log) -> None:
    async with processes(redis_server, 1, publish_timeout=0.5) as (topics,):
        await topics.publish("a", "1")
        redis_server.stop()
        futures = [topics.publish("a", "2") for _ in range(3)]
        with pytest.raises(PublishError, match=r"did not take it within 0\.5 s"):
            await futures[0]
        await until(lambda: all(future.done() for future in futures))
        assert topics.counters.failed == 3
        assert sum("not published" in line for line in log.lines) == 1
        redis_server.start()
        async with topics.listen("a") as listener:
            heard = asyncio.ensure_future(anext(listener))
            while not heard.done():
                # It is back when the link has seen it.
                with contextlib.suppress(PublishError):
                    await topics.publish("a", "3")
                await asyncio.sleep(0)
            assert heard.result().data == "3"


@pytest.mark.gen_test
async def test_closing_does_not_wait_for_ever(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_writer, "CLOSE_TIMEOUT", 0.2)
    async with processes(redis_server, 1) as (topics,), room(topics) as members:
        await members.join("a")
        await topics.subscribe(members.handlers[0], "room/b", presence="here")
        redis_server.stop()
        waiting = topics.publish("a", "x")
        await topics.close()
        with pytest.raises(PublishError, match="closed"):
            await waiting


@pytest.mark.gen_test
async def test_closing_sends_what_was_published(redis_server: RedisServer) -> None:
    async with processes(redis_server) as (here, there), collecting(there) as theirs:
        publisher = Publisher(here)
        publisher.publish(2000)
        await here.close()
        assert all(future.done() for future in publisher.futures)
        await everything_came(publisher, theirs)


@pytest.mark.gen_test
async def test_subscribing_while_the_broker_is_away_fails_and_those_that_are_subscribed_stay(
    redis_server: RedisServer,
) -> None:
    keys = Keys("tornado_ws", 16)
    other = next(name for name in "bcdefgh" if keys.number_of(f"room/{name}") != keys.number_of("room/a"))
    async with processes(redis_server, 1, broker_timeout=0.3) as (topics,), room(topics) as members:
        client = await members.join("a")
        redis_server.stop()
        with pytest.raises(BrokerError, match="connect"):
            await topics.subscribe(members.handlers[0], f"room/{other}")
        second = await members.join("a")
        redis_server.start()
        await topics.publish("room/a", "all is well")
        assert [await each.read_message() for each in (client, second)] == ["all is well"] * 2


@pytest.mark.gen_test
async def test_no_more_bytes_wait_than_are_allowed(redis_server: RedisServer) -> None:
    async with processes(redis_server, 1, publish_limit=10_000) as (topics,):
        await topics.publish("a", "1")
        redis_server.stop()
        futures = [topics.publish("a", "x" * 1000) for _ in range(20)]
        with pytest.raises(PublishError, match="bytes wait for the broker"):
            await futures[-1]
        failed = topics.counters.failed
        assert 10 <= failed < 15
        redis_server.start()
        done = await asyncio.gather(*futures, return_exceptions=True)
        assert sum(isinstance(each, Position) for each in done) == 20 - failed
        # One that is larger than the limit goes when nothing else waits.
        await topics.publish("a", "x" * 20_000)


@pytest.mark.gen_test
async def test_publishing_fails_at_once_where_that_is_wanted(redis_server: RedisServer) -> None:
    async with processes(redis_server, 1, publish_policy="fail") as (topics,), topics.listen("a"):
        await topics.publish("a", "1")
        redis_server.stop()
        await until(lambda: topics.counters.outages)
        with pytest.raises(PublishError, match="is away"):
            await topics.publish("a", "2")
        redis_server.start()
        await until(lambda: not broker_of(topics)._health.is_away)
        await topics.publish("a", "3")


@pytest.mark.gen_test
async def test_who_only_publishes_fails_soon_where_that_is_wanted_and_goes_on(redis_server: RedisServer) -> None:
    async with processes(redis_server, 1, publish_policy="fail", publish_timeout=1000) as (topics,):
        await topics.publish("a", "1")
        redis_server.kill_connections()
        await topics.publish("a", "2")
        redis_server.stop()
        for _ in range(3):
            with pytest.raises(PublishError, match="is away"):
                await topics.publish("a", "3")
        redis_server.start()
        while True:
            with contextlib.suppress(PublishError):
                await topics.publish("a", "4")
                break
            await asyncio.sleep(0.01)


@pytest.mark.gen_test
async def test_what_the_broker_refuses_fails_and_the_rest_goes_on(redis_server: RedisServer) -> None:
    keys = Keys("tornado_ws", 16)
    async with processes(redis_server, 1) as (topics,):
        redis_server.ask("SET", keys.stream(keys.number_of("a")), "no stream")
        other = next(name for name in "bcdefgh" if keys.number_of(name) != keys.number_of("a"))
        refused, taken = topics.publish("a", "x"), topics.publish(other, "x")
        with pytest.raises(PublishError, match="WRONGTYPE"):
            await refused
        await taken


@pytest.mark.gen_test
async def test_a_broker_that_is_not_there_is_said() -> None:
    async with Topics("redis://127.0.0.1:1/0", publish_timeout=0.1, broker_timeout=0.1) as topics:
        with pytest.raises(PublishError, match=r"127\.0\.0\.1:1"):
            await topics.publish("a", "x")
        with pytest.raises(BrokerError, match="connect"):
            await topics.listen("a").begin()


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis+sentinel://localhost"])
def test_urls_that_are_not_allowed(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|url"):
        Topics(url)


# Entries of others


@pytest.mark.gen_test
async def test_any_client_can_publish_and_what_is_no_message_is_left_out(redis_server: RedisServer, log: Log) -> None:
    async with processes(redis_server, 1) as (topics,), topics.listen("a") as listener:
        keys = Keys("tornado_ws", 16)
        key = keys.stream(keys.number_of("a"))
        redis_server.ask("XADD", key, "*", "t", "a", "m", "text")
        redis_server.ask("XADD", key, "*", "t", "a")
        redis_server.ask("XADD", key, "*", "t", "a", "m", b"\xff")
        redis_server.ask("XADD", key, "*", "t", b"\xff", "m", b"x")
        redis_server.ask("XADD", key, "*", "t", "a", "m", b"\xff", "b", "1")
        assert [(await anext(listener)).data for _ in range(2)] == ["text", b"\xff"]
        assert topics.counters.invalid == 3
        assert sum("is no message" in line for line in log.lines) == 3


@pytest.mark.gen_test
async def test_a_stream_that_nobody_needs_is_read_no_more_and_read_again_for_who_comes(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_streams, "LINGER", 0.02)
    topic = TOPICS[0]
    async with processes(redis_server) as (here, there):
        broker = broker_of(here)
        async with here.listen(topic) as listener:
            await there.publish(topic, "first")
            first = await anext(listener)
            assert repr(first) == f"Message({topic!r}, 'first', {str(first.position)!r})"
            # While somebody listens it is read, however often it is looked at.
            for _ in range(3):
                await asyncio.sleep(0.02)
            await there.publish(topic, "second")
            assert (await anext(listener)).data == "second"
            assert broker._streams()
        await until(lambda: not broker._streams())
        await there.publish(topic, "unheard")
        async with here.listen(topic) as listener:
            await there.publish(topic, "third")
            assert (await anext(listener)).data == "third"


@pytest.mark.gen_test
async def test_two_tasks_cannot_wait_for_one_listener() -> None:
    async with Topics() as topics, topics.listen("a") as listener:
        waiting = asyncio.ensure_future(anext(listener))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task waits"):
            await anext(listener)
        topics.publish("a", "x")
        assert (await waiting).data == "x"
