"""``reconnect(url, resume=...)``: a client goes on behind the message that its application got last."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httpclient import HTTPRequest

from tests.conftest import Log
from tests.peer import StallingEcho, raw_client
from tests.support import serving, until
from tornado_ws import (
    Envelope,
    History,
    Resume,
    ResumedConnection,
    Subscription,
    TopicGapError,
    Topics,
    WebSocketClosedError,
    WebSocketHandler,
    envelope,
    reconnect,
    websocket_connect,
)
from tornado_ws.client import resume as resume_module


class Feed(WebSocketHandler):
    """Subscribes to the topics that its path names, as docs/topics.md shows it."""

    def initialize(self, topics: Topics, connections: list[Feed]) -> None:
        self.topics = topics
        self.connections = connections

    async def open(self, names: str) -> None:
        since = self.get_argument("since", None)
        for name in names.split("+"):
            await self.topics.subscribe(self, name, since=None if name.endswith("*") else since, envelope=True)
        self.connections.append(self)

    def abort(self) -> None:
        """Cut the connection, as a process that dies does."""
        if self.ws_connection is not None:
            self.ws_connection._abort()


class Server:
    def __init__(self, topics: Topics, url: str, connections: list[Feed]) -> None:
        self.topics = topics
        self.url = url
        #: All that there were.
        self.connections = connections

    async def last(self, count: int) -> Feed:
        """Return the last of ``count`` connections, when there are so many."""
        await until(lambda: len(self.connections) == count)
        return self.connections[-1]


@contextlib.asynccontextmanager
async def feed(**history: History) -> AsyncIterator[Server]:
    connections: list[Feed] = []
    async with Topics(history=history or {"*": History(count=1000)}) as topics:
        routes = [(r"/(.*)", Feed, {"topics": topics, "connections": connections})]
        async with serving(routes, alone=False) as url:
            yield Server(topics, url, connections)


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


def resuming(url: Any, resume: Resume | None = None, **arguments: Any) -> Any:
    """Return what can be left by the end of a block, and has closed its connection then."""
    conns: Any = reconnect(url, resume=resume or Resume(), sleep=no_sleep, **arguments)
    return contextlib.aclosing(conns)


@pytest.mark.gen_test
async def test_a_message_that_the_application_did_not_get_comes_again_and_no_other() -> None:
    async with feed() as server, resuming(f"{server.url}/a") as conns:
        conn = await anext(conns)
        handler = await server.last(1)
        for number in range(5):
            server.topics.publish("a", str(number))
        assert [(await anext(conn)).data for _ in range(2)] == ["0", "1"]
        # Another has come too; the application has not asked for it.
        await until(lambda: conn.connection.read_queue.qsize() == 1)
        handler.abort()
        await until(lambda: server.topics.count("a") == 0)
        server.topics.publish("a", b"5")
        conn = await anext(conns)
        await server.last(2)
        server.topics.publish("a", "6")
        assert [(await anext(conn)).data for _ in range(5)] == ["2", "3", "4", b"5", "6"]


@pytest.mark.gen_test
async def test_what_came_while_there_was_no_message_yet_is_not_lost() -> None:
    """The position is there before the first message is."""
    async with feed() as server, resuming(f"{server.url}/a") as conns:
        conn = await anext(conns)
        handler = await server.last(1)
        reading = asyncio.ensure_future(conn.read_message())
        await asyncio.sleep(0.05)
        handler.abort()
        assert await reading is None
        server.topics.publish("a", "missed")
        conn = await anext(conns)
        assert (await anext(conn)).data == "missed"


@pytest.mark.gen_test
async def test_connections_that_break_at_any_message_lose_nothing_and_repeat_nothing() -> None:
    count, dice = 900, random.Random(1)
    received: dict[str, list[int]] = {"a": [], "b": []}
    turns = 0

    async def read(url: str) -> None:
        nonlocal turns
        async for conn in reconnect(url, resume=True, sleep=no_sleep):
            turns += 1
            with contextlib.suppress(WebSocketClosedError):
                async for message in conn:
                    received[message.topic].append(int(message.data))
                    if sum(map(len, received.values())) == 2 * count:
                        return

    async with feed() as server:
        reading = asyncio.ensure_future(read(f"{server.url}/a+b"))
        await server.last(1)
        await asyncio.sleep(0.05)
        for number in range(count):
            for topic in received:
                server.topics.publish(topic, str(number))
            if dice.random() < 0.05:
                await asyncio.sleep(dice.random() / 100)
                server.connections[-1].abort()
        await reading
    assert received == {"a": list(range(count)), "b": list(range(count))}
    assert turns > 5


@pytest.mark.gen_test
async def test_each_topic_has_its_own_position() -> None:
    """Or what was read of one would come again because of another."""
    resume = Resume()
    async with feed() as server, resuming(f"{server.url}/a+b", resume) as conns:
        conn = await anext(conns)
        handler = await server.last(1)
        last = [await server.topics.publish(topic, topic) for topic in ("a", "b", "b")][1:]
        assert [(await anext(conn)).topic for _ in range(2)] == ["a", "b"]
        assert resume.positions["b"] == str(last[0])
        handler.abort()
        await anext(conns)
        conn = await anext(conns)
        server.topics.publish("a", "new")
        assert [await anext(conn) for _ in range(1)] == [("b", str(last[1]), "b")]
        assert (await anext(conn)).data == "new"


@pytest.mark.gen_test
async def test_a_cancelled_read_has_taken_nothing() -> None:
    async with feed() as server, resuming(f"{server.url}/a") as conns:
        conn = await anext(conns)
        handler = await server.last(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(conn.read_message(), 0.05)
        server.topics.publish("a", "x")
        await until(lambda: conn.connection.read_queue.qsize() == 1)
        handler.abort()
        conn = await anext(conns)
        assert (await conn.read_message()).data == "x"


@pytest.mark.gen_test
async def test_a_gap_is_raised_and_reading_goes_on_behind_it() -> None:
    async with feed(a=History(count=2)) as server, resuming(f"{server.url}/a") as conns:
        conn = await anext(conns)
        server.topics.publish("a", "0")
        assert (await anext(conn)).data == "0"
        (await server.last(1)).abort()
        for number in range(1, 5):
            server.topics.publish("a", str(number))
        conn = await anext(conns)
        with pytest.raises(TopicGapError, match="does not have all that was missed of topic 'a'"):
            await anext(conn)
        server.topics.publish("a", "5")
        assert (await anext(conn)).data == "5"
        (await server.last(2)).abort()
        server.topics.publish("a", "6")
        conn = await anext(conns)
        assert (await conn.read_message()).data == "6"


@pytest.mark.gen_test
async def test_a_program_goes_on_where_it_was_stopped() -> None:
    saved = Resume()
    async with feed() as server:
        async with resuming(f"{server.url}/a", saved) as conns:
            conn = await anext(conns)
            server.topics.publish("a", "0")
            assert (await anext(conn)).data == "0"
        text = json.dumps(saved.positions)
        server.topics.publish("a", "1")
        async with resuming(f"{server.url}/a", Resume(json.loads(text))) as conns:
            assert (await anext(await anext(conns))).data == "1"


@pytest.mark.gen_test
async def test_messages_of_the_handler_itself_and_of_prefixes_pass() -> None:
    resume = Resume()
    async with feed() as server, resuming(f"{server.url}/a+b*", resume) as conns:
        conn = await anext(conns)
        handler = await server.last(1)
        for own in ("text", b"bytes", '{"topic": "a"}', "[" * 100_000):
            await handler.write_message(own, binary=isinstance(own, bytes))
            assert await conn.read_message() == Envelope("", "", own)
        position = await server.topics.publish("b1", "x")
        assert await conn.read_message() == ("b1", str(position), "x")
        assert list(resume.positions) == ["a"]


@pytest.mark.gen_test
async def test_the_connection_does_what_a_connection_does() -> None:
    class Answering(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            if message == "end":
                self.close(1011, "why")
            else:
                self.write_message(message, binary=isinstance(message, bytes))

    async with serving(Answering) as url, resuming(url, Resume()) as conns:
        conn = await anext(conns)
        assert isinstance(conn, ResumedConnection)
        await conn.write_message("x")
        await conn.write_message("é", binary=True)
        assert [(await anext(conn)).data for _ in range(2)] == ["x", "é".encode()]
        await conn.write_message("end")
        with pytest.raises(WebSocketClosedError, match="1011: why"):
            await anext(conn)
        assert (conn.close_code, conn.close_reason) == (1011, "why")
        conn = await anext(conns)
        conn.close()
        await conn.wait_closed()
        assert await conn.read_message() is None
        assert [message async for message in conn] == []


@pytest.mark.gen_test
async def test_a_request_stays_as_it_is_and_a_fragment_stays_behind_the_query() -> None:
    async with feed() as server:
        request = HTTPRequest(f"{server.url}/a?b=c#d", headers={"X": "y"})
        resume = Resume({"a": "0-0-1", "é&#": "0-0-2"})
        async with resuming(request, resume) as conns:
            with pytest.raises(TopicGapError):
                await anext(await anext(conns))
            handler = await server.last(1)
            assert handler.get_argument("b") == "c"
            assert handler.request.headers["X"] == "y"
            assert json.loads(handler.get_argument("since")) == {"a": "0-0-1", "é&#": "0-0-2"}
            assert request.url == f"{server.url}/a?b=c#d"


@pytest.mark.gen_test
async def test_the_argument_may_have_another_name() -> None:
    assert Resume(argument="from").request("ws://h/p") == "ws://h/p?from="


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: reconnect("ws://127.0.0.1:1/?since=", resume=True), "has an argument 'since' already"),
        (lambda: reconnect("ws://127.0.0.1:1/", resume=1), "resume is of type int"),  # type: ignore[call-overload]
        (lambda: reconnect("ws://127.0.0.1:1/", resume=True, on_message_callback=print), "on_message_callback"),
        (lambda: reconnect("ws://127.0.0.1:1/", resume=True, codec="json"), "codec and decode_text=False"),
        (lambda: reconnect("ws://127.0.0.1:1/", resume=True, decode_text=False), "codec and decode_text=False"),
    ],
)
async def test_what_cannot_be_resumed_is_said(make: Callable[[], Any], error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        await anext(make())


def test_positions_are_texts() -> None:
    with pytest.raises(TypeError, match="of type str"):
        Resume({"a": 1})  # type: ignore[dict-item]


def test_a_server_cannot_have_a_client_keep_what_it_likes(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume_module, "MOST_TOPICS", 2)
    resume = Resume()
    for topic in ("a", "b", "c", "d", "a"):
        resume.note(topic, f"of {topic}")
    resume.note("a", "x" * 2000)
    resume.note("b" * 2000, "x")
    assert resume.positions == {"a": "of a", "b": "of b"}
    assert "more than 2 topics" in log.only().getMessage()


# The server's part


class Subscribing:
    """Subscribes a new connection, and returns what its client gets first."""

    def __init__(self, topics: Topics, url: str, connections: list[Feed]) -> None:
        self._server = Server(topics, url, connections)

    async def first(self, since: Any, count: int = 1) -> list[dict[str, Any]]:
        server = self._server
        before = len(server.connections)
        async with websocket_connect(f"{server.url}/other") as conn:
            handler = await server.last(before + 1)
            await server.topics.subscribe(handler, "a", since=since, envelope=True)
            return [json.loads(str(await conn.read_message())) for _ in range(count)]


@pytest.mark.gen_test
async def test_who_gives_a_position_is_told_what_became_of_it_behind_what_was_missed() -> None:
    async with feed() as server:
        subscribing = Subscribing(server.topics, server.url, server.connections)
        first, second = [await server.topics.publish("a", text) for text in ("0", "1")]
        beginning = {"topic": "a", "position": str(second), "recovered": False, "missed": 0}
        for since in ("", "nonsense", "{", "[", '{"b": "0-0-1"}', '{"a": 1}', '{"a": ' + "[" * 100_000, "{}"):
            assert await subscribing.first(since) == [beginning]
        message = {"topic": "a", "position": str(second), "data": "1"}
        joined = envelope.join_positions({"b": str(second), "a": str(first)})
        for known in (first, str(first), joined):
            assert await subscribing.first(known, 2) == [message, {**beginning, "recovered": True, "missed": 1}]
        assert await subscribing.first(str(second)) == [{**beginning, "recovered": True}]


@pytest.mark.gen_test
async def test_who_gives_none_is_told_nothing() -> None:
    async with feed() as server:
        subscribing = Subscribing(server.topics, server.url, server.connections)
        asking: Awaitable[Any] = asyncio.ensure_future(subscribing.first(None))
        await server.last(1)
        await until(lambda: server.topics.count("a"))
        position = await server.topics.publish("a", "x")
        assert await asking == [{"topic": "a", "position": str(position), "data": "x"}]


@pytest.mark.gen_test
async def test_who_cannot_be_told_where_it_begins_has_a_gap() -> None:
    told: list[str] = []
    handlers: list[Any] = []

    def note(subscription: Subscription) -> None:
        told.append(subscription.topic)

    class Slow(StallingEcho):
        websocket_write_limit = 1 << 16
        websocket_write_limit_policy = "raise"

        async def open(self) -> None:  # type: ignore[override]
            super().open()
            await topics.subscribe(self, "full", on_gap=note)
            handlers.append(self)

    async with Topics() as topics, serving(Slow) as url, raw_client(url, stalling=True):
        await until(lambda: handlers)
        while not told:
            topics.publish("full", b"x" * 50_000)
            await asyncio.sleep(0)
        assert set(told) == {"full"}
        await topics.subscribe(handlers[0], "a", since="", envelope=True, on_gap=note)
        assert told[-1] == "a"


_FIELDS = st.sampled_from(["topic", "position", "data", "recovered", "missed"])
_VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=2), max_size=2)


@given(st.text(max_size=20) | st.dictionaries(_FIELDS, _VALUES).map(json.dumps))
def test_text_of_others_is_in_an_envelope_or_not(text: str) -> None:
    try:
        found = envelope.take_apart(text)
    except ValueError:
        return
    assert isinstance(found.topic, str)
    assert isinstance(found.position, str)
    assert isinstance(found, envelope.Beginning) is ("data" not in json.loads(text))


@given(st.text(max_size=20) | st.dictionaries(st.sampled_from(["a", "b"]), _VALUES).map(json.dumps))
def test_what_a_client_says_is_a_position_or_not(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(envelope.position_in(text, "a"), str)


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), min_size=1))
def test_positions_are_one_text_and_back(positions: dict[str, str]) -> None:
    text = envelope.join_positions(positions)
    assert {topic: envelope.position_in(text, topic) for topic in positions} == positions


def test_a_beginning_is_no_message() -> None:
    said = envelope.begin("a", "0-0-1", True, 3)
    assert envelope.take_apart(said) == ("a", "0-0-1", True)
    with pytest.raises(ValueError, match="no data"):
        Envelope.of(said)
