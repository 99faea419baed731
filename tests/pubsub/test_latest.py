"""The policy "latest": a slow connection gets the newest message of each topic, a fast one gets all."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tornado.concurrent import Future

from tests.conftest import Log, Tls
from tests.peer import RawPeer, StallingEcho, raw_client, tls_client
from tests.pubsub.redis_server import RedisServer
from tests.support import serving, until
from tests.wire import CLOSE
from tornado_ws import Envelope, History, Topics, engine, options
from tornado_ws.engine.contract import CORK_SIZE
from tornado_ws.pubsub.broker import TopicCounters
from tornado_ws.pubsub.messages import Message, Position, sharable
from tornado_ws.pubsub.subscriptions import Subscribers, Subscription

#: Bytes of a message: some of them are more than the kernel takes for a peer that does not read.
SIZE = 8192
TOPICS = ("price/a", "price/b", "price/c")


def text(topic: str, number: int | str) -> str:
    """Return a message that does not get smaller by compression."""
    return f"{topic} {number} ".ljust(SIZE - 6000) + random.randbytes(3000).hex()


class Prices(StallingEcho):
    """Subscribed, in a way that each test has its own of."""

    def initialize(self, handlers: list[Any], subscribe: Callable[[Any], Any]) -> None:
        self.handlers = handlers
        self.subscribe = subscribe

    async def open(self) -> None:  # type: ignore[override]
        super().open()
        await self.subscribe(self)
        self.handlers.append(self)


@contextlib.asynccontextmanager
async def prices(
    subscribe: Callable[[Any], Any], ssl_options: Any = None, alone: bool = True, **attributes: Any
) -> AsyncIterator[Any]:
    """Serve `Prices` with ``attributes``; gives the URL, and the handlers that are open."""
    handlers: list[Any] = []
    arguments = {"handlers": handlers, "subscribe": subscribe}
    handler = type("SomePrices", (Prices,), attributes)
    async with serving([("/", handler, arguments)], ssl_options=ssl_options, alone=alone) as url:
        yield url, handlers


def numbers_of(texts: list[str], topic: str) -> list[str]:
    return [each.split()[1] for each in texts if each.startswith(topic + " ")]


async def receive_texts(peer: RawPeer, until_each: dict[str, str], inflate: bool = False) -> list[str]:
    """Receive messages up to that number of each topic."""
    texts: list[str] = []
    inflater = zlib.decompressobj(wbits=-15)
    last: dict[str, str] = {}
    while not until_each.items() <= last.items():
        received = await peer.receive()
        assert received is not None, last
        payload = received.payload
        if inflate and received.rsv:
            payload = inflater.decompress(payload + b"\x00\x00\xff\xff")
        texts.append(payload.decode())
        last[texts[-1].split()[0]] = texts[-1].split()[1]
    return texts


def stalled(handler: Any) -> bool:
    return bool(handler.ws_connection.is_behind())


async def publish_until_stalled(topics: Topics, handler: Any) -> int:
    """Publish to all topics in turn, and some more when the connection is behind; returns how often."""
    count = 0
    more = 0
    while more < 30:
        more += stalled(handler)
        for topic in TOPICS:
            topics.publish(topic, text(topic, count))
        count += 1
        await asyncio.sleep(0)
    return count


@pytest.mark.gen_test
@pytest.mark.parametrize("pattern", ["price/*", "names"])
@pytest.mark.parametrize("extension", [None, "permessage-deflate", "permessage-deflate; server_no_context_takeover"])
async def test_a_slow_connection_gets_the_newest_of_each_topic(pattern: str, extension: str | None) -> None:
    async def subscribe(handler: Any) -> None:
        for name in TOPICS if pattern == "names" else (pattern,):
            await topics.subscribe(handler, name, policy="latest")

    compression: Any = None if extension is None else {"compression_level": 1}
    attributes: dict[str, Any] = {"get_compression_options": lambda self: compression}
    async with (
        Topics() as topics,
        prices(subscribe, **attributes) as (url, handlers),
        raw_client(url, stalling=True, Sec_WebSocket_Extensions=extension) as peer,
    ):
        await until(lambda: handlers)
        count = await publish_until_stalled(topics, handlers[0])
        connection = handlers[0].ws_connection
        waited = connection.buffered_amount
        texts = await receive_texts(peer, dict.fromkeys(TOPICS, str(count - 1)), extension is not None)
        for topic in TOPICS:
            received = [int(number) for number in numbers_of(texts, topic)]
            assert received == sorted(set(received))
            assert received[-1] == count - 1
        # What was written before it was slow, and one message of each topic.
        assert waited < 4 * SIZE
        assert topics.counters.dropped == connection.counters.dropped == 3 * count - len(texts)
        assert topics.counters.delivered == len(texts)
        assert topics.counters.dropped >= 3 * 25
        assert topics.counters.refused == topics.counters.gaps == 0
        # And it is fast again.
        for number in range(20):
            topics.publish(TOPICS[0], f"{TOPICS[0]} again-{number}")
        texts = await receive_texts(peer, {TOPICS[0]: "again-19"}, extension is not None)
        assert numbers_of(texts, TOPICS[0]) == [f"again-{number}" for number in range(20)]


@pytest.mark.gen_test
async def test_messages_wait_while_a_thread_compresses_one_before_them() -> None:
    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, TOPICS[0], policy="latest")

    attributes: dict[str, Any] = {"get_compression_options": lambda self: {"offload_size": 1 << 20}}
    async with (
        Topics() as topics,
        prices(subscribe, **attributes) as (url, handlers),
        raw_client(url, Sec_WebSocket_Extensions="permessage-deflate") as peer,
    ):
        await until(lambda: handlers)
        handlers[0].write_message(f"{TOPICS[1]} large " + "x" * (1 << 20))
        for number in range(10):
            topics.publish(TOPICS[0], text(TOPICS[0], number))
        texts = await receive_texts(peer, {TOPICS[0]: "9"}, inflate=True)
        assert [each.split()[1] for each in texts] == ["large", "9"]
        assert topics.counters.dropped == 9


@pytest.mark.gen_test
@pytest.mark.parametrize("session", ["OpenSSL itself", "the ssl module"])
async def test_over_tls(session: str, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine.name == "native":
        native: Any = importlib.import_module("tornado_ws.engine._native")
        monkeypatch.setattr(native, "direct_tls", session == "OpenSSL itself")

    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "price/*", policy="latest")

    async with (
        Topics() as topics,
        prices(subscribe, ssl_options=tls.server) as (url, handlers),
        tls_client(url, tls.client) as peer,
    ):
        await until(lambda: handlers)
        count = await publish_until_stalled(topics, handlers[0])
        texts = await receive_texts(peer, dict.fromkeys(TOPICS, str(count - 1)))
        for topic in TOPICS:
            received = [int(number) for number in numbers_of(texts, topic)]
            assert received == sorted(set(received))
        assert topics.counters.dropped == 3 * count - len(texts) > 0


async def received_where_the_kernel_holds(least: int | None) -> int:
    async def subscribe(handler: Any) -> None:
        if least is not None:
            sock = handler.ws_connection.stream.socket
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, least)
        await topics.subscribe(handler, "price/*", policy="latest")

    async with Topics() as topics, prices(subscribe) as (url, handlers), raw_client(url, stalling=True) as peer:
        await until(lambda: handlers)
        count = await publish_until_stalled(topics, handlers[0])
        return len(await receive_texts(peer, dict.fromkeys(TOPICS, str(count - 1))))


@pytest.mark.gen_test
async def test_the_kernel_can_be_told_to_hold_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has cannot be taken back. docs/topics.md says how."""
    # As much as the operating system likes.
    monkeypatch.setattr(StallingEcho, "open", lambda self: None)
    assert await received_where_the_kernel_holds(16 * 1024) < await received_where_the_kernel_holds(None) / 2


@pytest.mark.gen_test
async def test_over_redis(redis_server: RedisServer) -> None:
    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "price/*", policy="latest")

    async with (
        Topics(redis_server.url) as topics,
        prices(subscribe, alone=False) as (url, handlers),
        raw_client(url, stalling=True) as peer,
    ):
        await until(lambda: handlers)
        count = 0
        while topics.counters.dropped < 50:
            for topic in TOPICS:
                topics.publish(topic, text(topic, count))
            await topics.publish("other", "x")
            count += 1
        texts = await receive_texts(peer, dict.fromkeys(TOPICS, str(count - 1)))
        for topic in TOPICS:
            received = [int(number) for number in numbers_of(texts, topic)]
            assert received == sorted(set(received))
        assert topics.counters.dropped == 3 * count - len(texts)
        assert topics.counters.gaps == 0


@pytest.mark.gen_test
async def test_a_fast_connection_gets_everything() -> None:
    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "price/*", policy="latest")
        await topics.subscribe(handler, TOPICS[0], policy="latest")

    async with (
        Topics() as topics,
        prices(subscribe) as (url, handlers),
        raw_client(url) as peer,
    ):
        await until(lambda: handlers)
        for number in range(100):
            for topic in TOPICS:
                topics.publish(topic, f"{topic} {number}")
            texts = await receive_texts(peer, dict.fromkeys(TOPICS, str(number)))
            assert texts == [f"{topic} {number}" for topic in TOPICS]
        assert topics.counters.dropped == 0
        assert topics.counters.delivered == 300


@pytest.mark.gen_test
async def test_what_is_not_of_such_a_subscription_is_sent_as_ever() -> None:
    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "price/*", policy="latest")
        # A name decides before a prefix does.
        await topics.subscribe(handler, TOPICS[1])

    async with (
        Topics() as topics,
        prices(subscribe) as (url, handlers),
        raw_client(url, stalling=True) as peer,
    ):
        await until(lambda: handlers)
        count = 0
        while topics.counters.dropped < 50:
            for topic in TOPICS:
                topics.publish(topic, text(topic, count))
            handlers[0].write_message(f"other {count}")
            count += 1
            await asyncio.sleep(0)
        texts = await receive_texts(peer, {**dict.fromkeys(TOPICS, str(count - 1)), "other": str(count - 1)})
        for name in (TOPICS[1], "other"):
            assert numbers_of(texts, name) == [str(number) for number in range(count)]
        assert len(numbers_of(texts, TOPICS[0])) < count
        assert topics.counters.dropped == 4 * count - len(texts)


@pytest.mark.gen_test
async def test_as_policy_of_the_write_limit_it_begins_there() -> None:
    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "price/*")

    limit = 50 * SIZE
    attributes: dict[str, Any] = {"websocket_write_limit": limit, "websocket_write_limit_policy": "latest"}
    async with (
        Topics() as topics,
        prices(subscribe, **attributes) as (url, handlers),
        raw_client(url, stalling=True) as peer,
    ):
        await until(lambda: handlers)
        connection = handlers[0].ws_connection
        count = most = 0
        while topics.counters.dropped < 50:
            for topic in TOPICS:
                topics.publish(topic, text(topic, count))
            count += 1
            await asyncio.sleep(0)
            most = max(most, connection.buffered_amount)
        # The kernel may have taken some before we look.
        assert limit / 2 < most < limit + 4 * SIZE
        texts = await receive_texts(peer, dict.fromkeys(TOPICS, str(count - 1)))
        for topic in TOPICS:
            received = [int(number) for number in numbers_of(texts, topic)]
            assert received == sorted(set(received))
        assert connection.counters.dropped == 3 * count - len(texts)


@pytest.mark.gen_test
async def test_no_other_message_is_lost_at_the_write_limit(log: Log) -> None:
    """There the policy is "close" for what is not of a topic."""

    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "price/*")

    ended: list[Any] = []
    attributes: dict[str, Any] = {
        "websocket_write_limit": 5 * SIZE,
        "websocket_write_limit_policy": "latest",
        "on_close": lambda self: ended.append((self.close_code, self.close_reason)),
    }
    async with (
        Topics() as topics,
        prices(subscribe, **attributes) as (url, handlers),
        raw_client(url, stalling=True) as peer,
    ):
        await until(lambda: handlers)
        await publish_until_stalled(topics, handlers[0])
        while not topics.counters.dropped:
            topics.publish(TOPICS[0], text(TOPICS[0], 0))
            await asyncio.sleep(0)
        while not log.records:
            handlers[0].write_message("other")
        assert "too slow" in log.only().getMessage()
        while (received := await peer.receive()) is not None and received.opcode != CLOSE:
            pass
        peer.close()
        await until(lambda: ended == [(1013, "too slow")])


@pytest.mark.gen_test
async def test_positions_in_envelopes_grow_and_recovery_goes_on_behind_them() -> None:
    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "price/*", envelope=True, policy="latest")

    async with (
        Topics(history={"*": History(count=5)}) as topics,
        prices(subscribe) as (url, handlers),
        raw_client(url, stalling=True) as peer,
    ):
        await until(lambda: handlers)
        count = await publish_until_stalled(topics, handlers[0])
        last: dict[str, Envelope] = {}
        while [each.data.split()[1] for each in last.values()] != [str(count - 1)] * 3:
            received = await peer.receive()
            assert received is not None
            envelope = Envelope.of(received.payload.decode())
            if envelope.topic in last:
                assert Position.parse(envelope.position) > Position.parse(last[envelope.topic].position)
            last[envelope.topic] = envelope
        subscription = await topics.subscribe(
            handlers[0], TOPICS[0], since=last[TOPICS[0]].position, envelope=True, policy="latest"
        )
        assert (subscription.recovered, subscription.missed) == (True, 0)


@pytest.mark.gen_test
async def test_an_end_lets_go_of_what_waits() -> None:
    async def subscribe(handler: Any) -> None:
        for topic in TOPICS[:2]:
            await topics.subscribe(handler, topic, policy="latest")

    async with Topics() as topics, prices(subscribe) as (url, handlers):
        async with raw_client(url, stalling=True):
            await until(lambda: handlers)
            await publish_until_stalled(topics, handlers[0])
            waiting = topics._subscribers.latest.waiting
            (kept,) = waiting.values()
            assert list(kept) == list(TOPICS[:2])
            dropped = topics.counters.dropped
            assert topics.unsubscribe(handlers[0], TOPICS[0])
            assert list(kept) == [TOPICS[1]]
            assert topics.counters.dropped == dropped + 1
        await until(lambda: not waiting)
        assert topics.counters.dropped == dropped + 2


@pytest.mark.gen_test
async def test_what_waits_when_topics_are_closed_is_sent() -> None:
    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "price/*", policy="latest")

    topics = Topics()
    async with prices(subscribe) as (url, handlers), raw_client(url, stalling=True) as peer:
        await until(lambda: handlers)
        count = await publish_until_stalled(topics, handlers[0])
        await topics.close()
        await receive_texts(peer, dict.fromkeys(TOPICS, str(count - 1)))
        await until(lambda: not topics._subscribers.latest.waiting)


@pytest.mark.gen_test
async def test_who_subscribes_anew_loses_nothing_that_waits() -> None:
    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, TOPICS[0], policy="latest")

    async with (
        Topics() as topics,
        prices(subscribe) as (url, handlers),
        raw_client(url, stalling=True) as peer,
    ):
        await until(lambda: handlers)
        count = await publish_until_stalled(topics, handlers[0])
        await topics.subscribe(handlers[0], TOPICS[0], policy="latest")
        texts = await receive_texts(peer, {TOPICS[0]: str(count - 1)})
        assert numbers_of(texts, TOPICS[0])[-1] == str(count - 1)
        # With another policy the next message goes at once, and nothing older behind it.
        count = await publish_until_stalled(topics, handlers[0])
        await topics.subscribe(handlers[0], TOPICS[0])
        for name in ("x", "y"):
            topics.publish(TOPICS[0], text(TOPICS[0], name))
        texts = await receive_texts(peer, {TOPICS[0]: "y"})
        await until(lambda: not topics._subscribers.latest.waiting)
        topics.publish(TOPICS[0], text(TOPICS[0], "z"))
        texts += await receive_texts(peer, {TOPICS[0]: "z"})
        assert numbers_of(texts, TOPICS[0])[-3:] == ["x", "y", "z"]
        assert numbers_of(texts, TOPICS[0])[-4] != str(count - 1)


@pytest.mark.gen_test
@pytest.mark.parametrize("envelope", [False, True])
async def test_what_waits_comes_before_what_is_published_when_there_is_room_again(envelope: bool) -> None:
    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "price/*", policy="latest", envelope=envelope)

    async with Topics() as topics, prices(subscribe) as (url, handlers), raw_client(url, stalling=True) as peer:
        await until(lambda: handlers)
        count = await publish_until_stalled(topics, handlers[0])
        transport = handlers[0].ws_connection._transport
        received = b""
        # Without a turn of the loop in between, in which what waits would be sent.
        while transport._write_queue is not None:
            with contextlib.suppress(BlockingIOError):
                received += peer.sock.recv(1 << 20)
            transport.handle_events()
        assert list(topics._subscribers.latest.waiting.values())
        for topic in TOPICS[1:]:
            topics.publish(topic, text(topic, "newer"))
        topics._broker._flush()  # type: ignore[attr-defined]
        peer._unread = received + peer._unread

        def is_sent() -> bool:
            # There may be no room before the peer has read again.
            with contextlib.suppress(BlockingIOError):
                peer._unread += peer.sock.recv(1 << 20)
            return not topics._subscribers.latest.waiting

        await until(is_sent)
        topics.publish("price/end", "price/end end")
        numbers: dict[str, list[str]] = {topic: [] for topic in (*TOPICS, "price/end")}
        while not numbers["price/end"]:
            frame = await peer.receive()
            assert frame is not None
            data = Envelope.of(frame.payload.decode()).data if envelope else frame.payload.decode()
            topic, number = str(data).split()[:2]
            numbers[topic].append(number)
        assert numbers[TOPICS[0]][-1] == str(count - 1)
        for topic in TOPICS[1:]:
            assert numbers[topic][-1] == "newer"
            assert str(count - 1) not in numbers[topic]


@pytest.mark.gen_test
async def test_what_waits_is_sent_as_there_is_room_for_it_in_the_order_of_topics() -> None:
    """And what comes meanwhile can still take the place of what was not sent."""

    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "*", policy="latest")

    async with Topics() as topics, prices(subscribe) as (url, handlers), raw_client(url, stalling=True) as peer:
        await until(lambda: handlers)
        await publish_until_stalled(topics, handlers[0])
        connection = handlers[0].ws_connection
        names = [f"many/{number}" for number in range(600)]
        for round_ in "first", "second":
            for name in names:
                topics.publish(name, text(name, round_))
            await asyncio.sleep(0)
        texts: list[str] = []
        while not any(each.startswith("many/99 ") for each in texts):
            frame = await peer.receive()
            assert frame is not None
            texts.append(frame.payload.decode())
            # What is written in one turn of the loop leaves together.
            assert connection.buffered_amount < CORK_SIZE + 2 * SIZE
        for name in reversed(names):
            topics.publish(name, text(name, "third"))
        texts += await receive_texts(peer, dict.fromkeys(names, "third"))
        many = [each.split()[:2] for each in texts if each.startswith("many/")]
        assert [name for name, _ in many[:600]] == names
        assert {number for _, number in many[:100]} == {"second"}
        assert {number for _, number in many[550:600]} == {"third"}


@pytest.mark.gen_test
async def test_a_message_that_cannot_be_written_ends_that_connection_alone(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, TOPICS[0], policy="latest")

    def fail(*args: Any) -> Any:
        raise MemoryError("as a test says")

    async with (
        Topics() as topics,
        prices(subscribe) as (url, handlers),
        raw_client(url, stalling=True) as peer,
    ):
        await until(lambda: handlers)
        await publish_until_stalled(topics, handlers[0])
        monkeypatch.setattr(handlers[0].ws_connection, "is_closing", fail)
        with contextlib.suppress(ConnectionError):
            while await peer.receive_bytes():
                pass
        assert "as a test says" in log.lines[0]
        await until(lambda: not topics._subscribers.latest.waiting and topics.count(TOPICS[0]) == 0)


@pytest.mark.gen_test
async def test_what_waited_and_is_refused_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the write limit that the stream was made with, for example."""
    gaps: list[Subscription] = []

    async def subscribe(handler: Any) -> None:
        await topics.subscribe(handler, "price/*", policy="latest", on_gap=gaps.append)

    async with Topics() as topics, prices(subscribe) as (url, handlers), raw_client(url, stalling=True) as peer:
        await until(lambda: handlers)
        await publish_until_stalled(topics, handlers[0])
        monkeypatch.setattr(handlers[0].ws_connection, "write_shared", lambda shared: False)
        reading = asyncio.ensure_future(peer.receive_rest())
        await until(lambda: len(gaps) == 3)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        assert topics.counters.refused == 3
        await until(lambda: not topics._subscribers.latest.waiting)


@pytest.mark.gen_test
@pytest.mark.parametrize("policy", ["drop", "close", "", 1, "Latest"])
async def test_other_policies_of_a_subscription_are_refused(policy: Any) -> None:
    async with Topics() as topics:
        with pytest.raises(ValueError, match=r"policy is .*; allowed are 'latest' and None"):
            await topics.subscribe(object(), "a", policy=policy)  # type: ignore[arg-type]


# Against a model


class Connection:
    """A protocol whose kernel takes so many messages as it is told to."""

    def __init__(self, policy: str) -> None:
        self.params = SimpleNamespace(options=options.DEFAULT_OPTIONS._replace(write_limit_policy=policy))
        self.handler = self
        self.protocol = self
        self.room_for = 0
        self.unsent: list[str] = []
        self.received: list[str] = []
        self.dropped = 0
        self.is_ended = False
        self._room: Future[None] | None = None
        self._on_end: Any = None

    def when_ended(self, callback: Any) -> None:
        self._on_end = callback

    def is_closing(self) -> bool:
        return self.is_ended

    def is_behind(self, at_limit: bool = False) -> bool:
        return len(self.unsent) > (3 if at_limit else 0)

    def room(self) -> Future[None]:
        assert self.unsent
        if self._room is None or self._room.done():
            self._room = Future()
        return self._room

    def count_dropped(self, messages: int) -> None:
        self.dropped += messages

    def write_message(self, message: str, binary: bool) -> None:
        assert not self.is_ended
        self.unsent.append(message)
        self._take()

    def drain(self, count: int) -> None:
        self.room_for += count
        self._take()

    def _take(self) -> None:
        while self.unsent and self.room_for:
            self.room_for -= 1
            self.received.append(self.unsent.pop(0))
        if not self.unsent and self._room is not None and not self._room.done():
            self._room.set_result(None)

    def end(self) -> None:
        self.is_ended = True
        self._on_end(self)
        if self._room is not None and not self._room.done():
            self._room.set_exception(ConnectionError())
            self._room.exception()


NAMES = ("a", "ab", "b")


class Model(RuleBasedStateMachine):
    """What each connection was to get, by topic, against what it got."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.counters = TopicCounters()
        self.refused: list[Any] = []
        self.subscribers = Subscribers(lambda _: None, self.refused.append, self.counters)
        self.connections = [Connection(policy) for policy in ("close", "latest", "close")]
        #: Of each connection and topic, what was published while it was subscribed.
        self.expected: list[dict[str, list[str]]] = [{} for _ in self.connections]
        self.sent = 0
        self.number = 0
        # The third one takes everything at once.
        self.connections[2].room_for = 1_000_000
        for index, connection in enumerate(self.connections):
            self._subscribe(connection, "a*", "latest" if index != 1 else None)

    def _subscribe(self, connection: Connection, pattern: str, policy: str | None) -> None:
        subscription = Subscription.__new__(Subscription)
        subscription.connection = connection
        subscription.protocol = connection
        subscription.topic, subscription.policy = pattern, policy
        subscription.envelope, subscription.member = False, None
        self.subscribers.add(subscription)

    def _run(self) -> None:
        async def turns() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    @rule(topics=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5), excluded=st.integers(0, 9))
    def publish(self, topics: list[str], excluded: int) -> None:
        messages = []
        exclude: Any = self.connections[excluded] if excluded < len(self.connections) else None
        for topic in topics:
            self.number += 1
            message = Message.of_shared(
                topic, sharable(f"{topic} {self.number}"), Position("e", (self.number, 0)), exclude
            )
            messages.append(message)
            for connection, expected in zip(self.connections, self.expected, strict=True):
                if connection is not exclude and self.subscribers.deciding(connection, topic) is not None:
                    expected.setdefault(topic, []).append(f"{topic} {self.number}")

        async def deliver() -> None:
            self.sent += self.subscribers.deliver(messages)

        self.loop.run_until_complete(deliver())

    @rule(index=st.integers(0, 1), count=st.integers(1, 4))
    def drain(self, index: int, count: int) -> None:
        self.connections[index].drain(count)

    @rule()
    def let_the_loop_run(self) -> None:
        self._run()

    @rule(index=st.integers(0, 2), name=st.sampled_from(["b", "a"]), policy=st.sampled_from(["latest", None]))
    def subscribe(self, index: int, name: str, policy: str | None) -> None:
        connection = self.connections[index]
        if not connection.is_ended:
            before = self.subscribers.get(connection, name)
            if before is not None:
                self.subscribers.remove(before)
            self._subscribe(connection, name, policy)

    @precondition(lambda self: not self.connections[0].is_ended)
    @rule()
    def unsubscribe(self) -> None:
        subscription = self.subscribers.get(self.connections[0], "b")
        if subscription is not None:
            self.subscribers.end(subscription)
            # What waited of it is not sent any more.
            self.expected[0]["b"] = [each for each in self.expected[0].get("b", []) if each in self._got(0)]

    @precondition(lambda self: self.number > 30)
    @rule()
    def end(self) -> None:
        if not self.connections[0].is_ended:
            self.connections[0].end()
            assert self.connections[0] not in self.subscribers.latest.waiting

    def _got(self, index: int) -> list[str]:
        return self.connections[index].received + self.connections[index].unsent

    @invariant()
    def each_gets_a_subsequence_of_each_topic(self) -> None:
        for index, expected in enumerate(self.expected):
            got = self._got(index)
            for topic in NAMES:
                mine = [each for each in got if each.startswith(topic + " ")]
                rest = iter(expected.get(topic, []))
                assert all(each in rest for each in mine), (mine, expected)
        assert len(self.connections[2].received) == sum(map(len, self.expected[2].values()))
        assert not self.refused

    def teardown(self) -> None:
        for connection in self.connections:
            if not connection.is_ended:
                connection.drain(1_000_000)
        for _ in range(10):
            self._run()
        assert not self.subscribers.latest.waiting
        for index, expected in enumerate(self.expected):
            if not self.connections[index].is_ended:
                for topic, published in expected.items():
                    mine = [each for each in self._got(index) if each.startswith(topic + " ")]
                    assert mine[-1:] == published[-1:]
        given = sum(len(self._got(index)) for index in range(3))
        # Those of the loop's turns are counted where they are sent.
        assert self.sent + self.counters.delivered == given
        assert sum(connection.dropped for connection in self.connections) == self.counters.dropped
        self.loop.close()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=50)
