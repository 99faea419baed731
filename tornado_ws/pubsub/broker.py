"""What stands between topics and the broker that carries their messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tornado_ws.connection.writing import SharedMessage
from tornado_ws.pubsub.messages import Message, Position


@dataclass
class TopicCounters:
    """What a `Topics` object has done so far, as ints."""

    #: Messages that were given to `publish`, and those of them that failed.
    published: int = 0
    failed: int = 0
    #: Messages that came from the broker, and how many of them were sent again by a publisher and left out here.
    received: int = 0
    repeated: int = 0
    #: Entries of a stream that are no message.
    invalid: int = 0
    #: Messages given to connections, one for each connection; and those that a write limit kept from one.
    delivered: int = 0
    refused: int = 0
    #: Messages that waited for a slow connection with the policy "latest" and were not sent: a newer one of their
    #: topic came, or the connection or its subscription ended.
    dropped: int = 0
    #: How often messages were lost, how often the broker was away, and how often a connection to it was made anew.
    gaps: int = 0
    outages: int = 0
    reconnects: int = 0


class Lag(NamedTuple):
    """How far a process is behind its broker.

    It is known from the replies that a process reads anyway, a second apart or less: nobody is asked for it.
    """

    #: Messages that wait in the streams that this process reads, all together; None before Redis 7, which counts none.
    messages: int | None
    #: Seconds, by the broker's clock, for which the oldest of them waits.
    seconds: float


class Receiver(Protocol):
    """Who gets what a broker has: a `Topics` object."""

    def deliver(self, messages: Sequence[Message]) -> None:
        """Send ``messages``, which are in the order that everybody has, to who is subscribed here."""

    def gap(self, covers: Callable[[str], bool], why: str) -> None:
        """Messages were lost, of the topics (names and prefixes) that ``covers`` is true of."""

    def names(self) -> Iterable[str]:
        """Return the names and prefixes that somebody here is subscribed to."""


class Broker(Protocol):
    """Carries messages. Names are exact ones, or prefixes with ``*``."""

    async def join(self, name: str) -> None:
        """Begin to give the receiver what is published to ``name``, unless it gets that already."""

    def head(self, topic: str) -> Position:
        """Return the position of what was delivered last in the stream of a topic that was joined."""

    async def recover(self, topic: str, since: Position) -> None:
        """Get hold of what `missed` is to return, where it is not in memory."""

    def missed(self, topic: str, since: Position) -> list[Message] | None:
        """Return the messages of ``topic`` behind ``since`` up to its `head`; None where some of them are lost."""

    def publish(self, topic: str, shared: SharedMessage, exclude: Any) -> asyncio.Future[Position]:
        """Publish. The Future is done when the broker has the message, and fails with `PublishError`."""

    async def enter(self, topic: str, member: str, data: Any) -> None:
        """Note that ``member`` is present, with what the application says of it."""

    def leave(self, topic: str, member: str) -> None:
        """Note that ``member`` is gone."""

    async def presence(self, topic: str) -> dict[str, Any]:
        """Return who is present in all processes, by member."""

    @property
    def is_away(self) -> bool:
        """Whether the broker cannot be reached, or cannot serve now."""

    def lag(self) -> Lag:
        """Return how far this process is behind the broker."""

    async def close(self) -> None:
        """Send what was published, and end."""
