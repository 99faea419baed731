"""A message that comes in several frames, compressed, or cut: gathered, inflated and checked as its bytes come."""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Callable

from tornado_ws.engine.chunks import add_piece
from tornado_ws.engine.contract import DEFERRED, INFLATED_AT_ONCE, TEXT, Event, Inflater
from tornado_ws.engine.encoding import unmask
from tornado_ws.engine.validation import not_utf8, too_big_inflated


class Message:
    """A message that did not arrive whole in one plain frame: gathered, inflated and checked as its bytes come."""

    __slots__ = (
        "_check_utf8",
        "_decode",
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

    def __init__(
        self, opcode: int, limit: int, inflater: Inflater | None, decode: Callable[[bytes], str | bytes]
    ) -> None:
        """``decode`` makes the payload of a text message what the application gets."""
        self._opcode = opcode
        self._limit = limit
        self._inflater = inflater
        self._decode = decode
        self._pieces: list[bytes | bytearray] = []
        self._check_utf8 = Utf8Checker() if opcode == TEXT else None
        #: Bytes of the message so far, after inflating.
        self.size = 0
        #: Whether the payload of a frame is coming.
        self.in_frame = False
        #: Whether this frame is the last one of the message.
        self.is_whole = False

    #: Whether there is more to come out of bytes that were taken.
    has_more = False

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
            piece, self._mask = unmask(self._mask, piece)
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
            return self._opcode | DEFERRED, (rest, payload), len(payload) + rest.size
        if self._opcode != TEXT:
            return self._opcode, payload, len(payload)
        # Not a call of an attribute: CPython would look for a method first.
        decode = self._decode
        return TEXT, decode(payload), len(payload)


class Utf8Checker:
    """Refuses a byte sequence at the first byte that no UTF-8 text can have there."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        #: What has come of a character that is not whole.
        self._pending = b""

    def __call__(self, piece: bytes) -> None:
        if self._pending:
            piece = self._pending + piece
        try:
            consumed = utf_8_decode(piece)[1]
        except UnicodeDecodeError:
            raise not_utf8() from None
        self._pending = pending = piece[consumed:]
        # CPython's decoder waits for the third byte of a surrogate, though its second one decides.
        if len(pending) == 2 and pending[0] == 0xED and pending[1] >= 0xA0:
            raise not_utf8()
