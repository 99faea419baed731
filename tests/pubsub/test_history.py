"""What is kept of a topic, and what is known to be missing: against a model that forgets nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tornado_ws import Envelope, History, Position
from tornado_ws.pubsub.history import RecentMessages, Rules
from tornado_ws.pubsub.messages import BEGINNING, Id, Message, sharable
from tornado_ws.pubsub.names import matches

HISTORIES = {
    "few/*": History(count=2, seconds=1000),
    "few/more": History(count=4, seconds=10),
    "short/*": History(count=1000, seconds=5),
    "small/*": History(count=1000, seconds=1000, bytes=2000),
}
TOPICS = ["few/a", "few/b", "few/more", "short/a", "short/b", "small/a", "small/b", "none"]
SIZE = 500


class Model(RuleBasedStateMachine):
    """A stream of messages that come, with time that passes: what a client may be told, and what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.recent = RecentMessages(Rules(HISTORIES), clock=lambda: self.now)
        self.every: list[tuple[Message, float]] = []
        self.last = 0

    @rule(topic=st.sampled_from(TOPICS), size=st.integers(0, 3 * SIZE), gap=st.integers(1, 3))
    def publish(self, topic: str, size: int, gap: int) -> None:
        self.last += gap
        message = Message.of_shared(topic, sharable("x" * size), Position("a", (self.last, 0)))
        self.every.append((message, self.now))
        self.recent.append(message)

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.recent.expire()

    @rule(begin=st.integers(0, 30))
    @precondition(lambda self: self.every)
    def refill_from_the_stream(self, begin: int) -> None:
        """As a process does that began to read in the middle, and now reads what was before."""
        begin = min(begin, self.last)
        older = [(message, at) for message, at in self.every if message.id > (begin, 0)]
        self.recent.refill(older, (begin, 0))
        self.began = begin

    @invariant()
    def what_is_said_to_be_complete_is_complete(self) -> None:
        for topic in TOPICS:
            published = [message for message, _ in self.every if message.topic == topic]
            for since in range(self.last + 2):
                if self.recent.covers(topic, (since, 0)):
                    missed = [message for message in published if message.id > (since, 0)]
                    assert self.recent.after(topic, (since, 0)) == missed

    @invariant()
    def what_is_within_the_limits_is_there(self) -> None:
        for topic in ("few/a", "few/more", "short/a"):
            limits = next(each for pattern, each in sorted(HISTORIES.items(), reverse=True) if matches(pattern, topic))
            own = [(message, at) for message, at in self.every if message.topic == topic][-limits.count :]
            young = [message for message, at in own if at + limits.seconds > self.now]
            here = self.recent.after(topic, (getattr(self, "began", 0), 0))
            expected = [message for message in young if message.id > (getattr(self, "began", 0), 0)]
            assert here[len(here) - len(expected) :] == expected
            assert len(here) <= limits.count

    @invariant()
    def memory_is_bounded(self) -> None:
        sizes = [shelf.size for pattern, shelf in self.recent._shelves.items() if pattern == "small/*"]
        assert not sizes or sizes[0] <= 2000
        for shelf in self.recent._shelves.values():
            assert shelf.size == sum(each.size for topic in shelf._topics.values() for each in topic.messages)
            assert len(shelf._order) <= 2 * len(shelf) + 101


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30)


def test_a_topic_has_the_history_of_its_name_or_else_of_the_longest_prefix() -> None:
    rules = Rules({"*": History(1), "a/*": History(2), "a/b*": History(3), "a/b": History(4)})
    found = {topic: rules.of(topic) for topic in ("x", "a/x", "a/bc", "a/b")}
    assert {topic: each and each[1].count for topic, each in found.items()} == {"x": 1, "a/x": 2, "a/bc": 3, "a/b": 4}
    assert Rules(None).of("a") is None


def test_what_is_dropped_for_its_count_does_not_pile_up() -> None:
    recent = RecentMessages(Rules({"*": History(count=1, seconds=1e6)}))
    recent.append(Message.of_shared("slow", sharable("x"), Position("a", (1, 0))))
    for number in range(2, 5000):
        recent.append(Message.of_shared("fast", sharable("x"), Position("a", (number, 0))))
    assert len(recent) == 2
    assert all(len(shelf._order) < 300 for shelf in recent._shelves.values())


@given(st.text("0123456789abcdef", min_size=1, max_size=12), st.tuples(st.integers(0, 10**18), st.integers(0, 10**6)))
def test_a_position_is_text_and_back(epoch: str, number: Id) -> None:
    assert Position.parse(str(Position(epoch, number))) == Position(epoch, number)


@pytest.mark.parametrize("text", ["", "a", "a-1", "a-1-", "-1-1", "a-1-1-1", "A-1-1", "a-\u0661-1", "a-1-1\n", "g-1-1"])
def test_other_text_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match="no position"):
        Position.parse(text)


@given(st.text(min_size=1, max_size=50), st.text(max_size=50) | st.binary(max_size=50))
def test_what_is_put_into_an_envelope_comes_out(topic: str, data: Any) -> None:
    message = Message.of_shared(topic, sharable(data), Position("ab", (1, 2)))
    form = message.enveloped()
    assert form is message.enveloped()
    assert Envelope.of(form.message) == (topic, "ab-1-2", data)


@pytest.mark.parametrize(
    "message", ["", "{}", "[]", '{"topic": "a", "position": 1, "data": ""}', b"", b"\1", b"\2\0\0"]
)
def test_what_is_in_no_envelope_is_said(message: Any) -> None:
    with pytest.raises(ValueError, match=r"envelope|Expecting value"):
        Envelope.of(message)


@given(st.binary(max_size=40))
def test_bytes_of_others_are_in_an_envelope_or_not(data: bytes) -> None:
    try:
        found = Envelope.of(bytes([1]) + data)
    except ValueError:
        return
    assert isinstance(found.data, bytes)


def test_before_every_message_is_the_beginning() -> None:
    assert RecentMessages(Rules({"*": History()})).covers("a", BEGINNING)
