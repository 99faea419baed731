"""What a process knows of one stream: how far it has read, what is recent, and whether anything was lost."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError
from tornado.log import gen_log

from tornado_ws.pubsub.broker import Lag, TopicCounters
from tornado_ws.pubsub.history import RecentMessages, Rules
from tornado_ws.pubsub.messages import BEGINNING, Id, Message, Position, parse_id
from tornado_ws.pubsub.wire import fields_of, parse_entry


class Info:
    """What XINFO says of a stream; one that there is not has nothing in it."""

    def __init__(self, reply: Any) -> None:
        self.exists = not isinstance(reply, ResponseError)
        if not self.exists and "no such key" not in str(reply).lower():
            raise reply
        fields = fields_of(reply) if self.exists else {}
        self.length = int(fields.get(b"length", 0))
        self.last = parse_id(fields.get(b"last-generated-id", b"0-0"))
        #: How many entries the stream ever had; None before Redis 7.
        self.added: int | None = fields.get(b"entries-added") if self.exists else 0
        entry = fields.get(b"first-entry")
        self.first: Id | None = parse_id(entry[0]) if entry else None

    @property
    def trimmed(self) -> int:
        """How many entries are in the stream no more."""
        return (self.added or 0) - self.length


class Stream:
    """One stream, from when it is read on."""

    def __init__(self, number: int, key: str, epoch: str, info: Info, rules: Rules, counters: TopicCounters) -> None:
        self.number = number
        self.key = key
        self.epoch = epoch
        #: The id of the last entry that was delivered, and how many there were up to it.
        self.last = info.last
        self.count = info.added
        self.recent = RecentMessages(rules, self.last)
        #: Whether what was in the stream before is in `recent` too.
        self.is_refilled = False
        #: When nobody was subscribed any more, by the loop's clock.
        self.idle_since: float | None = None
        #: Who does not get the messages of this process with these numbers.
        self.excluded: dict[int, Any] = {}
        #: The last entry that there was when the broker was asked, and how many there were up to it: as many have to be
        #: counted when that one is read.
        self._due: tuple[Id, int] | None = None
        #: Whether the last reply had as much as one may have: more waits.
        self.has_more = False
        #: Whether something may be lost that was not looked for.
        self.is_suspect = False
        #: How many entries there were, and the broker's time, when it was asked last.
        self._added = info.added
        self._asked_at = 0.0
        self._rules = rules
        self._counters = counters
        #: The last number of each origin.
        self._numbers: dict[bytes, int] = {}
        self._head: Position | None = None

    @property
    def head(self) -> Position:
        """The position of the last entry that was delivered: one object for all that ask in between."""
        if self._head is None or self._head.id != self.last or self._head.epoch != self.epoch:
            self._head = Position(self.epoch, self.last)
        return self._head

    # What was lost

    def check(self, epoch: str, info: Info, now: float = 0.0) -> str | None:
        """Compare with what the broker has ``now``, before anything more is read; return what was lost, if anything."""
        self._added, self._asked_at, self.is_suspect = info.added, now, False
        if epoch != self.epoch:
            self.epoch = epoch
            if info.first is not None and info.first <= self.last <= info.last:
                # What is new was read already, before anybody looked.
                self._go_to(self.last, info.added)
                self._expect(info)
            else:
                self._numbers.clear()
                self._go_to_first(info)
            return "the broker has lost its data"
        if info.last < self.last:
            # Older data, with the old epoch. All processes that see it make the same new one.
            self.epoch = hashlib.sha256(epoch.encode()).hexdigest()[:12]
            self._numbers.clear()
            self._go_to(info.last, info.added)
            return "the broker has gone back to older data"
        if self._is_trimmed_beyond(info):
            self._go_to_first(info)
            return TRIMMED
        if info.added is not None and info.last == self.last:
            return self._settle(self.last, info.added)
        self._expect(info)
        return None

    def _expect(self, info: Info) -> None:
        if info.added is not None:
            self._due = info.last, info.added

    def check_read(self, raws: Sequence[Any]) -> str | None:
        """Count raw entries that were read behind `last`, before they are taken; return what was lost, if anything.

        What is trimmed just before a read is not in it, and `check` may have been before that, or not at all.
        """
        if self._due is None or self.count is None:
            return None
        last, added = self._due
        if parse_id(raws[-1][0]) < last:
            return None
        self._due = None
        return self._settle(before(parse_id(raws[0][0])), added - sum(parse_id(raw[0]) <= last for raw in raws))

    def _settle(self, last: Id, count: int) -> str | None:
        """There are ``count`` entries up to ``last``, and none of them is to be read any more."""
        known, self.count = self.count, count
        if known is None or known >= count:
            return None
        self._go_to(last, count)
        return TRIMMED

    def _go_to_first(self, info: Info) -> None:
        """Go on with the first entry that there is."""
        count = info.trimmed if info.added is not None else None
        self._go_to(before(info.first) if info.first is not None else info.last, count)

    def _go_to(self, last: Id, count: int | None) -> None:
        self.last, self.count, self.has_more, self._due = last, count, False, None
        self.recent = RecentMessages(self._rules, last)
        self.is_refilled = False
        self.excluded.clear()

    def _is_trimmed_beyond(self, info: Info) -> bool:
        if info.last == self.last or (info.first is not None and before(info.first) <= self.last):
            return False
        if info.added is not None and self.count is not None:
            return info.trimmed > self.count
        # Before Redis 7 nobody knows what was between the last entry and the first that there is.
        return self.last != BEGINNING or info.first is None

    def lag(self) -> Lag:
        """Return what waited when the broker was asked last, and is not read yet."""
        waiting = None if self._added is None or self.count is None else max(self._added - self.count, 0)
        if not self.has_more or waiting == 0:
            return Lag(0, 0.0)
        return Lag(waiting, max(self._asked_at - self.last[0] / 1000, 0.0))

    # What comes

    def take(self, raws: Sequence[Any], own: bytes) -> list[Message]:
        """Return the messages of raw entries that were read behind `last`; ``own`` is the origin of this process."""
        messages: list[Message] = []
        keep = self.recent.append
        for raw in raws:
            entry = self._parse(raw)
            if entry is None:
                continue
            topic, data, is_binary, origin, number = entry
            if origin and not self._is_new(origin, number):
                continue
            message = Message(topic, data, is_binary, self.epoch, raw[0])
            if self.excluded and origin == own:
                message.exclude = self._take_excluded(number)
            messages.append(message)
            keep(message)
        if raws:
            self.last = parse_id(raws[-1][0])
            self.count = None if self.count is None else self.count + len(raws)
        return messages

    def _parse(self, raw: Any) -> tuple[str, bytes, bool, bytes, int] | None:
        try:
            return parse_entry(raw[1])
        except (ValueError, TypeError) as error:
            self._counters.invalid += 1
            gen_log.warning("Topics: an entry of stream %s is no message: %s: %.100r", self.key, error, raw[0])
            return None

    def _is_new(self, origin: bytes, number: int) -> bool:
        """Whether this is not a message that its publisher has sent again."""
        last = self._numbers.get(origin)
        if last is not None and number <= last:
            self._counters.repeated += 1
            return False
        if last is None and len(self._numbers) >= MOST_ORIGINS:
            del self._numbers[next(iter(self._numbers))]
        self._numbers[origin] = number
        return True

    def _take_excluded(self, number: int) -> Any:
        excluded = self.excluded.pop(number, None)
        # What comes before it failed, or nobody knows.
        for older in [each for each in self.excluded if each < number]:
            del self.excluded[older]
        return excluded

    def older_of(self, raws: Sequence[Any]) -> list[tuple[Message, float]]:
        """Return the messages of raw entries from before this process began to read, and when they were published."""
        numbers: dict[bytes, int] = {}
        older: list[tuple[Message, float]] = []
        for raw in raws:
            entry = self._parse(raw)
            if entry is None:
                continue
            topic, data, is_binary, origin, number = entry
            if origin:
                if number <= numbers.get(origin, -1):
                    continue
                numbers[origin] = number
            message = Message(topic, data, is_binary, self.epoch, raw[0])
            older.append((message, message.id[0] / 1000))
        return older


TRIMMED = "the stream was trimmed beyond what was read"

#: Of how many publishers a process keeps the last number, in each stream.
MOST_ORIGINS = 10_000


def before(number: Id) -> Id:
    """Return the id before ``number``."""
    return (number[0], number[1] - 1) if number[1] else (number[0] - 1, 2**64 - 1)
