"""What a broker says instead of an answer: that it cannot now, that it is not allowed, that a key is no stream."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Log
from tests.pubsub.numbers import Publisher, broker_of, collecting, everything_came, processes
from tests.pubsub.redis_server import RedisServer
from tests.pubsub.room import room
from tests.support import until
from tornado_ws import BrokerError, History, PublishError, Topics
from tornado_ws.pubsub.wire import Keys

KEY = "tornado_ws:{0}"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
    ],
    ids=["READONLY", "NOREPLICAS"],
)
async def test_messages_wait_for_a_broker_that_cannot_take_them_now(
    redis_server: RedisServer, begin: tuple[str, ...], end: tuple[str, ...]
) -> None:
    async with processes(redis_server, 1, streams=1) as (topics,), collecting(topics) as collector:
        publisher = Publisher(topics)
        publisher.publish(10)
        await everything_came(publisher, collector)
        redis_server.ask(*begin)
        publisher.publish(10)
        await until(lambda: topics.counters.outages)
        publisher.publish(10)
        assert collector.count == 10
        redis_server.ask(*end)
        await asyncio.gather(*publisher.futures)
        await everything_came(publisher, collector)
        assert topics.counters.failed == topics.counters.gaps == 0


@pytest.mark.gen_test
async def test_what_a_full_broker_refuses_fails(redis_server: RedisServer) -> None:
    async with processes(redis_server, 1) as (topics,), topics.listen("a") as listener:
        await topics.publish("a", "1")
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(PublishError, match=r"OOM|maxmemory"):
            await topics.publish("a", "2")
        redis_server.ask("CONFIG", "SET", "maxmemory", "0")
        await topics.publish("a", "3")
        assert [(await anext(listener)).data for _ in range(2)] == ["1", "3"]


@pytest.mark.gen_test
@pytest.mark.parametrize("command", ["xread", "get", "time", "xinfo"])
async def test_who_may_not_read_any_more_is_told_in_the_log_and_goes_on_when_it_may(
    redis_server: RedisServer, log: Log, command: str
) -> None:
    async with processes(redis_server, streams=1) as (here, there), collecting(there) as theirs:
        publisher = Publisher(here)
        publisher.publish(10)
        await everything_came(publisher, theirs)
        redis_server.ask("ACL", "SETUSER", "default", f"-{command}")
        redis_server.kill_connections()
        publisher.publish(10)
        await until(lambda: any(record.exc_info and command in str(record.exc_info[1]) for record in log.records))
        redis_server.ask("ACL", "SETUSER", "default", "+@all")
        await everything_came(publisher, theirs)


@pytest.mark.gen_test
async def test_subscribing_says_what_is_not_allowed(redis_server: RedisServer) -> None:
    redis_server.ask("ACL", "SETUSER", "default", "-get")
    async with processes(redis_server, 1, broker_timeout=2.0) as (topics,):
        with pytest.raises(BrokerError, match="get"):
            await topics.listen("a").begin()


@pytest.mark.gen_test
async def test_presence_says_what_is_not_allowed(redis_server: RedisServer) -> None:
    redis_server.ask("ACL", "SETUSER", "default", "-smembers")
    async with processes(redis_server, 1) as (topics,):
        with pytest.raises(BrokerError, match="smembers"):
            await topics.presence("a")


@pytest.mark.gen_test
async def test_who_may_not_end_a_read_waits_for_it(redis_server: RedisServer) -> None:
    """The read for the first topic is under way when somebody wants the second one."""
    redis_server.ask("ACL", "SETUSER", "default", "-client|unblock")
    keys = Keys("tornado_ws", 16)
    other = next(name for name in "bcdefgh" if keys.number_of(name) != keys.number_of("a"))
    async with processes(redis_server, 1) as (topics,), topics.listen("a") as first:
        reader = broker_of(topics).shard_of(0).reader
        await until(lambda: reader.misses(keys.number_of(other)))
        async with topics.listen(other) as second:
            await topics.publish(other, "x")
            await topics.publish("a", "y")
            assert (await anext(second)).data == "x"
            assert (await anext(first)).data == "y"


@pytest.mark.gen_test
async def test_older_messages_that_may_not_be_read_are_not_recovered(redis_server: RedisServer, log: Log) -> None:
    history = {"*": History()}
    async with processes(redis_server, 1, history=history) as (first,):
        position = await first.publish("room/a", "1")
        await first.publish("room/a", "2")
    redis_server.ask("ACL", "SETUSER", "default", "-xrange")
    async with processes(redis_server, 1, history=history) as (second,), room(second) as members:
        await members.join("a", since=position)
        assert not members.subscriptions[0].recovered
        assert any("older messages" in line and "xrange" in line for line in log.lines)
        redis_server.ask("ACL", "SETUSER", "default", "+xrange")
        client = await members.join("a", since=position)
        assert members.subscriptions[1].recovered
        assert await client.read_message() == "2"


@pytest.mark.gen_test
async def test_a_key_that_is_no_stream_any_more_is_said_and_what_was_in_it_is_a_gap(
    redis_server: RedisServer, log: Log
) -> None:
    async with processes(redis_server, 1, streams=1) as (topics,), collecting(topics) as collector:
        publisher = Publisher(topics)
        publisher.publish(10)
        await everything_came(publisher, collector)
        redis_server.ask("SET", KEY, "text")
        await until(lambda: any(record.exc_info and "WRONGTYPE" in str(record.exc_info[1]) for record in log.records))
        redis_server.ask("DEL", KEY)
        await until(lambda: collector.gaps)
        count = collector.count
        publisher.publish(10)
        await until(lambda: collector.count == count + 10)


@pytest.mark.gen_test
async def test_a_listener_that_raises_does_not_keep_messages_from_others(
    redis_server: RedisServer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Topics(redis_server.url) as topics, topics.listen("a") as listener:
        deliver = topics._subscribers.deliver

        def fails(messages: object) -> int:
            monkeypatch.setattr(topics._subscribers, "deliver", deliver)
            raise ZeroDivisionError

        monkeypatch.setattr(topics._subscribers, "deliver", fails)
        await topics.publish("a", "1")
        await until(lambda: any("delivering failed" in line for line in log.lines))
        await topics.publish("a", "2")
        assert (await anext(listener)).data == "2"
