"""The reader of streams, and what recovers from it, against a model: a broker in memory that does everything wrong.

It is trimmed, between any two commands too; it loses its data, and goes back to older data; connections to it break
before a command or after it, and publishers send again what was interrupted. Whatever the order: no message is lost
without a gap, none comes twice, none out of order, no gap is told where nothing is lost, and what a history says to be
complete is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from redis.exceptions import ResponseError

from tornado_ws import History, Position
from tornado_ws.pubsub import redis_reader
from tornado_ws.pubsub.broker import TopicCounters
from tornado_ws.pubsub.history import Rules
from tornado_ws.pubsub.messages import Id, Message
from tornado_ws.pubsub.redis_link import AwayError
from tornado_ws.pubsub.redis_reader import Reader, look_commands, looked
from tornado_ws.pubsub.redis_stream import Stream

#: Two streams, and what the topics of each begin with.
KEYS = ["s0", "s1"]
TOPICS = ["a", "b"]


@pytest.fixture(autouse=True)
def small_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_reader, "COUNT", 4)


class Entry(NamedTuple):
    id: Id
    topic: str
    number: int

    @property
    def raw(self) -> list[Any]:
        number = b"%d" % self.number
        return [_text(self.id), [b"t", self.topic.encode(), b"m", number, b"o", b"publisher", b"n", number]]


def _text(number: Id) -> bytes:
    return b"%d-%d" % number


class FakeRedis:
    """As much of a server as the reader sees: strings, and streams."""

    def __init__(self) -> None:
        self.now = 1
        self.strings: dict[str, str] = {}
        self.streams: dict[str, list[Entry]] = {}
        self.added: dict[str, int] = {}
        self.last: dict[str, Id] = {}

    def add(self, key: str, topic: str, number: int) -> Entry:
        self.now += 1
        entry = Entry((self.now, 0), topic, number)
        self.streams.setdefault(key, []).append(entry)
        self.added[key] = self.added.get(key, 0) + 1
        self.last[key] = entry.id
        return entry

    def flush(self) -> None:
        for each in (self.strings, self.streams, self.added, self.last):
            each.clear()

    def do(self, command: Sequence[Any]) -> Any:
        return getattr(self, f"_{command[0].lower()}")(*command[1:])

    def _time(self) -> list[bytes]:
        return [b"%d" % (self.now // 1000), b"0"]

    def _set(self, key: str, value: str, *options: str) -> bytes | None:
        if "NX" in options and key in self.strings:
            return None
        self.strings[key] = value
        return b"OK"

    def _get(self, key: str) -> bytes | None:
        return self.strings[key].encode() if key in self.strings else None

    def _xinfo(self, _: str, key: str) -> Any:
        if key not in self.streams:
            return ResponseError("no such key")
        entries = self.streams[key]
        fields: list[Any] = [b"length", len(entries), b"last-generated-id", _text(self.last[key])]
        return [*fields, b"entries-added", self.added[key], b"first-entry", entries[0].raw if entries else None]

    def _xread(self, *words: Any) -> list[Any] | None:
        count, names = words[1], words[words.index("STREAMS") + 1 :]
        replies = []
        for key, text in zip(names[: len(names) // 2], names[len(names) // 2 :], strict=True):
            behind = tuple(map(int, text.split("-")))
            found = [entry.raw for entry in self.streams.get(key, ()) if entry.id > behind][:count]
            if found:
                replies.append([key.encode(), found])
        return replies or None


class FakeLink:
    """A connection to a `FakeRedis`, which breaks when it is told to, and lets others act in the middle."""

    client_id = None

    def __init__(self, server: FakeRedis) -> None:
        self._server = server
        self.is_connected = True
        self.breaks = False
        #: What somebody else does before the last of some commands.
        self.meanwhile: Callable[[], None] | None = None

    async def connect(self) -> None:
        self.is_connected = True

    async def ask(self, commands: Sequence[Sequence[Any]], patience: float = 0.0) -> list[Any]:
        replies = [self._server.do(command) for command in commands[:-1]]
        if self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile = None
        replies.append(self._server.do(commands[-1]))
        if self.breaks:
            self.breaks = self.is_connected = False
            raise AwayError("as a test says")
        return replies

    async def wait_until_back(self, error: BaseException) -> None:
        pass


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.server = FakeRedis()
        self.link = FakeLink(self.server)
        link: Any = self.link
        self.reader = Reader(link, self, "me", {}, lambda number: lambda name: True, 3)
        #: What `deliver` and `gap` were called with since it was looked at last.
        self.delivered: dict[str, list[Message]] = {key: [] for key in KEYS}
        self.gaps = 0
        #: The entries of each stream that are to be delivered, and whether some are gone that were not read.
        self.due: dict[str, list[Entry]] = {key: [] for key in KEYS}
        self.is_something_lost = self.is_flushed = False
        #: The highest number that was delivered, by stream.
        self.highest: dict[str, int] = {}
        #: All that a client may know of, and all that it may have missed: none of the latter is in any history.
        self.known: dict[str, list[Message]] = {key: [] for key in KEYS}
        self.holes: dict[str, list[Id]] = {key: [] for key in KEYS}
        self.number = 0
        self.unsure: list[tuple[str, str, int]] = []
        rules = Rules({"*": History(count=4, seconds=1e9)})
        for index, key in enumerate(KEYS):
            epoch, info = looked([self.server.do(command) for command in look_commands(key)])
            self.reader.streams[index] = Stream(index, key, epoch, info, rules, TopicCounters())

    def teardown(self) -> None:
        self.loop.close()

    # What a reader calls

    def deliver(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.delivered[f"s{TOPICS.index(message.topic[0])}"].append(message)

    def gap(self, covers: Callable[[str], bool], why: str) -> None:
        self.gaps += 1

    def names(self) -> list[str]:
        return []

    # What goes on

    @rule(stream=st.sampled_from([0, 1]), topic=st.sampled_from("xy"), count=st.integers(1, 8))
    def publish(self, stream: int, topic: str, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self._add(KEYS[stream], TOPICS[stream] + topic, self.number)
            self.unsure = [*self.unsure[-3:], (KEYS[stream], TOPICS[stream] + topic, self.number)]

    @rule()
    def publish_again_what_was_interrupted(self) -> None:
        # Behind a gap that nobody was told of yet it may come twice: it is new to a stream that is new.
        for key, topic, number in self.unsure if not self.is_flushed else ():
            self._add(key, topic, number)

    def _add(self, key: str, topic: str, number: int) -> None:
        self.due[key].append(self.server.add(key, topic, number))

    def _lose(self, key: str, gone: Sequence[Entry]) -> None:
        unread = [entry for entry in gone if entry in self.due[key]]
        self.due[key] = [entry for entry in self.due[key] if entry not in unread]
        self.holes[key] += [entry.id for entry in unread]
        self.is_something_lost = self.is_something_lost or bool(unread)

    @rule(stream=st.sampled_from([0, 1]), left=st.integers(0, 4))
    def trim(self, stream: int, left: int) -> None:
        entries = self.server.streams.get(KEYS[stream], [])
        gone = entries[: max(0, len(entries) - left)]
        del entries[: len(gone)]
        self._lose(KEYS[stream], gone)

    @rule()
    def lose_everything(self) -> None:
        self.server.flush()
        self.unsure = []
        for key in KEYS:
            self._lose(key, self.due[key])
            self.highest[key] = 0
        self.is_something_lost = self.is_flushed = True

    @rule(stream=st.sampled_from([0, 1]), gone=st.integers(1, 5))
    def go_back_to_older_data(self, stream: int, gone: int) -> None:
        """As a server that crashed, or a replica that was behind."""
        self.read_everything_and_look()
        key, entries = KEYS[stream], self.server.streams.get(KEYS[stream], [])
        self.publish(stream, "x", 2)
        lost = entries[-gone:] if len(entries) > gone else []
        if not lost:
            return
        del entries[-gone:]
        self.server.added[key] -= gone
        self.server.last[key] = entries[-1].id
        # Nobody can know of those that nobody has read.
        self.due[key] = [entry for entry in self.due[key] if entry not in lost]
        self.unsure = []
        self.link.is_connected = False
        if self.server.last[key] < self.reader.streams[stream].last:
            self.is_something_lost = True
            self.highest[key] = 0
        self.read_everything_and_look()

    @rule()
    def break_the_connection(self) -> None:
        self.link.breaks = True

    @rule(stream=st.sampled_from([0, 1]), count=st.integers(1, 9), left=st.integers(0, 4))
    def publish_and_trim_in_the_middle_of_a_read(self, stream: int, count: int, left: int) -> None:
        def meanwhile() -> None:
            self.publish(stream, "x", count)
            self.trim(stream, left)

        self.link.meanwhile = meanwhile

    @rule()
    def a_second_passes(self) -> None:
        self.reader._looked_at = float("-inf")

    @rule()
    def read(self) -> None:
        self.loop.run_until_complete(self.reader.step())
        for stream in self.reader.streams.values():
            self._take(stream)

    def _take(self, stream: Stream) -> None:
        """See what was delivered, and note what that makes of what is due."""
        key, came = stream.key, self.delivered[stream.key]
        self.delivered[key] = []
        self.known[key] += came
        expected = []
        while self.due[key] and self.due[key][0].id <= stream.last:
            entry = self.due[key].pop(0)
            if entry.number > self.highest.get(key, 0):
                self.highest[key] = entry.number
                expected.append((entry.id, entry.topic, str(entry.number)))
        assert [(message.id, message.topic, message.data) for message in came] == expected

    @rule()
    def read_everything_and_look(self) -> None:
        self.link.breaks, self.link.meanwhile = False, None
        while any(self.due.values()) or self.reader._must_look or self._suspects():
            self.read()
        self.a_second_passes()
        self.read()
        assert (self.gaps > 0) is self.is_something_lost
        self.gaps, self.is_something_lost, self.is_flushed = 0, False, False
        for stream in self.reader.streams.values():
            self._histories_are_honest(stream)

    def _suspects(self) -> bool:
        return any(stream.is_suspect for stream in self.reader.streams.values())

    def _histories_are_honest(self, stream: Stream) -> None:
        known = self.known[stream.key]
        for since in known:
            for topic in {message.topic for message in known}:
                missed = stream.recent.missed(topic, since.position, stream.head)
                if missed is not None:
                    assert since.epoch == stream.epoch
                    later = [each for each in known if each.id > since.id and each.topic == topic]
                    assert missed == later
                    assert not [hole for hole in self.holes[stream.key] if hole > since.id]

    @invariant()
    def a_gap_is_told_only_where_something_is_lost(self) -> None:
        assert self.is_something_lost or not self.gaps

    @invariant()
    def who_knows_the_last_message_has_missed_nothing(self) -> None:
        for stream in self.reader.streams.values():
            head = Position(stream.epoch, stream.last)
            assert stream.recent.missed("any", head, stream.head) == []


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=200, stateful_step_count=40)


@pytest.fixture
def model() -> Iterator[Model]:
    """A reader that has looked, and has nothing to read."""
    model = Model()
    model.read_everything_and_look()
    yield model
    model.teardown()


def told(model: Model, reads: int) -> list[int]:
    """Read so often, and return how many gaps were told by then, after each time."""
    counts = []
    for _ in range(reads):
        model.read()
        counts.append(model.gaps)
    return counts


def test_what_may_have_been_trimmed_before_a_read_is_looked_at_with_the_next(model: Model) -> None:
    model.publish(0, "x", 8)
    model.trim(0, 3)
    assert told(model, 2) == [0, 1]


def test_a_gap_is_found_while_more_and_more_comes(model: Model) -> None:
    """There is always something that is not read when the reader looks."""
    model.publish(0, "x", 8)
    model.trim(0, 3)
    model.read()
    for _ in range(3):
        model.publish(0, "x", 1)
        model.publish_and_trim_in_the_middle_of_a_read(0, 1, 4)
        model.read()
    assert model.gaps == 1


def test_a_gap_is_told_once(model: Model) -> None:
    """A new stream of which some was read before the reader looked, and some was not."""
    model.lose_everything()
    model.publish(0, "x", 6)
    model.publish(1, "x", 6)
    assert told(model, 4) == [0, 2, 2, 2]


def test_a_stream_that_is_new_is_read_from_its_beginning(model: Model) -> None:
    """The clock of a new server may be behind that of the one before, and then catches up."""
    model.publish(0, "x", 3)
    model.read_everything_and_look()
    now = model.server.now
    model.lose_everything()
    model.server.now = 0
    model.server.add(KEYS[0], "ax", 10)

    def meanwhile() -> None:
        model.server.now = now + 10
        model.server.add(KEYS[0], "ax", 11)

    model.link.meanwhile, model.link.is_connected = meanwhile, False
    model.known[KEYS[0]].clear()
    for _ in range(2):
        model.loop.run_until_complete(model.reader.step())
    assert [message.data for message in model.delivered[KEYS[0]]] == ["10", "11"]
