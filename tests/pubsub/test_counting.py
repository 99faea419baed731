"""What is counted of topics and of the broker, and how far a process is behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from tests.pubsub.redis_server import RedisServer
from tests.pubsub.room import room
from tests.support import disconnect, until
from tornado_ws import History, Topics
from tornado_ws.pubsub.broker import TopicCounters
from tornado_ws.pubsub.counting import NameCounters
from tornado_ws.pubsub.fan_out import send_one
from tornado_ws.pubsub.history import Rules
from tornado_ws.pubsub.messages import sharable
from tornado_ws.pubsub.redis_reader import COUNT
from tornado_ws.pubsub.redis_stream import Info, Stream
from tornado_ws.pubsub.wire import Keys


@pytest.mark.gen_test
async def test_a_topic_counts_for_its_name_or_else_for_the_longest_prefix() -> None:
    counted = ["*", "room/*", "room/a"]
    async with Topics(counted=counted) as topics, room(topics) as members:
        clients = [await members.join(name) for name in "aab"]
        for handler in members.handlers:
            await topics.subscribe(handler, "news")
        topics.publish("room/a", "1", exclude=members.handlers[0])
        topics.publish("room/a", "2")
        topics.publish("room/b", "3")
        topics.publish("room/nobody", "4")
        topics.publish("news", "5")
        for client, messages in zip(clients, ("25", "125", "35"), strict=True):
            assert [await client.read_message() for _ in messages] == list(messages)
        assert dict(topics.counted) == {
            "*": NameCounters(published=1, received=1, delivered=3),
            "room/*": NameCounters(published=2, received=2, delivered=1),
            "room/a": NameCounters(published=2, received=2, delivered=3),
        }
        for name in ("published", "received", "delivered"):
            assert getattr(topics.counters, name) == sum(getattr(each, name) for each in topics.counted.values())


@pytest.mark.gen_test
async def test_what_is_sent_later_and_in_an_envelope_counts_too() -> None:
    async with Topics(counted=["room/a"], history={"*": History()}) as topics, room(topics) as members:
        position = await topics.publish("room/a", "1")
        await topics.publish("room/a", "2")
        await topics.publish("room/b", "not counted")
        for envelope in (False, True):
            client = await members.join("a", since=position, envelope=envelope)
            await client.read_message()
        assert topics.counted["room/a"] == NameCounters(published=2, received=2, delivered=2)
        await disconnect(client)
        await until(lambda: topics.count("room/a") == 1)
        topics.publish("room/a", "3")
        await until(lambda: topics.counted["room/a"] == NameCounters(published=3, received=3, delivered=3))


@pytest.mark.gen_test
async def test_what_a_closing_connection_does_not_get_is_not_counted() -> None:
    async with Topics(counted=["room/a"]) as topics, room(topics) as members:
        client = await members.join("a")
        members.handlers[0].close()
        topics.publish("room/a", "x")
        assert await client.read_message() is None
        assert topics.counted["room/a"] == NameCounters(published=1, received=1, delivered=0)


class SlowConnection:
    """One that does not get what others get, in one write with them."""

    def __init__(self, closing: bool) -> None:
        self._closing = closing

    def is_closing(self) -> bool:
        return self._closing

    def write_message(self, message: Any, binary: bool) -> None:
        pass


def test_what_is_sent_to_one_connection_counts_too() -> None:
    message = sharable("x")
    message.counter = NameCounters()
    assert [send_one(SlowConnection(closing), message) for closing in (False, True)] == [True, False]
    assert message.counter.delivered == 1


@pytest.mark.gen_test
async def test_clients_do_not_decide_how_many_counters_there_are() -> None:
    async with Topics(counted=["room/*"]) as topics:
        for number in range(5000):
            topics.publish(f"room/{number}", "x")
        await until(lambda: topics.counters.received == 5000)
        assert dict(topics.counted) == {"room/*": NameCounters(published=5000, received=5000)}


@pytest.mark.parametrize(("counted", "error"), [("room", TypeError), (["a*b"], ValueError), ([1], TypeError)])
def test_names_that_cannot_be_counted(counted: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Topics(counted=counted)


@pytest.mark.gen_test
async def test_topics_of_one_process_are_never_behind() -> None:
    async with Topics() as topics:
        topics.publish("a", "x")
        assert topics.lag() == (0, 0.0)
        assert not topics.is_away


# Over a broker


@pytest.mark.gen_test
async def test_a_gap_counts_for_the_names_that_it_may_be_of(redis_server: RedisServer) -> None:
    keys = Keys("tornado_ws", 16)
    other = next(name for name in "bcdefgh" if keys.number_of(name) != keys.number_of("a"))
    async with Topics(redis_server.url, counted=["a", other, "a*"]) as topics, topics.listen("a"):
        await topics.publish("a", "x")
        await until(lambda: topics.counters.received)
        redis_server.ask("DEL", keys.stream(keys.number_of("a")))
        await until(lambda: topics.counters.gaps)
        assert {name: each.gaps for name, each in topics.counted.items()} == {"a": 1, other: 0, "a*": 1}


@pytest.mark.gen_test
async def test_messages_from_before_a_process_began_count_when_they_are_sent(redis_server: RedisServer) -> None:
    history = {"*": History()}
    async with Topics(redis_server.url, history=history) as first:
        position = await first.publish("room/a", "1")
        await first.publish("room/a", "2")
    async with (
        Topics(redis_server.url, history=history, counted=["room/a"]) as second,
        room(second) as members,
    ):
        client = await members.join("a", since=position)
        assert await client.read_message() == "2"
        assert second.counted["room/a"] == NameCounters(delivered=1)


@pytest.mark.gen_test
async def test_connections_that_are_made_anew_are_counted(redis_server: RedisServer) -> None:
    async with Topics(redis_server.url) as topics, topics.listen("a") as listener:
        await topics.publish("a", "0")
        assert topics.counters.reconnects == 0
        for number in range(1, 4):
            before = topics.counters.reconnects
            redis_server.kill_connections()
            # One reads, and one publishes; the one for questions comes back with the next question.
            await topics.publish("a", str(number))
            await until(lambda: topics.counters.reconnects == before + 2)  # noqa: B023
        assert [(await anext(listener)).data for _ in range(4)] == ["0", "1", "2", "3"]
        assert topics.counters.gaps == 0


@pytest.mark.gen_test
async def test_a_broker_that_is_away_is_seen(redis_server: RedisServer) -> None:
    async with Topics(redis_server.url) as topics, topics.listen("a"):
        assert not topics.is_away
        redis_server.stop()
        await until(lambda: topics.is_away)
        redis_server.start()
        await until(lambda: not topics.is_away)


@pytest.mark.gen_test
async def test_a_process_says_how_far_it_is_behind(redis_server: RedisServer) -> None:
    count = 6 * COUNT
    keys = Keys("tornado_ws", 16)
    async with Topics(redis_server.url) as topics, topics.listen("a") as listener:
        await topics.publish("a", "first")
        await anext(listener)
        assert topics.lag() == (0, 0.0)
        # Somebody else publishes, while this process does nothing.
        with redis.Redis.from_url(redis_server.url) as client:
            pipeline = client.pipeline(transaction=False)
            for _ in range(count):
                pipeline.xadd(keys.stream(keys.number_of("a")), {"t": "a", "m": "x"})
            pipeline.execute()
        seen = []
        while topics.counters.received < count + 1:
            await asyncio.sleep(0)
            seen.append((topics.counters.received - 1, topics.lag()))
        behind = [(received, lag) for received, lag in seen if lag.messages]
        # At the first two replies nobody has asked yet: a read that began before, and the first that is full.
        assert len({received for received, _ in behind}) == 4
        for received, lag in behind:
            assert lag.messages == count - received
            assert 0 < lag.seconds < 600
        await until(lambda: topics.lag() == (0, 0.0))


def test_before_redis_7_nobody_counts_what_waits() -> None:
    info = Info([b"length", 9, b"last-generated-id", b"9000-0", b"first-entry", [b"1000-0", []]])
    stream = Stream(0, "key", "e", info, Rules(None), TopicCounters())
    stream.last = (4000, 0)
    stream.check("e", info, 9.5)
    assert stream.lag() == (0, 0.0)
    stream.has_more = True
    assert stream.lag() == (None, 5.5)
