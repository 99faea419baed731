"""A message that is given in parts: inflated and checked as its bytes come, and not gathered."""

from __future__ import annotations

from collections.abc import Callable

from tornado_ws.engine.contract import INFLATED_AT_ONCE, LAST, PART, TEXT, Event, Inflater
from tornado_ws.engine.encoding import unmask
from tornado_ws.engine.message import Utf8Checker
from tornado_ws.engine.validation import not_utf8, too_big_inflated


class MessageInParts:
    """As `Message`, but what was taken is given at once, by `part`."""

    __slots__ = (
        "_check_utf8",
        "_decode",
        "_held",
        "_inflater",
        "_is_last",
        "_left",
        "_limit",
        "_mask",
        "_opcode",
        "_part",
        "_part_size",
        "has_more",
        "in_frame",
        "size",
    )

    def __init__(
        self,
        opcode: int,
        limit: int,
        part_size: int,
        inflater: Inflater | None,
        decode: Callable[[bytes], str | bytes],
    ) -> None:
        self._opcode = opcode
        self._limit = limit
        self._part_size = part_size
        self._inflater = inflater
        self._decode = decode
        self._check_utf8 = Utf8Checker() if opcode == TEXT else None
        #: The beginning of a character whose rest has not come.
        self._held = b""
        self._part = b""
        #: Bytes of the message so far, after inflating.
        self.size = 0
        #: Whether the payload of a frame is coming, or more of what it inflates to.
        self.in_frame = False
        #: Whether there is more to come out of bytes that were taken.
        self.has_more = False

    @property
    def is_compressed(self) -> bool:
        return self._inflater is not None

    def begin_frame(self, is_last: bool, length: int, mask: bytes | None) -> None:
        self.in_frame = True
        self._is_last = is_last
        self._left = length
        self._mask = mask

    def take(self, buffer: bytes, pos: int) -> int:
        """Take a part of what ``buffer`` has of the frame's payload from ``pos`` on; returns how many bytes it was."""
        room = self._part_size - len(self._held)
        size = 0 if self.has_more else min(self._left, room)
        piece = buffer[pos : pos + size]
        size = len(piece)
        self._left -= size
        if self._mask is not None:
            piece, self._mask = unmask(self._mask, piece)
        if self._inflater is not None and (piece or self.has_more):
            most = min(self._limit - self.size, room - 1, INFLATED_AT_ONCE - 1)
            piece = self._inflater.inflate(piece, most)
            self.has_more = len(piece) > most
        self.in_frame = self._left > 0 or self.has_more
        self._add(piece)
        return size

    def _add(self, piece: bytes) -> None:
        room = self._limit - self.size
        if self._check_utf8 is not None:
            # First, and no further than the limit, as `Message` does.
            self._check_utf8(piece[:room])
        if len(piece) > room:
            raise too_big_inflated()
        self.size += len(piece)
        if self._check_utf8 is not None:
            piece = self._held + piece
            end = len(piece) - unfinished(piece)
            piece, self._held = piece[:end], piece[end:]
        self._part = piece

    def part(self) -> Event | None:
        """Return the event of what was taken; None where it gives none yet."""
        is_last = self._is_last and not self.in_frame
        if is_last:
            if self._inflater is not None:
                self._inflater.end_message()
            if self._held:
                raise not_utf8()
        part, self._part = self._part, b""
        if not (part or is_last):
            return None
        # Not a call of an attribute: CPython would look for a method first.
        decode = self._decode
        payload = decode(part) if self._opcode == TEXT else part
        return self._opcode | PART | (LAST if is_last else 0), payload, len(part)


def unfinished(text: bytes) -> int:
    """Return how many bytes at the end of ``text``, which is UTF-8 so far, begin a character and do not end it."""
    for back in range(1, min(len(text), 3) + 1):
        byte = text[-back]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            return back if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
    return 0
