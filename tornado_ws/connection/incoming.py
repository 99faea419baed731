"""Messages that the application reads in parts: from the reader's events to `MessageStream` objects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from tornado import gen

from tornado_ws.connection.closing import Closing
from tornado_ws.connection.interfaces import WebSocketDelegate, WebSocketParams
from tornado_ws.connection.message_stream import MessageStream
from tornado_ws.engine import FrameReader
from tornado_ws.engine.contract import BINARY, LAST, Inflater
from tornado_ws.errors import ProtocolError, WebSocketClosedError


class Incoming:
    """Stands before a handler or client that gets its messages as streams."""

    __slots__ = (
        "_ahead",
        "_decodes",
        "_max_stream_size",
        "_most_ahead",
        "_on_stream",
        "_stalls",
        "_stream",
        "fail",
        "go_on",
        "is_client",
        "max_message_size",
        "max_part_size",
    )

    def __init__(
        self,
        handler: WebSocketDelegate,
        on_stream: Callable[[MessageStream], Any],
        params: WebSocketParams,
        fail: Callable[[ProtocolError], object],
    ) -> None:
        self._on_stream = on_stream
        #: What it returns is its queue then, and it leaves a message when it reads on.
        self.is_client = hasattr(handler, "read_queue")
        self._decodes = params.options.decode_text
        self.max_part_size = params.options.max_part_size
        self._max_stream_size = params.options.max_stream_size
        self.max_message_size = params.max_message_size
        self.fail = fail
        #: What lets the connection go on where it has stopped for us.
        self.go_on: Callable[[], object] | None = None
        #: Bytes of messages that wait, behind their first parts: those are counted where they wait.
        self._ahead = 0
        self._most_ahead = params.options.read_ahead_bytes
        #: The message that is coming.
        self._stream: MessageStream | None = None
        #: Whether the connection has stopped for us.
        self._stalls = False

    def make_reader(self, expect_masked: bool, inflater: Inflater | None) -> FrameReader:
        limit = sys.maxsize if self._max_stream_size is None else self._max_stream_size
        return FrameReader(expect_masked, limit, inflater, self._decodes, self.max_part_size)

    # Messages

    def on_message(self, message: Any) -> Any:
        """Give the application a message that has come as a whole."""
        is_binary = not isinstance(message, str)
        stream = MessageStream(self, is_binary, b"" if is_binary else "")
        stream.put(message, len(message) if is_binary else len(message.encode()), True)
        return self.begin(stream)

    def take(self, opcode: int, part: str | bytes, size: int) -> MessageStream | None:
        """Take a part; return the stream of the message that begins with it."""
        stream, begun = self._stream, None
        if stream is None:
            is_binary = opcode & 0xF == BINARY
            empty = "" if self._decodes and not is_binary else b""
            stream = begun = self._stream = MessageStream(self, is_binary, empty)
        elif stream.ahead is not None and not stream.is_lost:
            stream.ahead += size
            self._ahead += size
        if opcode & LAST:
            self._stream = None
        stream.put(part, size, bool(opcode & LAST))
        return begun

    def begin(self, stream: MessageStream) -> Any:
        """Give the application a message; returns what is still busy with it."""
        if stream.ahead:
            self._ahead -= stream.ahead
        stream.ahead = None
        result = self._on_stream(stream)
        if self.is_client:
            return result
        if result is None:
            stream.leave()
            return None
        return _run(stream, result)

    # What is left

    def holds_back(self) -> bool:
        """Whether reading has to stop until the application has read a part, or has come to a message that waits."""
        self._stalls = self._stream is not None and self._stream.is_full
        return self._stalls or self._ahead >= self._most_ahead

    def on_room(self) -> None:
        if self._stalls and self.go_on is not None:
            self._stalls = False
            self.go_on()

    def end(self, closing: Closing) -> None:
        """The connection ends, by whichever side: tell who reads a message whose rest will not come.

        A server reads on when it has closed. A client does not, as for whole messages.
        """
        if not closing.state.receives or (self.is_client and not closing.state.sends):
            self.lose(*closing.end_in_message())

    def release(self) -> None:
        """Let go of the connection, which has ended."""
        self.go_on = self._stream = None

    def lose(self, code: int | None, reason: str | None) -> None:
        if self._stream is not None:
            self._stream.lose(code, reason)


async def _run(stream: MessageStream, result: Any) -> None:
    """Run what ``on_message_stream`` has returned to its end, and leave its message."""
    try:
        await (result if type(result) is CoroutineType else gen.convert_yielded(result))
    except WebSocketClosedError:
        # The end is told to on_close, and is no fault of the application's.
        if not stream.is_lost:
            raise
    finally:
        stream.leave()
