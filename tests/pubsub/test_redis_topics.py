"""Topics of many processes over a Redis or Valkey server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from tests.conftest import Log
from tests.pubsub.numbers import (
    TOPICS,
    Publisher,
    broker_of,
    collecting,
    everything_came,
    processes,
)
from tests.pubsub.redis_server import RedisServer
from tests.pubsub.room import room
from tests.support import disconnect, until
from tornado_ws import BrokerError, History, Position, PublishError, Topics
from tornado_ws.pubsub import redis_link, redis_streams, redis_writer
from tornado_ws.pubsub.wire import Keys

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
    async with processes(redis_server, presence_seconds=2.0) as (here, there), room(here) as ours:
        await ours.join("a")
        await here.subscribe(ours.handlers[0], "room/a", presence="a")
        task = broker_of(here)._presence._task
        assert task is not None
        begin = time.monotonic()
        while time.monotonic() < begin + 3:
            # It is renewed.
            assert await there.presence("room/a") == ["a"]
            await asyncio.sleep(0.05)
        # What a process that dies does.
        await redis_link.cancel_and_wait(task)
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
async def test_older_messages_that_were_sent_again_are_recovered_once(redis_server: RedisServer) -> None:
    key = Keys("tornado_ws", 16).stream(Keys("tornado_ws", 16).number_of("room/a"))
    history = {"room/*": History()}
    async with processes(redis_server, 1, history=history) as (first,):
        position = await first.publish("room/a", "0")
    for number in ("1", "2", "1", "2", "3"):
        redis_server.ask("XADD", key, "*", "t", "room/a", "m", number, "o", "somebody", "n", number)
    redis_server.ask("XADD", key, "*", "no", "message")
    async with processes(redis_server, 1, history=history) as (second,), room(second) as members:
        client = await members.join("a", since=position)
        assert members.subscriptions[0].recovered
        await second.publish("room/a", "4")
        assert [await client.read_message() for _ in range(4)] == ["1", "2", "3", "4"]


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


# Publishing while the broker is away


async def published(topics: Topics, topic: str, message: str) -> None:
    """Publish by a process that may not have noticed yet that its broker is back."""
    while True:
        with contextlib.suppress(PublishError):
            await topics.publish(topic, message)
            return
        await asyncio.sleep(0.01)


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
            await published(topics, "a", "3")
            while (await anext(listener)).data != "3":
                pass


@pytest.mark.gen_test
async def test_a_message_that_was_sent_and_not_answered_in_time_may_be_there(redis_server: RedisServer) -> None:
    async with processes(redis_server, 1, publish_timeout=0.5) as (topics,), topics.listen("a") as listener:
        await topics.publish("a", "1")
        redis_server.pause()
        futures = [topics.publish("a", text) for text in ("2", "3")]
        for future in futures:
            with pytest.raises(PublishError, match="it may have been before") as caught:
                await future
            assert caught.value.is_unknown
        redis_server.go_on()
        assert [(await anext(listener)).data for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.gen_test
async def test_a_message_that_nobody_wants_any_more_is_not_sent(redis_server: RedisServer) -> None:
    async with processes(redis_server, 1) as (topics,), topics.listen("a") as listener:
        topics.publish("a", "given up").cancel()
        await topics.publish("a", "1")
        topics.publish("a", "given up").cancel()
        await until(lambda: not broker_of(topics).shard_of(0).writer._size)
        await topics.publish("a", "2")
        assert [(await anext(listener)).data for _ in range(2)] == ["1", "2"]


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
async def test_closing_at_the_moment_when_a_reply_comes(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`asyncio.wait_for` of Python before 3.12 forgets a cancellation then."""
    exchange = redis_link._exchange
    async with processes(redis_server, 1) as (topics,), topics.listen("a"):
        await topics.publish("a", "1")
        reader = broker_of(topics).shard_of(0).reader
        closed: list[asyncio.Task[None]] = []

        async def exchanged(connection: Any, *args: Any) -> Any:
            replies = await exchange(connection, *args)
            if connection is reader._link._connection and not closed:
                asyncio.get_running_loop().call_soon(lambda: closed.append(asyncio.ensure_future(reader.close())))
            return replies

        monkeypatch.setattr(redis_link, "_exchange", exchanged)
        topics.publish("a", "2")
        await until(lambda: closed and closed[0].done())


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
        await published(topics, "a", "4")


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
