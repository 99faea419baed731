"""Frames (RFC 6455 section 5), in pure Python: bytes in, messages out, and back. No socket, loop or clock.

The contract, which a native engine has to keep to the letter:

A `FrameReader` is fed chunks of bytes as they arrive and iterated. Each step parses as far as the next event and no
further. An event is ``(opcode, payload, size)``: a whole message, TEXT as str and BINARY as bytes, or a control frame
(CLOSE, PING, PONG) with its payload as bytes; ``size`` is the payload's length in bytes, after inflating. The reader
yields None when it wants another chunk. It raises `.ProtocolError` at the first violation, as early as the bytes
allow (inside an unfinished frame too), after all the events before it, and is finished then.

`FrameReader.hand_out` is the same for messages that are to be handled as they come: it takes the steps itself and
gives each message to ``on_message``, until one of them is not done with at once, or something else turns up.

What is a violation, and how it is told, is said once, by the functions below; an engine calls them for whatever it
does not know to be right.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

from tornado.util import _websocket_mask as apply_mask

from tornado_ws.close_codes import INVALID_PAYLOAD, MESSAGE_TOO_BIG, PROTOCOL_ERROR
from tornado_ws.engine.chunks import add_piece
from tornado_ws.errors import ProtocolError

__all__ = ["Event", "FrameReader", "Inflater", "apply_mask", "encode_frame"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
_RSV = RSV1 | RSV2 | RSV3
_MASKED = 0x80
_CONTROL = 0x8
_WHOLE_MESSAGE = (FIN | TEXT, FIN | BINARY)
_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))

#: Marks the opcode of a message that is not inflated to its end.
LATER = 0x100

Event: TypeAlias = tuple[int, Any, int]

#: Seconds that messages of one connection, or of all that are ready, are handed out before the loop gets its turn.
TURN_TIME = 0.002
#: The clock is read for every fourth message: with each it would cost more than it tells.
CLOCK_STRIDE = 3
#: And for each of so many bytes: a few hundred on the wire may inflate to megabytes.
CLOCK_SIZE = 64 * 1024
#: What `FrameReader.hand_out` tells beside control frames, in the place of an opcode.
NOT_DONE, RAISED, VIOLATION, ENOUGH = -1, -2, -3, -4
Outcome: TypeAlias = tuple[int, Any, int]


#: Most bytes that `Inflater.inflate` returns.
INFLATED_AT_ONCE = 128 * 1024


class Inflater(Protocol):
    """What a reader needs of RFC 7692: the payload of one message, piece by piece."""

    def inflate(self, data: bytes, limit: int) -> bytes:
        """Return what ``data`` inflates to, one byte more than ``limit`` standing for all that are too many.

        What has `INFLATED_AT_ONCE` bytes may go on: no data then gives what follows.
        Raises `.ProtocolError` for what does not inflate.
        """

    def end_message(self) -> Any:
        """Raise `.ProtocolError` when the message's stream is cut short.

        Returns None, or what there is of the message beside that which was inflated, with its ``size`` in bytes: then
        the event is ``(opcode | LATER, (that, the message's beginning as bytes), size of both)``.
        """


def encode_message(message: str | bytes | bytearray | memoryview, binary: bool) -> bytes:
    """Return the payload of a message. Raises ValueError for bytes that are to go as text and are not UTF-8."""
    if isinstance(message, str):
        return message.encode()
    payload = bytes(message)
    if not binary:
        payload.decode()
    return payload


def encode_frame(first_byte: int, payload: bytes, masked: bool) -> bytes:
    """Return one frame; ``first_byte`` is FIN, the reserved bits and the opcode."""
    head, payload = encode_frame_parts(first_byte, payload, masked)
    return head + payload


def encode_frame_parts(first_byte: int, payload: bytes, masked: bool) -> tuple[bytes, bytes]:
    """Return one frame in two parts, the second as long as its payload."""
    length = len(payload)
    mask_bit = _MASKED if masked else 0
    if length < 126:
        head = bytes((first_byte, mask_bit | length))
    elif length <= 0xFFFF:
        head = bytes((first_byte, mask_bit | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first_byte, mask_bit | 127)) + length.to_bytes(8, "big")
    if not masked:
        return head, payload
    # Section 5.3: unpredictable, so from the operating system and fresh for each frame.
    mask = os.urandom(4)
    return head + mask, apply_mask(mask, payload)


def check_header(first: int, second: int, in_message: bool, expect_masked: bool, inflating: bool) -> None:
    """Raise `.ProtocolError` unless the first two bytes of a frame are right where they stand (section 5.2)."""
    opcode = first & 0xF
    reserved = first & _RSV
    if reserved and not (reserved == RSV1 and inflating and opcode in (TEXT, BINARY)):
        raise ProtocolError(
            PROTOCOL_ERROR,
            f"frame with opcode {opcode:#x} and reserved bits {reserved:#x}, which no extension allows here",
        )
    if opcode not in _OPCODES:
        raise ProtocolError(PROTOCOL_ERROR, f"frame with reserved opcode {opcode:#x}")
    if bool(second & _MASKED) != expect_masked:
        who = "unmasked frame from a client" if expect_masked else "masked frame from a server"
        raise ProtocolError(PROTOCOL_ERROR, who)
    if opcode & _CONTROL:
        if not first & FIN:
            raise ProtocolError(PROTOCOL_ERROR, f"fragmented control frame with opcode {opcode:#x}")
        if second & 0x7F > 125:
            raise ProtocolError(PROTOCOL_ERROR, "control frame with a payload of more than 125 bytes")
    elif opcode == CONTINUATION:
        if not in_message:
            raise ProtocolError(PROTOCOL_ERROR, "continuation frame with no message to continue")
    elif in_message:
        raise ProtocolError(PROTOCOL_ERROR, "new message inside a fragmented message")


def check_extended_length(encoded: bytes) -> int:
    """Return the payload length that 2 or 8 bytes tell; raises `.ProtocolError` where fewer would do."""
    length = int.from_bytes(encoded, "big")
    if length >> 63:
        raise ProtocolError(PROTOCOL_ERROR, "frame length with its most significant bit set")
    if length <= (125 if len(encoded) == 2 else 0xFFFF):
        raise ProtocolError(PROTOCOL_ERROR, f"frame length {length} in {len(encoded)} bytes, not the fewest")
    return length


def check_size(size: int, limit: int) -> None:
    """Raise `.ProtocolError` when a message is known to have ``size`` bytes and that is over ``limit``."""
    if size > limit:
        # The reason is Tornado's own: applications and its tests compare it.
        detail = f"message of at least {size} bytes; the limit is {limit}"
        raise ProtocolError(MESSAGE_TOO_BIG, "message too big", detail)


def too_big_inflated() -> ProtocolError:
    return ProtocolError(MESSAGE_TOO_BIG, "message too big after decompression")


def not_utf8() -> ProtocolError:
    return ProtocolError(INVALID_PAYLOAD, "text message that is not UTF-8")


class FrameReader:
    """Parses what one peer sends; see the contract at the head of this module.

    ``expect_masked`` is true for a server, ``max_message_size`` is in bytes after inflating, and ``inflater`` is None
    when permessage-deflate was not negotiated.
    """

    __slots__ = (
        "_buffer",
        "_expect_masked",
        "_finished",
        "_inflater",
        "_limit",
        "_message",
        "_pos",
        "_stopped",
        "message_bytes",
        "messages",
        "wire_bytes",
    )

    def __init__(self, expect_masked: bool, max_message_size: int, inflater: Inflater | None = None) -> None:
        #: Messages handed out, their bytes after inflating, and all bytes fed.
        self.messages = self.message_bytes = self.wire_bytes = 0
        self._stopped = self._finished = False
        self._expect_masked = expect_masked
        self._limit = max_message_size
        self._inflater = inflater
        # What is not parsed yet begins at `_pos`.
        self._buffer = b""
        self._pos = 0
        self._message: _Message | None = None

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

    def hand_out(self, handler: Any, limit: int, timed: bool = False) -> Outcome | None:
        """Call ``handler.on_message`` with up to ``limit`` messages, for as long as it returns None at once.

        Returns None when more bytes are wanted or `stop` was called, else what ended it: a control frame as an event,
        or (NOT_DONE, what on_message returned, 0), (RAISED, sys.exc_info(), 0), (VIOLATION, the `.ProtocolError`, 0),
        (ENOUGH, None, 0) at the limit and, if ``timed``, when `TURN_TIME` is over.
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
            except (Exception, asyncio.CancelledError):
                return RAISED, sys.exc_info(), 0
            if result is not None:
                return NOT_DONE, result, 0
            limit -= 1
            if not limit and not self._stopped:
                return ENOUGH, None, 0
            if timed and (not limit & CLOCK_STRIDE or size >= CLOCK_SIZE) and not self._stopped:
                now = time.monotonic()
                if not until:
                    until = now + TURN_TIME
                elif now > until:
                    return ENOUGH, None, 0
        return None

    def stop(self) -> None:
        """Hand out no more, in the call that is under way too."""
        self._stopped = True

    def _step(self) -> Event | None:
        """Parse up to the next event; returns None when more bytes are wanted."""
        buffer, pos = self._buffer, self._pos
        have = len(buffer) - pos
        if not have:
            # An idle reader must not keep the last chunk alive.
            self._buffer = b""
            self._pos = 0
            return None
        try:
            # Most frames are a short message, and here from end to end: right, whichever rule is asked.
            if have > 1 and self._message is None and buffer[pos] in _WHOLE_MESSAGE:
                begin = pos + 2
                length = buffer[pos + 1]
                if self._expect_masked:
                    begin += 4
                    length ^= _MASKED
                end = begin + length
                if length < 126 and length <= self._limit and end <= len(buffer):
                    payload = buffer[begin:end]
                    if self._expect_masked:
                        payload = apply_mask(buffer[begin - 4 : begin], payload)
                    self._pos = end
                    opcode = buffer[pos] & 0xF
                    return opcode, decode_text(payload) if opcode == TEXT else payload, length
            return self._any_step()
        except BaseException:
            # Whatever it was, a MemoryError too: nobody knows any more what the next byte belongs to.
            self._stopped = self._finished = True
            self._buffer, self._pos, self._message = b"", 0, None
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
                if is_whole and (opcode & _CONTROL or (message is None and first & (FIN | RSV1) == FIN)):
                    payload = self._buffer[begin:end]
                    self._pos = end
                    if mask:
                        payload = apply_mask(mask, payload)
                    return opcode, decode_text(payload) if opcode == TEXT else payload, length
                if opcode & _CONTROL:
                    break
                self._pos = begin
                if message is None:
                    message = _Message(opcode, self._limit, self._inflater if first & RSV1 else None)
                    self._message = message
                message.begin_frame(bool(first & FIN), length, mask)
            self._pos += message.take(self._buffer, self._pos)
            if message.in_frame:
                break
            if message.is_whole:
                self._message = None
                return message.end()
        self._wait()
        return None

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
        if not first & _CONTROL and not (first & RSV1 or (message is not None and message.is_compressed)):
            check_size(length + (message.size if message is not None else 0), self._limit)
        return first, pos + begin, length


class _Message:
    """A message that did not arrive whole in one plain frame: gathered, inflated and checked as its bytes come."""

    __slots__ = (
        "_check_utf8",
        "_inflater",
        "_left",
        "_limit",
        "_mask",
        "_opcode",
        "_pieces",
        "in_frame",
        "is_whole",
        "size",
    )

    def __init__(self, opcode: int, limit: int, inflater: Inflater | None) -> None:
        self._opcode = opcode
        self._limit = limit
        self._inflater = inflater
        self._pieces: list[bytes | bytearray] = []
        self._check_utf8 = _Utf8Checker() if opcode == TEXT else None
        #: Bytes that there are of it, after inflating.
        self.size = 0
        #: Whether the payload of a frame is coming.
        self.in_frame = False
        #: Whether there is no frame after that.
        self.is_whole = False

    @property
    def is_compressed(self) -> bool:
        return self._inflater is not None

    def begin_frame(self, is_last: bool, length: int, mask: bytes | None) -> None:
        self.in_frame = True
        self.is_whole = is_last
        self._left = length
        self._mask = mask

    def take(self, buffer: bytes, pos: int) -> int:
        """Take what ``buffer`` has of the frame's payload from ``pos`` on; returns how many bytes that are."""
        piece = buffer[pos : pos + self._left]
        size = len(piece)
        self._left -= size
        self.in_frame = self._left > 0
        if self._mask is not None:
            piece = apply_mask(self._mask, piece)
            turn = size & 3
            self._mask = self._mask[turn:] + self._mask[:turn]
        if self._inflater is None:
            self._append(piece)
        elif piece:
            inflated = self._inflater.inflate(piece, self._limit - self.size)
            self._append(inflated)
            while len(inflated) == INFLATED_AT_ONCE:
                inflated = self._inflater.inflate(b"", self._limit - self.size)
                self._append(inflated)
        return size

    def _append(self, piece: bytes) -> None:
        room = self._limit - self.size
        if self._check_utf8 is not None:
            # First, and no further than the limit: what is wrong does not depend on how the bytes are cut.
            self._check_utf8(piece[:room])
        if len(piece) > room:
            raise too_big_inflated()
        self.size += len(piece)
        add_piece(self._pieces, piece)

    def end(self) -> Event:
        rest = self._inflater.end_message() if self._inflater is not None else None
        payload = b"".join(self._pieces)
        if rest is not None:
            return self._opcode | LATER, (rest, payload), len(payload) + rest.size
        return self._opcode, decode_text(payload) if self._opcode == TEXT else payload, len(payload)


def decode_text(payload: bytes) -> str:
    """Return the text of a message. Raises `.ProtocolError` unless it is UTF-8."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise not_utf8() from None


class _Utf8Checker:
    """Refuses a byte sequence at the first byte that no UTF-8 text can have there."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def __call__(self, piece: bytes) -> None:
        try:
            self._decoder.decode(piece)
        except UnicodeDecodeError:
            raise not_utf8() from None
        pending = self._decoder.getstate()[0]
        # CPython's decoder waits for the third byte of a surrogate, though its second one decides.
        if len(pending) == 2 and pending[0] == 0xED and pending[1] >= 0xA0:
            raise not_utf8()
