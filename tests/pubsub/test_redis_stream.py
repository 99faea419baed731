"""What a process makes of one stream."""

from __future__ import annotations

from typing import Any

import pytest

from tornado_ws.pubsub import redis_stream
from tornado_ws.pubsub.broker import TopicCounters
from tornado_ws.pubsub.history import Rules
from tornado_ws.pubsub.messages import Id
from tornado_ws.pubsub.redis_stream import Info, Stream, before


def text(number: Id) -> bytes:
    return b"%d-%d" % number


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


def numbered(number: int, origin: bytes) -> list[Any]:
    return [text((number, 0)), [b"t", b"a", b"m", b"%d" % number, b"o", origin, b"n", b"%d" % number]]


def stream_of_nothing() -> Stream:
    return Stream(0, "key", "e", info(0, 0, 0, None), Rules(None), TopicCounters())


def test_of_many_publishers_those_that_came_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_stream, "MOST_ORIGINS", 2)
    stream = stream_of_nothing()
    origins = [b"one", b"two", b"three"]
    assert len(stream.take([numbered(1, origin) for origin in origins], b"")) == 3
    assert [len(stream.take([numbered(1, origin)], b"")) for origin in (b"three", b"two", b"one")] == [0, 0, 1]


def test_an_exclusion_whose_message_never_came_does_not_stay() -> None:
    stream = stream_of_nothing()
    stream.excluded = {1: "first", 2: "second", 3: "third"}
    assert [message.exclude for message in stream.take([numbered(2, b"own")], b"own")] == ["second"]
    assert stream.excluded == {3: "third"}
