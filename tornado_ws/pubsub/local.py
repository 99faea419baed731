"""The broker of one process: nothing leaves it."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from tornado_ws.connection.writing import SharedMessage
from tornado_ws.pubsub.broker import Lag, Receiver
from tornado_ws.pubsub.history import RecentMessages, Rules
from tornado_ws.pubsub.members import Members
from tornado_ws.pubsub.messages import Message, Position


class LocalBroker:
    """Delivers what was published in a turn of the loop when the turn ends, so that it leaves in one write each."""

    def __init__(self, receiver: Receiver, rules: Rules) -> None:
        self._receiver = receiver
        #: The positions of a process end with it.
        self._epoch = secrets.token_hex(6)
        self._last = 0
        self._recent = RecentMessages(rules)
        self._waiting: list[Message] = []
        self._present = Members()

    async def join(self, name: str) -> None:
        # What was published before is not for who subscribes now.
        self._flush()

    def head(self, topic: str) -> Position:
        return Position(self._epoch, (self._last, 0))

    async def recover(self, topic: str, since: Position) -> None:
        """Do nothing: what is not in memory is nowhere."""

    def missed(self, topic: str, since: Position) -> list[Message] | None:
        return self._recent.missed(topic, since, self.head(topic))

    def publish(self, topic: str, shared: SharedMessage, exclude: Any) -> asyncio.Future[Position]:
        loop = asyncio.get_running_loop()
        self._last += 1
        position = Position(self._epoch, (self._last, 0))
        message = Message.of_shared(topic, shared, position, exclude)
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append(message)
        self._recent.append(message)
        published: asyncio.Future[Position] = loop.create_future()
        published.set_result(position)
        return published

    def _flush(self) -> None:
        messages, self._waiting = self._waiting, []
        if messages:
            self._receiver.deliver(messages)

    async def enter(self, topic: str, member: str, data: Any) -> None:
        self._present.enter(topic, member, data)

    def leave(self, topic: str, member: str) -> None:
        self._present.leave(topic, member)

    async def presence(self, topic: str) -> dict[str, Any]:
        return dict(self._present.of(topic))

    @property
    def is_away(self) -> bool:
        return False

    def lag(self) -> Lag:
        return Lag(0, 0.0)

    async def close(self) -> None:
        self._flush()
