"""A server whose clients are subscribed to the topics ``room/NAME``."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from tests.support import connected, serving, until
from tornado_ws import Subscription, Topics, WebSocketClientConnection, WebSocketHandler


class Room(WebSocketHandler):
    """What the issue shows: subscribed in ``open``, and every message is for all others."""

    def initialize(self, members: Members | None = None) -> None:
        self.members = members

    async def open(self, name: str) -> None:
        assert self.members is not None
        members = self.members
        self.name = f"room/{name}"
        since = self.get_argument("since", None)
        envelope = self.get_argument("envelope", None) is not None
        subscription = await members.topics.subscribe(self, self.name, since=since, envelope=envelope)
        number = int(self.get_argument("number", "0"))
        members.subscribed[number] = self, subscription

    def on_message(self, message: str | bytes) -> None:
        assert self.members is not None
        self.members.topics.publish(self.name, message, exclude=self)


class Members:
    """The two ends of each connection, in the order in which they joined."""

    def __init__(self, topics: Topics, stack: contextlib.AsyncExitStack) -> None:
        self.topics = topics
        self.url = ""
        self.subscribed: dict[int, tuple[WebSocketHandler, Subscription]] = {}
        self._stack = stack
        self._numbers = itertools.count(1)

    @property
    def handlers(self) -> list[WebSocketHandler]:
        return [self.subscribed[number][0] for number in sorted(self.subscribed)]

    @property
    def subscriptions(self) -> list[Subscription]:
        return [self.subscribed[number][1] for number in sorted(self.subscribed)]

    async def join(
        self, name: str, since: Any = None, envelope: bool = False, **options: Any
    ) -> WebSocketClientConnection:
        number = next(self._numbers)
        url = f"{self.url}/{name}?number={number}"
        if since is not None:
            url += f"&since={since}"
        if envelope:
            url += "&envelope=1"
        client = await self._stack.enter_async_context(connected(url, **options))
        await until(lambda: number in self.subscribed)
        return client


@contextlib.asynccontextmanager
async def room(topics: Topics, **attributes: Any) -> AsyncIterator[Members]:
    """Serve a `Room` with ``attributes`` over ``topics``."""
    async with contextlib.AsyncExitStack() as stack:
        members = Members(topics, stack)
        handler = type("SomeRoom", (Room,), attributes)
        members.url = await stack.enter_async_context(serving([(r"/(.*)", handler, {"members": members})], alone=False))
        yield members
