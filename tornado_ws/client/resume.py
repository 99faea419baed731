"""Going on where the connection before has ended: which positions a client has, and messages that bring them."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

from tornado.concurrent import Future
from tornado.httpclient import HTTPRequest
from tornado.log import gen_log

from tornado_ws.client.connection import WebSocketClientConnection
from tornado_ws.engine.encoding import Sendable
from tornado_ws.envelope import Beginning, Envelope, join_positions, take_apart
from tornado_ws.errors import TopicGapError
from tornado_ws.escaping import shown

if TYPE_CHECKING:
    from typing_extensions import Self

#: Topics of which a server may have a client keep the position, and characters of one.
MOST_TOPICS = 100
MOST_CHARACTERS = 1024


class Resume:
    """What a client has of each topic, over all its connections: for ``reconnect(url, resume=...)``.

    :param positions: those to begin with, by topic, as a program had them in `positions` when it was stopped. None by
        default: the first connection begins with what is published from then on.
    :param argument: the argument of the URL's query that tells the server ("since").
    :raises TypeError: for anything but texts.
    """

    def __init__(self, positions: Mapping[str, str] | None = None, *, argument: str = "since") -> None:
        #: The position of the last message of each topic that the application got, both as str: opaque text, to be
        #: kept by a program that is to go on after it was stopped.
        self.positions: dict[str, str] = dict(positions or {})
        if not all(isinstance(text, str) for text in (argument, *self.positions, *self.positions.values())):
            raise TypeError("argument, topics and positions have to be of type str")
        self.argument = argument
        self._is_full = False

    def check(self, url: str | HTTPRequest) -> None:
        """Raise ValueError for a URL that has the argument already."""
        query = urlsplit(url if isinstance(url, str) else url.url).query
        if any(name == self.argument for name, _ in parse_qsl(query, keep_blank_values=True)):
            raise ValueError(f"the URL has an argument {shown(self.argument)} already; resume is to add it")

    def request(self, url: str | HTTPRequest) -> str | HTTPRequest:
        """Return ``url`` with the positions in its query, where the server's handler finds them."""
        if isinstance(url, str):
            return self._with_positions(url)
        request = copy.copy(url)
        request.url = self._with_positions(url.url)
        return request

    def _with_positions(self, url: str) -> str:
        base, mark, fragment = url.partition("#")
        argument = f"{quote(self.argument)}={quote(join_positions(self.positions), safe='')}"
        return f"{base}{'&' if '?' in base else '?'}{argument}{mark}{fragment}"

    def note(self, topic: str, position: str) -> None:
        """Take down that everything of ``topic`` up to ``position`` has reached the application."""
        if len(topic) > MOST_CHARACTERS or len(position) > MOST_CHARACTERS:
            return
        if topic in self.positions or len(self.positions) < MOST_TOPICS:
            self.positions[topic] = position
        elif not self._is_full:
            self._is_full = True
            gen_log.warning("Resuming: a server has more than %d topics; no more positions are kept", MOST_TOPICS)


class ResumedConnection:
    """A connection of `reconnect` with ``resume``: its messages are `Envelope` objects.

    ``async for message in conn`` ends, and raises `WebSocketClosedError`, as with a `WebSocketClientConnection`. That
    one is ``connection``, for all that is not here.
    """

    def __init__(self, connection: WebSocketClientConnection, resume: Resume) -> None:
        self.connection = connection
        self._resume = resume

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Envelope:
        """Return the next message.

        :raises TopicGapError: when the server does not have all that was missed of a topic: what the application knows
            of it has to be had in another way. The next message is one behind the gap.
        :raises StopAsyncIteration, WebSocketClosedError: as `.WebSocketClientConnection.__anext__`.
        """
        while True:
            message = self._taken(await self.connection.__anext__())
            if message is not None:
                return message

    async def read_message(self) -> Envelope | None:
        """Return the next message, None when the connection is closed. Raises TopicGapError as `__anext__` does."""
        while True:
            raw = await self.connection.read_message()
            message = self._taken(raw) if raw is not None else None
            if raw is None or message is not None:
                return message

    def _taken(self, raw: str | bytes) -> Envelope | None:
        """Return what the application gets now, if anything; only then the position is its own."""
        try:
            message = take_apart(raw)
        except ValueError:
            return Envelope("", "", raw)
        if isinstance(message, Envelope):
            # Others the server cannot resume, such as those of a prefix: it has not said where they begin.
            if message.topic in self._resume.positions:
                self._resume.note(message.topic, message.position)
            return message
        self._begin(message)
        return None

    def _begin(self, beginning: Beginning) -> None:
        had = beginning.topic in self._resume.positions
        self._resume.note(beginning.topic, beginning.position)
        if had and not beginning.recovered:
            raise TopicGapError(f"the server does not have all that was missed of topic {shown(beginning.topic)}")

    def write_message(self, message: Sendable, binary: bool = False) -> Future[None]:
        """Send a message to the server; all is as in `.WebSocketHandler.write_message`."""
        return self.connection.write_message(message, binary)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the connection; all is as in `.WebSocketHandler.close`."""
        self.connection.close(code, reason)

    def wait_closed(self) -> Awaitable[None]:
        """Wait until the connection is closed; all is as in `.WebSocketClientConnection.wait_closed`."""
        return self.connection.wait_closed()

    @property
    def close_code(self) -> int | None:
        return self.connection.close_code

    @property
    def close_reason(self) -> str | None:
        return self.connection.close_reason
