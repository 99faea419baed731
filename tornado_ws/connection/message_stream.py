"""`MessageStream`: one message, read in parts as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from tornado_ws.close_codes import MESSAGE_TOO_BIG
from tornado_ws.engine.validation import check_size
from tornado_ws.errors import ProtocolError, WebSocketClosedError
from tornado_ws.escaping import plain

if TYPE_CHECKING:
    from typing_extensions import Self

#: Parts that wait to be read; then reading from the socket stops. One is read while the application has another.
_MOST_WAITING = 2
#: So many parts of a message that is read as a whole are put together: each costs more than a hundred bytes, and a peer
#: may send a byte in each.
_MANY = 1024


class Source(Protocol):
    """Where the parts come from."""

    #: Bytes that a message may have which is read as a whole, and those of a part.
    max_message_size: int
    max_part_size: int

    def on_room(self) -> None:
        """There is room for a part, or none is wanted any more."""

    def fail(self, error: ProtocolError) -> object:
        """Fail the connection."""


class MessageStream:
    """One message, read in parts as they come: ``async for part in stream``, or `read`.

    A part of a text message is a str (bytes where ``decode_text`` is False) that ends between two characters; a part of
    a binary message is bytes. It has ``max_part_size`` bytes at most, and is never empty. ``is_binary`` (bool) tells
    which kind of message it is. While no part is asked for, nothing more is read from the socket.

    One coroutine may read at a time. When it is cancelled, no part is lost: the next `read` returns it.
    """

    __slots__ = ("_empty", "_error", "_is_ended", "_parts", "_source", "_waiter", "ahead", "is_binary", "is_lost")

    def __init__(self, source: Source, is_binary: bool, empty: str | bytes) -> None:
        """``empty`` is what a message without a byte is."""
        self.is_binary = is_binary
        #: Whether the connection has ended inside the message.
        self.is_lost = False
        #: Bytes that have come behind its first part while it waits to be given to the application; None once it was.
        self.ahead: int | None = 0
        self._source = source
        self._empty: Any = empty
        #: Each with its bytes.
        self._parts: deque[tuple[Any, int]] = deque()
        self._is_ended = False
        #: What `read` raises where there is nothing more to read: its type and arguments.
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    # For the application

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Return the next part. Raises StopAsyncIteration behind the last one, and what `read` does."""
        part = await self.read()
        if part is None:
            raise StopAsyncIteration
        return part

    async def read(self) -> Any:
        """Return the next part, a str or bytes; None when the message is at its end, then and after.

        :raises WebSocketClosedError: with ``close_code`` and ``close_reason`` (1006 where there was no close frame),
            when the connection has ended inside the message. The parts that had come are returned before.
        :raises RuntimeError: when another coroutine is reading, and for a message that was left: one whose
            ``on_message_stream`` has returned, or before which its client has read on.
        """
        return (await self._next())[0]

    async def read_all(self) -> Any:
        """Return all that is left of the message, a str or bytes.

        A message of more than ``max_message_size`` bytes is refused: the connection is closed with 1009. When the
        coroutine is cancelled, what it has read is read again by the next one.

        :raises WebSocketClosedError: as `read`, and for a message that is too large.
        :raises RuntimeError: as `read`.
        """
        had: list[tuple[Any, int]] = []
        size = joined = 0
        try:
            while (entry := await self._next())[0] is not None:
                had.append(entry)
                size += entry[1]
                check_size(size, self._source.max_message_size)
                if len(had) - joined == _MANY:
                    had[joined:] = self._joined(had[joined:])
                    joined = len(had)
        except ProtocolError as error:
            # Even if it has come to its end: what is left is no message.
            self._parts.clear()
            self._is_ended = False
            self.lose(MESSAGE_TOO_BIG, error.reason)
            self._source.fail(error)
            raise WebSocketClosedError(str(error), close_code=MESSAGE_TOO_BIG, close_reason=error.reason) from None
        except BaseException:
            self._parts.extendleft(reversed(had))
            raise
        return self._empty.join([part for part, _ in had])

    def _joined(self, parts: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
        """Return the same in fewer parts, none of them larger than one may be."""
        joined = []
        some: list[Any] = []
        size = 0
        for part, part_size in parts:
            if some and size + part_size > self._source.max_part_size:
                joined.append((self._empty.join(some), size))
                some, size = [], 0
            some.append(part)
            size += part_size
        joined.append((self._empty.join(some), size))
        return joined

    async def _next(self) -> tuple[Any, int]:
        if self._waiter is not None:
            raise RuntimeError("another coroutine is reading this message; one at a time may")
        while not self._parts:
            if self._error is not None:
                # Another one each time, or the first would keep the frames of all who got it.
                raise _copy(self._error)
            if self._is_ended:
                return None, 0
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                # It only wakes: what is read stays here until somebody has it.
                await self._waiter
            finally:
                self._waiter = None
        entry = self._parts.popleft()
        self._source.on_room()
        return entry

    # For the connection

    @property
    def is_full(self) -> bool:
        """Whether so many parts wait that no more is to be read."""
        return len(self._parts) >= _MOST_WAITING

    def put(self, part: str | bytes, size: int, is_last: bool) -> None:
        """Take a part of ``size`` bytes."""
        if self._error is None:
            if size:
                self._parts.append((part, size))
            self._is_ended = is_last
            self._wake()

    def lose(self, code: int | None, reason: str | None) -> None:
        """The connection has ended, and no more will come."""
        if not self._is_ended and self._error is None:
            self.is_lost = True
            text = f"connection ended inside a message, with {code}{f': {plain(reason)}' if reason else ''}"
            self._give_up(WebSocketClosedError(text, close_code=code, close_reason=reason))

    def leave(self) -> None:
        """Nobody reads it any more: drop what waits and what is to come."""
        self.ahead = None
        if not self.is_lost:
            self._parts.clear()
            if not self._is_ended:
                self._give_up(RuntimeError("the message was left before its end; what came after that is not kept"))

    def _give_up(self, error: Exception) -> None:
        self._error = error
        self._wake()
        self._source.on_room()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _copy(error: Exception) -> Exception:
    if isinstance(error, WebSocketClosedError):
        return WebSocketClosedError(*error.args, close_code=error.close_code, close_reason=error.close_reason)
    return type(error)(*error.args)
