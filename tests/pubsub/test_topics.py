"""Topics of one process: who gets what, in which order, in how many writes, and until when."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

import tornado_ws
from tests.conftest import Log
from tests.peer import StallingEcho, raw_client
from tests.pubsub.room import Room, room
from tests.support import connected, disconnect, serving, until
from tornado_ws import History, Topics, WebSocketClosedError, WebSocketHandler
from tornado_ws.deflate import codec
from tornado_ws.engine.channel import Channel
from tornado_ws.options import DEFAULT_OPTIONS
from tornado_ws.pubsub.broker import TopicCounters
from tornado_ws.pubsub.messages import Position, sharable
from tornado_ws.pubsub.subscriptions import Subscribers, Subscription


@pytest.mark.gen_test
async def test_those_that_are_subscribed_get_it_and_no_others() -> None:
    async with Topics() as topics, room(topics) as members:
        first, second, third = [await members.join(name) for name in ("a", "a", "b")]
        topics.publish("room/a", "text")
        topics.publish("room/b", b"bytes")
        topics.publish("room/c", "nobody")
        topics.publish("room/a", {"a": 1})
        assert [await first.read_message() for _ in range(2)] == ["text", '{"a": 1}']
        assert [await second.read_message() for _ in range(2)] == ["text", '{"a": 1}']
        assert await third.read_message() == b"bytes"
        assert topics.counters == TopicCounters(published=4, received=4, delivered=5)


@pytest.mark.gen_test
async def test_the_one_that_is_excluded_does_not_get_it() -> None:
    async with Topics() as topics, room(topics) as members:
        clients = [await members.join("a") for _ in range(3)]
        for number, client in enumerate(clients):
            await client.write_message(f"from {number}")
        for number, client in enumerate(clients):
            received = {await client.read_message() for _ in range(2)}
            assert received == {f"from {other}" for other in range(3)} - {f"from {number}"}
        topics.publish("room/a", "to all")
        assert [await client.read_message() for client in clients] == ["to all"] * 3


@pytest.mark.gen_test
@pytest.mark.parametrize("takeover", [True, False])
async def test_what_is_published_in_a_turn_is_compressed_once_and_leaves_in_one_write(
    takeover: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among what each connection writes by itself: its compressor knows what its peer has seen."""
    text = "much the same each time, and long enough to be compressed; number "
    options = {"threshold": 20, "server_no_context_takeover": not takeover}
    counted: list[bytes] = []
    alone = codec.compress_alone

    def count(data: bytes, *args: Any) -> bytes:
        counted.append(data)
        return alone(data, *args)

    async with Topics() as topics, room(topics, get_compression_options=lambda self: options) as members:
        clients = [await members.join("a", compression_options={"max_wbits": wbits}) for wbits in (15, 15, 10)]
        clients.append(await members.join("a"))
        expected: list[list[str]] = [[] for _ in clients]
        for turn in range(5):
            for index, handler in enumerate(members.handlers):
                handler.write_message(f"{text}{index} alone {turn}")
                expected[index].append(f"{text}{index} alone {turn}")
            published = [f"{text}{turn} {number}" if number % 3 else f"short {number}" for number in range(6)]
            for messages in expected:
                messages += published
            counted.clear()
            monkeypatch.setattr(codec, "compress_alone", count)
            await asyncio.gather(*(topics.publish("room/a", message) for message in published))
            # Where all are done, gather does not wait for the end of the turn (Python 3.12).
            await until(lambda: len(counted) >= 8)
            monkeypatch.setattr(codec, "compress_alone", alone)
            # Once for each of two windows.
            assert sorted(counted) == sorted([message.encode() for message in published if len(message) > 20] * 2)
        for client, messages in zip(clients, expected, strict=True):
            assert [await client.read_message() for _ in messages] == messages
        assert topics.counters.delivered == 5 * 6 * 4


@pytest.mark.gen_test
async def test_prefixes_and_names_that_both_match_give_a_message_once_and_in_order() -> None:
    async with Topics() as topics, room(topics) as members:
        client, other = await members.join("a"), await members.join("a")
        handler = members.handlers[0]
        for pattern in ("room/*", "*", "room/b"):
            await topics.subscribe(handler, pattern)
        for number in range(50):
            topics.publish(("room/a", "room/b", "elsewhere")[number % 3], str(number))
        assert [await client.read_message() for _ in range(50)] == [str(number) for number in range(50)]
        assert [await other.read_message() for _ in range(17)] == [str(number) for number in range(0, 50, 3)]
        assert topics.count("room/*") == 1
        assert topics.count("room/a") == 2
        for pattern in ("room/*", "*", "room/a", "room/b"):
            assert topics.unsubscribe(handler, pattern)
            assert not topics.unsubscribe(handler, pattern)
        topics.publish("room/a", "only for the other")
        assert await other.read_message() == "only for the other"
        assert topics.counters.delivered == 50 + 17 + 1


@pytest.mark.gen_test
async def test_a_subscription_ends_with_its_connection() -> None:
    async with Topics() as topics, room(topics) as members:
        client = await members.join("a")
        await members.join("a")
        await topics.subscribe(members.handlers[0], "room/*")
        await disconnect(client)
        await until(lambda: topics.count("room/a") == 1)
        assert topics.count("room/*") == 0
        assert list(topics.names()) == ["room/a"]
        with pytest.raises(WebSocketClosedError, match="ended"):
            await topics.subscribe(members.handlers[0], "room/a")


@pytest.mark.gen_test
async def test_clients_can_be_subscribed_too() -> None:
    received: list[Any] = []

    class Handler(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            received.append(message)

    async with Topics() as topics, serving(Handler) as url:
        async with connected(url) as client, connected(url) as other:
            for each in (client, other):
                await topics.subscribe(each, "up")
            topics.publish("up", "a")
            topics.publish("up", "b", exclude=other)
            await until(lambda: sorted(received) == ["a", "a", "b"])
        await until(lambda: topics.count("up") == 0)


@pytest.mark.gen_test
async def test_what_is_published_in_a_turn_is_one_write_for_each_connection() -> None:
    """Counted where both engines are the same: at the bytes that a client finds in one call of recv."""
    async with Topics() as topics, room(topics) as members, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(f"{members.url}/a")) for _ in range(2)]
        await until(lambda: topics.count("room/a") == 2)
        for number in range(20):
            topics.publish("room/a", f"{number:02}")
        expected = b"".join(b"\x81\x02%02d" % number for number in range(20))
        for client in clients:
            assert await client.receive_bytes() == expected


# What the native engine calls cannot be counted here.
if tornado_ws.engine.name == "python":

    @pytest.mark.gen_test
    async def test_a_hundred_messages_to_five_connections_are_five_sends(monkeypatch: pytest.MonkeyPatch) -> None:
        sends: list[int] = []
        send = Channel._send

        def counted(self: Channel, data: Any, more: bytes = b"") -> int:
            sends.append(len(data))
            return send(self, data, more)

        async with Topics() as topics, room(topics) as members:
            clients = [await members.join("a") for _ in range(5)]
            monkeypatch.setattr(Channel, "_send", counted)
            for _ in range(100):
                topics.publish("room/a", "x" * 100)
            await until(lambda: sends)
            monkeypatch.undo()
            assert sends == [100 * 102] * 5
            for client in clients:
                assert [await client.read_message() for _ in range(100)] == ["x" * 100] * 100


@pytest.mark.gen_test
async def test_it_is_encoded_and_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed: list[bytes] = []
    alone = codec.compress_alone

    def counted(data: bytes, options: Any = None, max_wbits: int = 15) -> bytes:
        compressed.append(data)
        return alone(data, options, max_wbits)

    async with Topics() as topics, room(topics, get_compression_options=lambda self: {}) as members:
        clients = [await members.join("a", compression_options={}) for _ in range(3)]
        clients.append(await members.join("a"))
        monkeypatch.setattr(codec, "compress_alone", counted)
        topics.publish("room/a", "x" * 1000)
        topics.publish("room/a", "y" * 1000)
        for client in clients:
            assert [await client.read_message() for _ in range(2)] == ["x" * 1000, "y" * 1000]
        assert compressed == [b"x" * 1000, b"y" * 1000]


@pytest.mark.gen_test
async def test_more_than_one_write_takes_comes_in_order() -> None:
    async with Topics() as topics, room(topics) as members:
        clients = [await members.join("a") for _ in range(2)]
        sent = [f"{number}{'x' * (number * 37 % 9000)}" for number in range(400)]
        for text in sent:
            topics.publish("room/a", text)
        for client in clients:
            assert [await client.read_message() for _ in sent] == sent


@pytest.mark.gen_test
async def test_who_subscribes_now_does_not_get_what_was_published_before() -> None:
    async with Topics() as topics, room(topics) as members:
        client = await members.join("a")
        topics.publish("room/b", "before")
        await topics.subscribe(members.handlers[0], "room/b")
        topics.publish("room/b", "after")
        assert await client.read_message() == "after"


@pytest.mark.gen_test
async def test_a_second_subscription_takes_the_place_of_the_first() -> None:
    async with Topics() as topics, room(topics) as members:
        client = await members.join("a")
        await topics.subscribe(members.handlers[0], "room/a", envelope=True)
        assert topics.count("room/a") == 1
        position = await topics.publish("room/a", "text")
        envelope = tornado_ws.Envelope.of(str(await client.read_message()))
        assert envelope == ("room/a", str(position), "text")


@pytest.mark.gen_test
async def test_an_envelope_is_json_around_text_and_a_header_before_bytes() -> None:
    async with Topics() as topics, room(topics) as members:
        client, plain = await members.join("a"), await members.join("a")
        await topics.subscribe(members.handlers[0], "room/a", envelope=True)
        for data in ("text é", b"\x00\xff"):
            position = await topics.publish("room/a", data)
            message = await client.read_message()
            assert message is not None
            assert type(message) is type(data)
            assert tornado_ws.Envelope.of(message) == ("room/a", str(position), data)
            assert await plain.read_message() == data


# What is missed


@pytest.mark.gen_test
async def test_who_comes_back_gets_what_was_missed_and_what_comes_then() -> None:
    async with Topics(history={"room/*": History(count=10)}) as topics, room(topics) as members:
        positions = [await topics.publish("room/a", str(number)) for number in range(12)]
        topics.publish("room/b", "elsewhere")
        client = await members.join("a", since=positions[4])
        topics.publish("room/a", "new")
        assert [await client.read_message() for _ in range(8)] == [*map(str, range(5, 12)), "new"]
        subscription = members.subscriptions[0]
        assert (subscription.recovered, subscription.missed) == (True, 7)
        assert subscription.position is not None
        assert subscription.position > positions[-1]
        up_to_date = await members.join("a", since=subscription.position)
        topics.publish("room/a", "newer")
        assert [await up_to_date.read_message() for _ in range(2)] == ["new", "newer"]


@pytest.mark.gen_test
@pytest.mark.parametrize("since", [None, "", "nonsense", "abc-1-0", "first", "ahead", "x" * 1000])
async def test_what_cannot_be_recovered_is_said_and_nothing_of_it_is_sent(since: str | None) -> None:
    async with Topics(history={"room/*": History(count=3)}) as topics, room(topics) as members:
        positions = [await topics.publish("room/a", str(number)) for number in range(5)]
        ahead = Position(positions[0].epoch, (100, 0))
        # The first is the position of a message behind which one is dropped.
        given = {"first": str(positions[0]), "ahead": str(ahead)}.get(since or "", since)
        client = await members.join("a", since=given)
        assert (members.subscriptions[0].recovered, members.subscriptions[0].missed) == (False, 0)
        topics.publish("room/a", "new")
        assert await client.read_message() == "new"


@pytest.mark.gen_test
async def test_without_a_history_only_who_missed_nothing_has_recovered() -> None:
    async with Topics() as topics, room(topics) as members:
        first = await topics.publish("room/a", "1")
        second = await topics.publish("room/a", "2")
        await members.join("a", since=first)
        await members.join("a", since=second)
        assert [each.recovered for each in members.subscriptions] == [False, True]


@pytest.mark.gen_test
@pytest.mark.parametrize("policy", ["raise", "drop"])
async def test_a_write_limit_that_keeps_a_message_from_somebody_is_a_gap(policy: str) -> None:
    told: list[Subscription] = []

    class Handler(StallingEcho):
        websocket_write_limit = 1 << 16
        websocket_write_limit_policy = policy

        async def open(self) -> None:  # type: ignore[override]
            super().open()
            await topics.subscribe(self, "t", on_gap=told.append)

    async with Topics() as topics, serving(Handler) as url, raw_client(url, stalling=True):
        await until(lambda: topics.count("t") == 1)
        while not topics.counters.refused:
            topics.publish("t", b"x" * 50_000)
            await asyncio.sleep(0)
        assert bool(told) is (policy == "raise")


@pytest.mark.gen_test
async def test_by_default_a_gap_closes_the_connection_so_that_it_comes_back() -> None:
    async with Topics() as topics, room(topics) as members:
        client, other = await members.join("a"), await members.join("b")
        topics.gap(lambda name: name == "room/a", "as a test says")
        assert await client.read_message() is None
        assert client.close_code == 1012
        topics.publish("room/b", "goes on")
        assert await other.read_message() == "goes on"
        assert topics.counters.gaps == 1


@pytest.mark.gen_test
async def test_on_gap_may_be_a_coroutine_and_may_raise(log: Log) -> None:
    called: list[str] = []

    async def coroutine(subscription: Subscription) -> None:
        called.append(subscription.topic)
        await asyncio.sleep(0)
        raise ZeroDivisionError

    def function(subscription: Subscription) -> None:
        called.append(subscription.topic)
        raise ZeroDivisionError

    async with Topics() as topics, room(topics) as members:
        await members.join("a")
        await topics.subscribe(members.handlers[0], "x", on_gap=coroutine)
        await topics.subscribe(members.handlers[0], "y", on_gap=function)
        topics.gap(lambda name: name in "xy", "as a test says")
        await until(lambda: sum("raised" in line for line in log.lines) == 2)
        assert sorted(called) == ["x", "y"]
        assert topics.count("room/a") == 1


# Listening, presence, the end


@pytest.mark.gen_test
async def test_code_that_is_no_connection_listens() -> None:
    async with Topics() as topics:
        async with topics.listen("a/*") as listener:
            for number in range(3):
                topics.publish(f"a/{number}", str(number))
            topics.publish("b", "no")
            found = [await anext(listener) for _ in range(3)]
            assert [(each.topic, each.data) for each in found] == [("a/0", "0"), ("a/1", "1"), ("a/2", "2")]
            assert found[0].position < found[1].position
        assert list(topics.names()) == []


@pytest.mark.gen_test
async def test_a_listener_that_is_behind_is_told_so_and_goes_on() -> None:
    async with Topics() as topics, topics.listen("a", limit=3) as listener:
        for number in range(10):
            topics.publish("a", str(number))
        await until(lambda: topics.counters.received == 10)
        assert [(await anext(listener)).data for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(tornado_ws.TopicGapError, match="more than 3 messages"):
            await anext(listener)
        topics.publish("a", "new")
        assert (await anext(listener)).data == "new"


@pytest.mark.gen_test
async def test_listeners_end_with_the_topics() -> None:
    topics = Topics()

    async def listen() -> list[Any]:
        return [message.data async for message in topics.listen("a")]

    task = asyncio.ensure_future(listen())
    await until(lambda: list(topics.names()))
    topics.publish("a", "last")
    await topics.close()
    assert await task == ["last"]
    with pytest.raises(RuntimeError, match="closed"):
        topics.publish("a", "x")


@pytest.mark.gen_test
async def test_presence_says_who_is_there() -> None:
    async with Topics() as topics, room(topics) as members:
        client = await members.join("a")
        await members.join("a")
        for number, handler in enumerate(members.handlers):
            await topics.subscribe(handler, "room/a", presence={"name": number})
        assert sorted(each["name"] for each in await topics.presence("room/a")) == [0, 1]
        assert await topics.presence("room/b") == []
        await disconnect(client)
        await until(lambda: topics.count("room/a") == 1)
        assert await topics.presence("room/a") == [{"name": 1}]


# What is not allowed


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("topic", "error", "what"),
    [
        ("", ValueError, "0 characters"),
        ("é" * 257, ValueError, "512 bytes"),
        ("a*b", ValueError, r"'\*'"),
        ("a*", ValueError, r"'\*'"),
        (b"a", TypeError, "bytes"),
    ],
)
async def test_topics_that_there_cannot_be(topic: Any, error: type[Exception], what: str) -> None:
    async with Topics() as topics:
        with pytest.raises(error, match=what):
            topics.publish(topic, "x")
        with pytest.raises(error, match=what):
            await topics.presence(topic)


@pytest.mark.gen_test
async def test_what_is_no_message_or_connection_is_refused() -> None:
    async with Topics() as topics, room(topics) as members:
        await members.join("a")
        with pytest.raises(TypeError, match="int"):
            topics.publish("a", 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="str is no connection"):
            await topics.subscribe("handler", "a")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="since is of type int"):
            await topics.subscribe(members.handlers[0], "a", since=1)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="prefix"):
            await topics.subscribe(members.handlers[0], "a*", since="1")
        with pytest.raises(ValueError, match="limit is 0"):
            topics.listen("a", limit=0)


@pytest.mark.parametrize(
    ("settings", "error", "what"),
    [
        ({"stream": 1}, TypeError, "no setting 'stream'; there are prefix, streams"),
        ({"streams": 0}, ValueError, "streams is 0; allowed is an int from 1"),
        ({"publish_policy": "drop"}, ValueError, 'publish_policy is \'drop\'; allowed is "wait" or "fail"'),
        ({"publish_timeout": True}, ValueError, "publish_timeout is True"),
        ({"history": {"a*b": History()}}, ValueError, r"'\*'"),
        ({"history": {"a": 10}}, TypeError, "has to be a History"),
        ({"history": {"a": History(count=0)}}, ValueError, "count of the history of 'a' is 0"),
    ],
)
def test_settings_that_are_not_allowed(settings: dict[str, Any], error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        Topics(**settings)


# What it costs


@contextlib.asynccontextmanager
async def _many(count: int) -> AsyncIterator[list[Any]]:
    class Handler(Room):
        async def open(self, *args: str) -> None:
            made.append(self)

    made: list[Any] = []
    async with serving(Handler) as url, contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(raw_client(url))
        await until(lambda: len(made) == count)
        yield made


@pytest.mark.gen_test
@pytest.mark.parametrize("names", ["one for all", "one for each"])
async def test_an_idle_subscription_takes_little_memory(names: str) -> None:
    """The 0.4 KiB of the issue, with connections that are open: what a subscription adds."""
    count = 300
    async with Topics() as topics, _many(count) as handlers:
        await topics.subscribe(handlers[0], "warm")
        topics.unsubscribe(handlers[0], "warm")
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number, handler in enumerate(handlers):
                await topics.subscribe(handler, f"room/{number if names == 'one for each' else 'all'}")
            gc.collect()
            each = (tracemalloc.get_traced_memory()[0] - before) / count
        finally:
            tracemalloc.stop()
        assert each <= 410, f"{each} bytes"


class _Counting:
    """In the place of a protocol: how much is done for each connection, without sockets."""

    params = SimpleNamespace(options=DEFAULT_OPTIONS)

    def when_ended(self, callback: Any) -> None:
        """Take no notice."""


def test_subscribers_find_who_is_subscribed_among_ten_thousand() -> None:
    left: list[Any] = []
    subscribers = Subscribers(left.append, left.append, TopicCounters())
    made = []
    for number in range(10_000):
        connection: Any = type("Connection", (), {"protocol": _Counting()})()
        for name in (f"own/{number}", "all", "own/*"):
            made.append(Subscription(connection, name, None, False))
            subscribers.add(made[-1])
    assert len(subscribers) == 30_000
    assert [subscribers.count(name) for name in ("own/7", "all", "own/*", "none")] == [1, 10_000, 10_000, 0]
    for subscription in made:
        subscribers.remove(subscription)
    assert len(subscribers) == 0
    assert list(subscribers.names()) == []
    assert len(left) == 30_000


def test_a_message_is_encoded_once() -> None:
    shared = sharable("é")
    assert shared.frame() is shared.frame()
