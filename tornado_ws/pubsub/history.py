"""Recent messages of topics, in memory: what those who come back have missed.

Messages of one stream come in the order of their ids. For each topic it is known since which id nothing of it is
missing here, the *floor*: a message that is dropped lifts it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tornado_ws.pubsub.messages import BEGINNING, Id, Message, Position
from tornado_ws.pubsub.names import ByPattern


@dataclass(frozen=True)
class History:
    """How many messages of a topic are kept, and for how long."""

    #: At most so many messages of each topic.
    count: int = 100
    #: Not longer than so many seconds.
    seconds: float = 300.0
    #: At most so many bytes of memory for all topics of the pattern together, in each stream of each process.
    bytes: int = 64 << 20


class Rules:
    """Which `History` a topic has: an exact name wins, then the longest prefix."""

    def __init__(self, histories: Mapping[str, History] | None) -> None:
        given = histories or {}
        #: Returns the pattern that decides about a topic, and what it says; None where nothing is kept.
        self.of = ByPattern(given).of
        for pattern, history in given.items():
            _check(pattern, history)
        self.seconds = max((history.seconds for history in given.values()), default=0.0)


def _check(pattern: str, history: object) -> None:
    if not isinstance(history, History):
        raise TypeError(f"history of {pattern!r} is {history!r}; it has to be a History")
    for name, least in (("count", 1), ("seconds", 0), ("bytes", 1)):
        value = getattr(history, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
            raise ValueError(f"{name} of the history of {pattern!r} is {value!r}; allowed is a number from {least} on")


class _Topic:
    __slots__ = ("floor", "messages")

    def __init__(self, floor: Id) -> None:
        self.floor = floor
        self.messages: deque[Message] = deque()


class _Kept(NamedTuple):
    at: float
    message: Message


class _Shelf:
    """The topics of one pattern: they have the same limits, so that what is oldest comes first."""

    def __init__(self, limits: History, floor: Id) -> None:
        self._limits = limits
        self._topics: dict[str, _Topic] = {}
        self._order: deque[_Kept] = deque()
        #: How many of `_order` are dropped already, since their topic had too many.
        self._dropped = 0
        self.size = 0
        #: The floor of topics that have no messages here.
        self.floor = floor

    def __len__(self) -> int:
        return len(self._order) - self._dropped

    def floor_of(self, topic: str) -> Id:
        found = self._topics.get(topic)
        return found.floor if found is not None else self.floor

    def after(self, topic: str, since: Id) -> list[Message]:
        found = self._topics.get(topic)
        if found is None:
            return []
        missed = []
        for message in reversed(found.messages):
            if message.id <= since:
                break
            missed.append(message)
        missed.reverse()
        return missed

    def append(self, message: Message, at: float) -> None:
        topic = self._topics.get(message.topic)
        if topic is None:
            topic = self._topics[message.topic] = _Topic(self.floor)
        topic.messages.append(message)
        self._order.append(_Kept(at, message))
        self.size += message.size
        if len(topic.messages) > self._limits.count:
            self._drop_first(message.topic)
            self._dropped += 1
            if self._dropped > 100 and self._dropped > len(self):
                self._compact()

    def expire(self, now: float) -> None:
        while self._order:
            at, message = self._order[0]
            is_dropped = message.id <= self.floor_of(message.topic)
            if not (is_dropped or at + self._limits.seconds <= now or self.size > self._limits.bytes):
                break
            self._order.popleft()
            if is_dropped:
                self._dropped -= 1
            else:
                self._drop_first(message.topic)

    def _drop_first(self, name: str) -> None:
        topic = self._topics[name]
        dropped = topic.messages.popleft()
        self.size -= dropped.size
        topic.floor = dropped.id
        if not topic.messages:
            del self._topics[name]
            self.floor = max(self.floor, topic.floor)

    def _compact(self) -> None:
        self._order = deque(kept for kept in self._order if kept.message.id > self.floor_of(kept.message.topic))
        self._dropped = 0


class RecentMessages:
    """The recent messages of one stream, or of one process.

    :param rules: what is kept of which topic.
    :param floor: the id behind which every message is given to `append`.
    :param clock: the time in seconds.
    """

    def __init__(self, rules: Rules, floor: Id = BEGINNING, clock: Callable[[], float] = time.time) -> None:
        self._rules = rules
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}
        self.floor = floor

    def __len__(self) -> int:
        return sum(len(shelf) for shelf in self._shelves.values())

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return sum(shelf.size for shelf in self._shelves.values())

    def append(self, message: Message, at: float | None = None) -> None:
        """Keep a message, which was published ``at`` that time, now by default. Its id is above all before."""
        shelf = self._shelf_of(message.topic)
        if shelf is not None:
            now = self._clock()
            shelf.append(message, now if at is None else at)
            shelf.expire(now)

    def covers(self, topic: str, since: Id) -> bool:
        """Whether no message of ``topic`` behind ``since`` is missing here."""
        shelf = self._shelf_of(topic)
        if shelf is None:
            return False
        shelf.expire(self._clock())
        return since >= shelf.floor_of(topic)

    def after(self, topic: str, since: Id) -> list[Message]:
        """Return the messages of ``topic`` behind ``since`` that are here, in order."""
        shelf = self._shelf_of(topic)
        return shelf.after(topic, since) if shelf is not None else []

    def missed(self, topic: str, since: Position, head: Position) -> list[Message] | None:
        """Return the messages of ``topic`` behind ``since`` up to ``head``; None where some of them are not known."""
        if since.epoch != head.epoch or since.id > head.id:
            return None
        if since.id == head.id:
            return []
        return self.after(topic, since.id) if self.covers(topic, since.id) else None

    def expire(self) -> None:
        """Drop what is too old."""
        for shelf in self._shelves.values():
            shelf.expire(self._clock())

    def refill(self, older: Iterable[tuple[Message, float]], floor: Id) -> None:
        """Begin anew at ``floor``: with ``older`` messages and when they were published, and behind them what is here.

        ``older`` may have what is here too.
        """
        kept = [each for shelf in self._shelves.values() for each in shelf._order]
        kept = [each for each in kept if each.message.id > self.floor_of(each.message.topic)]
        every = {message.id: (message, at) for message, at in older}
        every.update((each.message.id, (each.message, each.at)) for each in kept)
        self._shelves.clear()
        self.floor = floor
        for number in sorted(every):
            if number > floor:
                self.append(*every[number])

    def floor_of(self, topic: str) -> Id:
        """Return the id behind which no message of ``topic`` is missing here."""
        shelf = self._shelf_of(topic)
        return shelf.floor_of(topic) if shelf is not None else self.floor

    def _shelf_of(self, topic: str) -> _Shelf | None:
        found = self._rules.of(topic)
        if found is None:
            return None
        pattern, limits = found
        shelf = self._shelves.get(pattern)
        if shelf is None:
            shelf = self._shelves[pattern] = _Shelf(limits, self.floor)
        return shelf
