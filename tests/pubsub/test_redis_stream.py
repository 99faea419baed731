"""What a reader makes of a stream: against a model of a broker that is cut off, trimmed, restarted and set back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from redis.exceptions import ResponseError

from tornado_ws import History
from tornado_ws.pubsub.broker import TopicCounters
from tornado_ws.pubsub.history import Rules
from tornado_ws.pubsub.messages import Id, Message
from tornado_ws.pubsub.redis_stream import Info, Stream, before

TOPICS = ["a", "b"]


def text(number: Id) -> bytes:
    return b"%d-%d" % number


class Model(RuleBasedStateMachine):
    """One stream of a broker, and a process that reads it now and then.

    What was read has to be what was published since the last gap, or since the beginning: all of it, once, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch = "0"
        self.entries: list[tuple[Id, bytes, int]] = []
        self.added = 0
        self.time = 1
        self.number = 0
        self.unsure: list[tuple[bytes, int]] = []
        self.stream = Stream(
            0, "key", self.epoch, self.info(), Rules({"*": History(count=5, seconds=1e9)}), TopicCounters()
        )
        #: Whether entries are gone that were not read.
        self.is_something_lost = False
        #: The highest number that a reader has had, or is to have.
        self.highest = 0
        #: What a reader without a gap has had by now, and what it has had.
        self.expected: list[int] = []
        self.got: list[int] = []
        self.delivered: list[Message] = []

    def info(self) -> Info:
        if not self.added:
            return Info(ResponseError("no such key"))
        last = text((self.time, 0))
        fields: list[Any] = [b"length", len(self.entries), b"last-generated-id", last, b"entries-added", self.added]
        return Info([*fields, b"first-entry", [text(self.entries[0][0]), []] if self.entries else None])

    def _add(self, topic: bytes, number: int) -> None:
        self.time += 1
        self.added += 1
        self.entries.append(((self.time, 0), topic, number))

    @rule(topic=st.sampled_from([b"a", b"b"]), count=st.integers(1, 5))
    def publish(self, topic: bytes, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self._add(topic, self.number)
            self.unsure = [*self.unsure[-3:], (topic, self.number)]
            self.highest = self.number
            self.expected.append(self.number)

    @rule()
    def publish_again_what_was_interrupted(self) -> None:
        for topic, number in self.unsure:
            self._add(topic, number)
            if number > self.highest:
                self.highest = number
                self.expected.append(number)

    @rule(left=st.integers(0, 6))
    def trim(self, left: int) -> None:
        gone = self.entries[: max(0, len(self.entries) - left)]
        self.entries = self.entries[len(gone) :]
        self.is_something_lost = self.is_something_lost or any(at > self.stream.last for at, _, _ in gone)

    @rule()
    def lose_everything(self) -> None:
        self.epoch = f"{int(self.epoch, 16) + 1:x}"
        self.entries, self.added, self.highest = [], 0, 0
        self.is_something_lost = True

    @rule(most=st.integers(1, 10))
    def read(self, most: int) -> None:
        said = self.stream.check(self.epoch, self.info())
        assert (said is not None) is self.is_something_lost
        if said is not None:
            # Whoever is told so begins anew with what there is.
            self.is_something_lost = False
            self.got.clear()
            self.delivered.clear()
            self.expected = self.numbers()
            self.highest = max([self.stream._numbers.get(b"x", 0), *self.expected])
        waiting = [entry for entry in self.entries if entry[0] > self.stream.last][:most]
        raws = [[text(at), [b"t", topic, b"m", b"%d" % n, b"o", b"x", b"n", b"%d" % n]] for at, topic, n in waiting]
        messages = self.stream.take(raws, b"own")
        self.got += [int(message.data) for message in messages]
        self.delivered += messages

    def numbers(self) -> list[int]:
        """Return the numbers that are to be read yet, each once."""
        found: list[int] = []
        highest = self.stream._numbers.get(b"x", 0)
        for at, _, number in self.entries:
            if at > self.stream.last and number > highest:
                found.append(number)
                highest = number
        return found

    @invariant()
    def what_was_read_is_what_was_published(self) -> None:
        assert self.got == self.expected[: len(self.got)]

    @invariant()
    def histories_are_complete_where_they_say_so(self) -> None:
        for topic in TOPICS:
            for message in self.delivered:
                if self.stream.recent.covers(topic, message.id):
                    later = [each for each in self.delivered if each.id > message.id and each.topic == topic]
                    assert self.stream.recent.after(topic, message.id) == later


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def entry(number: int) -> list[Any]:
    return [text((number, 0)), [b"t", b"a", b"m", b"x"]]


def info(length: int, last: int, added: int | None, first: int | None) -> Info:
    fields: list[Any] = [b"length", length, b"last-generated-id", text((last, 0))]
    if added is not None:
        fields += [b"entries-added", added]
    return Info([*fields, b"first-entry", [text((first, 0)), []] if first is not None else None])


@pytest.mark.parametrize(
    ("now", "lost"),
    [
        # Read up to 5, the fifth entry.
        (info(5, 5, 5, 1), None),
        (info(3, 8, 8, 6), None),
        (info(0, 5, 5, None), None),
        (info(2, 8, 8, 7), "trimmed"),
        (info(0, 8, 8, None), "trimmed"),
        (info(4, 4, 4, 1), "older data"),
        # A broker before Redis 7: where the last one read is gone, nobody knows.
        (info(3, 8, None, 6), "trimmed"),
        (info(4, 8, None, 5), None),
        (info(0, 5, None, None), None),
    ],
)
def test_what_is_a_gap(now: Info, lost: str | None) -> None:
    stream = Stream(0, "key", "e", info(0, 0, 0, None), Rules(None), TopicCounters())
    stream.take([entry(number) for number in range(1, 6)], b"")
    said = stream.check("e", now)
    assert said is None if lost is None else lost in str(said)
    if lost is not None:
        # It is said once.
        assert stream.check(stream.epoch, now) is None


def test_the_id_before_one_is_below_it_and_nothing_is_between() -> None:
    assert before((5, 1)) == (5, 0)
    assert before((5, 0)) == (4, 2**64 - 1)
