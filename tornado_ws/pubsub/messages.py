"""A message of a topic, and its position."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from tornado_ws import envelope
from tornado_ws.connection.writing import DeliveryCounter, SharedMessage, sendable

#: Where a message stands in its stream.
Id = tuple[int, int]

#: Before every message.
BEGINNING: Id = (0, 0)

_TEXT = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,20})-([0-9]{1,20})", re.ASCII)


class Position(NamedTuple):
    """Where a message stands among those of its topic. Positions of one topic and one ``epoch`` are in order.

    ``str()`` of it is text that a URL takes as it is, and that ``subscribe(since=...)`` understands.
    """

    #: Random text that changes when the messages before are lost: with a process, or with the data of a broker.
    epoch: str
    #: Two ints, compared one after the other. A broker's are milliseconds since 1970, and a number within those.
    id: Id

    def __str__(self) -> str:
        return f"{self.epoch}-{self.id[0]}-{self.id[1]}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that `str` has made a text of. Raises ValueError for any other text."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:100]!r} is no position; one is EPOCH-NUMBER-NUMBER")
        return cls(found[1], (int(found[2]), int(found[3])))


class Message:
    """A message of a topic: ``topic`` (str), ``data`` (str, or bytes where it is binary) and ``position``.

    What few messages are asked for is made when one is: most that a process reads are for nobody here.

    :param payload: UTF-8, unless it is binary.
    :param number: its id, or the text of that as a broker has it.
    """

    __slots__ = ("_counter", "_enveloped", "_number", "_shared", "epoch", "exclude", "is_binary", "payload", "topic")

    def __init__(
        self, topic: str, payload: bytes, is_binary: bool, epoch: str, number: Id | bytes, exclude: Any = None
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.is_binary = is_binary
        self.epoch = epoch
        #: The protocol of the connection that does not get it.
        self.exclude = exclude
        self._number = number
        self._shared: SharedMessage | None = None
        self._enveloped: SharedMessage | None = None
        self._counter: DeliveryCounter | None = None

    @classmethod
    def of_shared(cls, topic: str, shared: SharedMessage, position: Position, exclude: Any = None) -> Message:
        """Return a message that is ready to be sent."""
        message = cls(topic, shared.payload, shared.binary, position.epoch, position.id, exclude)
        message._shared = shared
        shared.topic = topic
        return message

    @property
    def data(self) -> str | bytes:
        return self.payload if self.is_binary else self.payload.decode()

    @property
    def id(self) -> Id:
        if isinstance(self._number, bytes):
            self._number = parse_id(self._number)
        return self._number

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.id)

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return len(self.payload) + 500

    @property
    def shared(self) -> SharedMessage:
        """What is sent to those that are subscribed without an envelope: always the same object."""
        if self._shared is None:
            self._shared = SharedMessage(self.payload, self.is_binary)
            self._shared.topic = self.topic
            self._shared.counter = self._counter
        return self._shared

    def enveloped(self) -> SharedMessage:
        """Return what is sent to those that are subscribed with an envelope: always the same object."""
        if self._enveloped is None:
            self._enveloped = sharable(envelope.wrap(self.topic, str(self.position), self.data))
            self._enveloped.topic = self.topic
            self._enveloped.counter = self._counter
        return self._enveloped

    def count_for(self, counter: DeliveryCounter | None) -> None:
        """Have its deliveries counted by ``counter``."""
        self._counter = counter
        for form in (self._shared, self._enveloped):
            if form is not None:
                form.counter = counter

    def __repr__(self) -> str:
        return f"Message({self.topic!r}, {self.data[:40]!r}, {str(self.position)!r})"


def parse_id(text: bytes) -> Id:
    """Return an id from the text that a broker has for it."""
    first, _, second = text.partition(b"-")
    return int(first), int(second)


def sharable(data: Any) -> SharedMessage:
    """Return ``data`` as one message for many: str and dict as text, bytes as binary.

    Raises TypeError for any other type, and UnicodeEncodeError for a str that is no Unicode.
    """
    ready = sendable(data)
    return SharedMessage(ready, not isinstance(ready, str))
