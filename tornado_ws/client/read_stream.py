"""What `read_stream()` returns: the next message of a client connection, in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

from tornado_ws.connection.message_stream import MessageStream
from tornado_ws.errors import WebSocketClosedError

if TYPE_CHECKING:
    from typing_extensions import Self


class StreamReading:
    """The next message, as a loop over its parts or, awaited, as a `MessageStream`; None at the end of the connection.

    A loop that finds the end of the connection in the place of a message raises `WebSocketClosedError`: one that ended
    would stand for an empty message.
    """

    def __init__(self, take: Callable[[], Awaitable[MessageStream | None]]) -> None:
        self._take = take
        self._stream: MessageStream | None = None

    def __await__(self) -> Generator[Any, None, MessageStream | None]:
        return self._take().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next part. Raises StopAsyncIteration behind the last one, and what `.MessageStream.read` does."""
        if self._stream is None:
            self._stream = await self._take()
            if self._stream is None:
                raise WebSocketClosedError("connection is closed, and there is no message")
        part: str | bytes = await self._stream.__anext__()
        return part


class StreamQueue:
    """The messages of a client that reads them in parts, over the queue that has their streams."""

    def __init__(self, get: Callable[[], Awaitable[Any]], put_back: Callable[[Any], None]) -> None:
        self._get = get
        self._put_back = put_back
        #: The one that the application has.
        self._current: MessageStream | None = None
        #: One reads at a time, in the order in which they have asked.
        self._lock = asyncio.Lock()

    async def next_stream(self) -> MessageStream | None:
        """Leave the message that the application has, and return the next one; None when there will be none."""
        async with self._lock:
            return await self._next()

    async def _next(self) -> MessageStream | None:
        if self._current is not None:
            self._current.leave()
        self._current = await self._get()
        return self._current

    def reading(self) -> StreamReading:
        return StreamReading(self.next_stream)

    async def next_message(self) -> Any:
        """As `next_stream`, with the whole message. One that the connection has ended in is none."""
        async with self._lock:
            stream = await self._next()
            if stream is None:
                return None
            try:
                return await stream.read_all()
            except WebSocketClosedError:
                return None
            except BaseException:
                # Nobody has it: it is the next one again.
                self._current = None
                self._put_back(stream)
                raise
