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
from collections.abc import Generator, Iterator
from typing import Any, Protocol, TypeAlias

from tornado.util import _websocket_mask as apply_mask

from tornado_ws.closing import INVALID_PAYLOAD, MESSAGE_TOO_BIG, PROTOCOL_ERROR
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
    length = len(payload)
    mask_bit = _MASKED if masked else 0
    if length < 126:
        header = bytes((first_byte, mask_bit | length))
    elif length <= 0xFFFF:
        header = bytes((first_byte, mask_bit | 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((first_byte, mask_bit | 127)) + length.to_bytes(8, "big")
    if masked:
        # Section 5.3: unpredictable, so from the operating system and fresh for each frame.
        mask = os.urandom(4)
        return header + mask + apply_mask(mask, payload)
    return header + payload


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
        "_chunk",
        "_events",
        "_expect_masked",
        "_inflater",
        "_limit",
        "_stopped",
        "in_message",
        "message_bytes",
        "messages",
        "wire_bytes",
    )

    def __init__(self, expect_masked: bool, max_message_size: int, inflater: Inflater | None = None) -> None:
        #: Whether a message has begun and not ended.
        self.in_message = False
        #: Messages handed out, their bytes after inflating, and all bytes fed.
        self.messages = self.message_bytes = self.wire_bytes = 0
        self._stopped = False
        self._expect_masked = expect_masked
        self._limit = max_message_size
        self._inflater = inflater
        self._chunk = b""
        self._events = self._parse()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes; they are parsed as the reader is iterated."""
        self.wire_bytes += len(chunk)
        self._chunk = self._chunk + chunk if self._chunk else chunk

    def __iter__(self) -> Iterator[Event | None]:
        return self._events

    def hand_out(self, handler: Any, limit: int) -> Outcome | None:
        """Call ``handler.on_message`` with up to ``limit`` messages, for as long as it returns None at once.

        Returns None when more bytes are wanted or `stop` was called, else what ended it: a control frame as an event,
        or (NOT_DONE, what on_message returned, 0), (RAISED, sys.exc_info(), 0), (VIOLATION, the `.ProtocolError`, 0),
        (ENOUGH, None, 0) at the limit.
        """
        try:
            for event in () if self._stopped else self._events:
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
                if self._stopped:
                    return None
                limit -= 1
                if not limit:
                    return ENOUGH, None, 0
        except ProtocolError as error:
            return VIOLATION, error, 0
        return None

    def stop(self) -> None:
        """Hand out no more, in the call that is under way too."""
        self._stopped = True

    def _more(self, buffer: bytes, needed: int) -> Generator[None, None, bytes]:
        """Extend ``buffer`` until it has ``needed`` bytes."""
        while True:
            if self._chunk:
                buffer += self._chunk
                self._chunk = b""
            if len(buffer) >= needed:
                return buffer
            yield None

    def _parse(self) -> Generator[Event | None, None, None]:
        buffer = b""
        pos = 0
        message: _Message | None = None
        mask_bit = _MASKED if self._expect_masked else 0
        while True:
            if len(buffer) - pos < 2:
                # Rebound before every wait: an idle reader must not keep the last chunk alive.
                buffer, pos = buffer[pos:], 0
                buffer = yield from self._more(buffer, 2)
            first = buffer[pos]
            second = buffer[pos + 1]
            opcode = first & 0xF
            length = second & 0x7F
            if first not in _WHOLE_MESSAGE or message is not None or second & _MASKED != mask_bit:
                check_header(first, second, message is not None, self._expect_masked, self._inflater is not None)
            header = 2 + (2 if length == 126 else 8 if length == 127 else 0)
            masked = second & _MASKED
            end = header + (4 if masked else 0)
            if len(buffer) - pos < end:
                buffer, pos = buffer[pos:], 0
                buffer = yield from self._more(buffer, end)
            if length > 125:
                length = check_extended_length(buffer[pos + 2 : pos + header])
            if opcode < _CONTROL and not (first & RSV1 or (message is not None and message.compressed)):
                check_size(length + (message.size if message is not None else 0), self._limit)
            mask = buffer[pos + header : pos + end] if masked else None
            pos += end

            if opcode & _CONTROL:
                if len(buffer) - pos < length:
                    buffer, pos = buffer[pos:], 0
                    buffer = yield from self._more(buffer, length)
                payload = buffer[pos : pos + length]
                pos += length
                if mask:
                    payload = apply_mask(mask, payload)
                yield opcode, payload, length
                continue

            if message is None and first & (FIN | RSV1) == FIN and len(buffer) - pos >= length:
                payload = buffer[pos : pos + length]
                pos += length
                if mask:
                    payload = apply_mask(mask, payload)
                yield opcode, decode_text(payload) if opcode == TEXT else payload, length
                payload = b""
                continue

            if message is None:
                message = _Message(opcode, self._limit, self._inflater if first & RSV1 else None)
                self.in_message = True
            left = length
            while left:
                if pos == len(buffer):
                    buffer, pos, piece = b"", 0, b""
                    buffer = yield from self._more(buffer, 1)
                piece = buffer[pos : pos + left]
                pos += len(piece)
                left -= len(piece)
                if mask:
                    message.add(apply_mask(mask, piece))
                    turn = len(piece) & 3
                    mask = mask[turn:] + mask[:turn]
                else:
                    message.add(piece)
            piece = b""
            if first & FIN:
                self.in_message = False
                yield message.end()
                message = None


class _Message:
    """A message that did not arrive whole in one plain frame: gathered, inflated and checked as its bytes come."""

    __slots__ = ("_buffer", "_check_utf8", "_inflater", "_limit", "_opcode")

    def __init__(self, opcode: int, limit: int, inflater: Inflater | None) -> None:
        self._opcode = opcode
        self._limit = limit
        self._inflater = inflater
        self._buffer = bytearray()
        self._check_utf8 = _Utf8Checker() if opcode == TEXT else None

    @property
    def compressed(self) -> bool:
        return self._inflater is not None

    @property
    def size(self) -> int:
        return len(self._buffer)

    def add(self, piece: bytes) -> None:
        if self._inflater is None:
            self._append(piece)
            return
        inflated = self._inflater.inflate(piece, self._limit - len(self._buffer))
        self._append(inflated)
        while len(inflated) == INFLATED_AT_ONCE:
            inflated = self._inflater.inflate(b"", self._limit - len(self._buffer))
            self._append(inflated)

    def _append(self, piece: bytes) -> None:
        room = self._limit - len(self._buffer)
        if self._check_utf8 is not None:
            # First, and no further than the limit: what is wrong does not depend on how the bytes are cut.
            self._check_utf8(piece[:room])
        if len(piece) > room:
            raise too_big_inflated()
        self._buffer += piece

    def end(self) -> Event:
        rest = self._inflater.end_message() if self._inflater is not None else None
        payload = bytes(self._buffer)
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
