"""Frames to messages, in pure Python (RFC 6455 section 5). No socket and no loop; see `contract`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from tornado_ws.engine.contract import (
    BUDGET_SPENT,
    CLOCK_SIZE,
    CLOCK_STRIDE,
    CLOSE,
    CONTROL,
    FIN,
    LAST,
    MASKED,
    PENDING,
    RAISED,
    RSV1,
    SUSPENDED,
    TEXT,
    TURN_TIME,
    VIOLATION,
    WHOLE_MESSAGE,
    Event,
    Inflater,
    Outcome,
)
from tornado_ws.engine.encoding import apply_mask
from tornado_ws.engine.message import Message
from tornado_ws.engine.tasks import is_done, step_coroutine
from tornado_ws.engine.validation import check_extended_length, check_header, check_size, checked_text, decode_text
from tornado_ws.errors import ProtocolError

if TYPE_CHECKING:
    from tornado_ws.engine.parts import MessageInParts


class FrameReader:
    """Parses what one peer sends; see `tornado_ws.engine.contract`.

    ``expect_masked`` is true for a server, ``max_message_size`` is in bytes after inflating, and ``inflater`` is None
    when permessage-deflate was not negotiated. Without ``decodes`` text comes as bytes, which are UTF-8. With
    ``part_size``, 4 bytes or more, messages are given in parts.
    """

    __slots__ = (
        "_buffer",
        "_decode",
        "_expect_masked",
        "_finished",
        "_inflater",
        "_limit",
        "_message",
        "_most",
        "_part_size",
        "_pos",
        "_stopped",
        "message_bytes",
        "messages",
        "wire_bytes",
    )

    def __init__(
        self,
        expect_masked: bool,
        max_message_size: int,
        inflater: Inflater | None = None,
        decodes: bool = True,
        part_size: int = 0,
    ) -> None:
        #: Messages delivered, their bytes after inflating, and all bytes fed.
        self.messages = self.message_bytes = self.wire_bytes = 0
        self._stopped = self._finished = False
        self._expect_masked = expect_masked
        #: Bytes that any message may have, and those of one that is given whole.
        self._most = max_message_size
        self._limit = max_message_size
        if part_size:
            # Of text that comes as bytes only the opcode of a part says what it is.
            self._limit = min(part_size, max_message_size) if decodes else -1
        self._part_size = part_size
        self._inflater = inflater
        self._decode: Callable[[bytes], str | bytes] = decode_text if decodes else checked_text
        # What is not parsed yet begins at `_pos`.
        self._buffer = b""
        self._pos = 0
        self._message: Message | MessageInParts | None = None

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._message is not None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes; they are parsed as the reader is iterated."""
        self.wire_bytes += len(chunk)
        self._buffer = self._buffer[self._pos :] + chunk if self._buffer else chunk
        self._pos = 0

    def __iter__(self) -> Iterator[Event | None]:
        return self

    def __next__(self) -> Event | None:
        if self._finished:
            raise StopIteration
        return self._step()

    def deliver(self, handler: Any, limit: int, timed: bool = False, steps: bool = False) -> Outcome | None:
        """Call ``handler.on_message`` with up to ``limit`` messages, for as long as it returns None at once.

        Returns None when more bytes are wanted or `stop` was called, else what ended it: a control frame as an event,
        or (PENDING, what on_message returned, 0), (RAISED, [the exception], 0), (VIOLATION, the `.ProtocolError`, 0),
        (BUDGET_SPENT, None, 0) at the limit and, if ``timed``, when `TURN_TIME` is over. The exception is to be taken
        out of its list: callers that keep the outcome are frames of its traceback.

        With ``steps`` a coroutine that on_message returns takes its first step. One that returns in it counts as None,
        another one is (SUSPENDED, what `step_coroutine` returns, 0). A Future that has ended well counts as None too.
        """
        until = 0.0
        while not self._stopped:
            try:
                event = self._step()
            except ProtocolError as error:
                return VIOLATION, error, 0
            if event is None:
                return None
            opcode, payload, size = event
            if opcode >= CLOSE:
                return event
            self.messages += 1
            self.message_bytes += size
            try:
                result = handler.on_message(payload)
                if result is not None and steps and type(result) is CoroutineType:
                    suspended = step_coroutine(result)
                    if suspended is not None:
                        return SUSPENDED, suspended, 0
                    result = None
                elif result is not None and is_done(result):
                    result = None
            except (Exception, asyncio.CancelledError) as error:
                return RAISED, [error], 0
            if result is not None:
                return PENDING, result, 0
            limit -= 1
            if not limit and not self._stopped:
                return BUDGET_SPENT, None, 0
            if timed and (not limit & CLOCK_STRIDE or size >= CLOCK_SIZE) and not self._stopped:
                now = time.monotonic()
                if not until:
                    until = now + TURN_TIME
                elif now > until:
                    return BUDGET_SPENT, None, 0
        return None

    def stop(self) -> None:
        """Hand out no more, in the call that is under way too."""
        self._stopped = True

    def close(self) -> None:
        """Hand out no more, and let go of what there is: a message that has begun may have megabytes."""
        self._stopped = self._finished = True
        self._buffer, self._pos, self._message = b"", 0, None

    def _step(self) -> Event | None:
        """Parse up to the next event; returns None when more bytes are wanted."""
        buffer, pos = self._buffer, self._pos
        have = len(buffer) - pos
        if not have and (self._message is None or not self._message.has_more):
            # An idle reader must not keep the last chunk alive.
            self._buffer = b""
            self._pos = 0
            return None
        try:
            # Most frames are short whole messages that have arrived completely, and break no rule.
            if have > 1 and self._message is None and buffer[pos] in WHOLE_MESSAGE:
                begin = pos + 2
                length = buffer[pos + 1]
                if self._expect_masked:
                    begin += 4
                    length ^= MASKED
                end = begin + length
                if length < 126 and length <= self._limit and end <= len(buffer):
                    payload = buffer[begin:end]
                    if self._expect_masked:
                        payload = apply_mask(buffer[begin - 4 : begin], payload)
                    self._pos = end
                    opcode = buffer[pos] & 0xF
                    if opcode != TEXT:
                        return opcode, payload, length
                    # Not a call of an attribute: CPython would look for a method first.
                    decode = self._decode
                    return opcode, decode(payload), length
            return self._any_step()
        except BaseException:
            # After any error, a MemoryError too, it is unknown what the next byte belongs to.
            self.close()
            raise

    def _wait(self) -> None:
        """Keep what is not parsed, and no more."""
        self._buffer = self._buffer[self._pos :]
        self._pos = 0

    def _any_step(self) -> Event | None:
        """Parse frames, or what there is of them, up to the next event."""
        while True:
            message = self._message
            if message is None or not message.in_frame:
                header = self._parse_header()
                if header is None:
                    break
                first, begin, length = header
                opcode = first & 0xF
                mask = self._buffer[begin - 4 : begin] if self._expect_masked else None
                end = begin + length
                is_whole = end <= len(self._buffer)
                is_plain = message is None and first & (FIN | RSV1) == FIN and length <= self._limit
                if is_whole and (opcode & CONTROL or is_plain):
                    payload = self._buffer[begin:end]
                    self._pos = end
                    if mask:
                        payload = apply_mask(mask, payload)
                    return opcode, self._decode(payload) if opcode == TEXT else payload, length
                if opcode & CONTROL:
                    break
                self._pos = begin
                if message is None:
                    inflater = self._inflater if first & RSV1 else None
                    if self._part_size:
                        message = self._message_in_parts(opcode, inflater)
                    else:
                        message = Message(opcode, self._most, inflater, self._decode)
                    self._message = message
                message.begin_frame(bool(first & FIN), length, mask)
            self._pos += message.take(self._buffer, self._pos)
            if self._part_size:
                part = message.part()  # type: ignore[union-attr]
                if part is not None:
                    if part[0] & LAST:
                        self._message = None
                    return part
                if message.in_frame and self._pos == len(self._buffer):
                    break
                continue
            if message.in_frame:
                break
            if message.is_whole:  # type: ignore[union-attr]
                self._message = None
                return message.end()  # type: ignore[union-attr]
        self._wait()
        return None

    def _message_in_parts(self, opcode: int, inflater: Inflater | None) -> MessageInParts:
        # What few programs need is imported for those.
        from tornado_ws.engine.parts import MessageInParts

        return MessageInParts(opcode, self._most, self._part_size, inflater, self._decode)

    def _parse_header(self) -> tuple[int, int, int] | None:
        """Return the first byte of a frame, where its payload begins, and the length of that; None for too few bytes.

        What is wrong is told as soon as it is there: of a header that comes in pieces the first two bytes are asked
        each time.
        """
        buffer, pos = self._buffer, self._pos
        have = len(buffer) - pos
        if have < 2:
            return None
        first, second = buffer[pos], buffer[pos + 1]
        message = self._message
        check_header(first, second, message is not None, self._expect_masked, self._inflater is not None)
        length = second & 0x7F
        size = 2 + (2 if length == 126 else 8 if length == 127 else 0)
        begin = size + (4 if self._expect_masked else 0)
        if have < begin:
            return None
        if length > 125:
            length = check_extended_length(buffer[pos + 2 : pos + size])
        if not first & CONTROL and not (first & RSV1 or (message is not None and message.is_compressed)):
            check_size(length + (message.size if message is not None else 0), self._most)
        return first, pos + begin, length
