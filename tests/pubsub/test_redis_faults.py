"""Faults of the broker, of connections to it, and of a process: no message is lost or repeated, or it is told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import redis

from tests.conftest import Log
from tests.pubsub.numbers import (
    TOPICS,
    Publisher,
    broker_of,
    collecting,
    everything_came,
    processes,
    publishing,
)
from tests.pubsub.redis_server import RedisServer
from tests.pubsub.room import room
from tests.support import until
from tornado_ws import Envelope, History, Position


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
        assert here.counters.reconnects + there.counters.reconnects >= 20


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
@pytest.mark.parametrize("seconds", [0.5, 5.0])
async def test_the_broker_stands_still_for_a_while(redis_server: RedisServer, seconds: float) -> None:
    """Twice as long as a process waits for an answer: for 10 s, at most."""
    async with processes(redis_server, broker_timeout=seconds) as (here, there), collecting(there) as theirs:
        async with publishing(here) as publisher:
            await until(lambda: theirs.count > 100)
            redis_server.pause()
            await asyncio.sleep(2 * seconds)
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
            time.sleep(4)
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


@pytest.mark.gen_test
async def test_more_waits_for_a_process_than_the_broker_sends_to_it(redis_server: RedisServer) -> None:
    """The server cuts off whoever has a reply beyond its limit, and it would do so again and again."""
    redis_server.ask("CONFIG", "SET", "client-output-buffer-limit", "normal 100000 0 0")
    async with processes(redis_server, 1, streams=1) as (topics,), collecting(topics) as collector:
        publisher = Publisher(topics)
        publisher.publish(5)
        await everything_came(publisher, collector)
        # Somebody else publishes, while this process does nothing.
        with redis.Redis.from_url(redis_server.url) as client:
            pipeline = client.pipeline(transaction=False)
            for number in range(5, 4005):
                fields = {"t": TOPICS[number % 5], "m": f"{number // 5}{' ' * 1000}"}
                pipeline.xadd("tornado_ws:{0}", fields)
            pipeline.execute()
        publisher.sent = 4005
        await everything_came(publisher, collector)
        assert topics.counters.outages > 0


@pytest.mark.gen_test
async def test_a_burst_that_is_trimmed_before_it_is_read_is_a_gap(redis_server: RedisServer) -> None:
    """Right after a read, so that the reader has no reason to look, and less than it reads then is lost."""
    key = "tornado_ws:{0}"
    async with processes(redis_server, 1, streams=1, max_length=100) as (topics,), collecting(topics) as collector:
        with redis.Redis.from_url(redis_server.url) as client:
            for count in (60, 250):
                pipeline = client.pipeline(transaction=False)
                for number in range(count):
                    pipeline.xadd(key, {"t": TOPICS[0], "m": number}, maxlen=100)
                pipeline.execute()
                await until(lambda: collector.count and collector.numbers[TOPICS[0]][-1] == count - 1)  # noqa: B023
        assert collector.count < 60 + 250
        await until(lambda: collector.gaps)
        assert "trimmed" in collector.gaps[0]


@pytest.mark.gen_test
async def test_a_client_that_does_not_read_is_closed_and_gets_everything_when_it_is_back(
    redis_server: RedisServer,
) -> None:
    """Past the write limit of its connection, while another one gets every message in its time."""
    count, text = 400, "x" * 20_000
    history = {"*": History(count=count)}
    async with (
        processes(redis_server, history=history) as (here, there),
        room(there, websocket_write_limit=100_000, websocket_write_high_watermark=0) as members,
    ):
        quick, slow = await members.join("a"), await members.join("a", envelope=True)
        for number in range(count):
            await here.publish("room/a", f"{number} {text}")
            assert str(await quick.read_message()).split()[0] == str(number)
        assert there.counters.delivered < 2 * count
        # What it had got by then, and what it gets when it comes back.
        numbers, position = [], members.subscriptions[1].position
        while (message := await slow.read_message()) is not None:
            envelope = Envelope.of(message)
            numbers.append(int(str(envelope.data).split()[0]))
            position = Position.parse(envelope.position)
        assert slow.close_code in (1012, 1013, 1006)
        assert len(numbers) < count
        while numbers[-1:] != [count - 1]:
            back = await members.join("a", since=position, envelope=True)
            assert members.subscriptions[-1].recovered
            while numbers[-1:] != [count - 1] and (message := await back.read_message()) is not None:
                envelope = Envelope.of(message)
                numbers.append(int(str(envelope.data).split()[0]))
                position = Position.parse(envelope.position)
        assert numbers == list(range(count))
