"""Bytes written but not yet accepted by the kernel."""

from __future__ import annotations

from collections import deque

#: From this size on bytes are kept as they are, not copied: less than this is not worth an object of its own.
_OWN_PIECE = 64
#: Bytes that are sent together where pieces are smaller.
_GATHERED = 16 * 1024


class WriteQueue:
    """A queue of bytes that holds references: a frame that waits for many connections is in memory once."""

    __slots__ = ("_begin", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray] = deque()
        #: How much of the first piece is sent.
        self._begin = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes, begin: int = 0) -> None:
        """Take what is behind ``begin`` of ``data``."""
        size = len(data) - begin
        if size >= _OWN_PIECE and not (begin and self._pieces):
            self._begin = self._begin if self._pieces else begin
            self._pieces.append(data)
        elif size and self._pieces and isinstance(self._pieces[-1], bytearray) and len(self._pieces[-1]) < _GATHERED:
            self._pieces[-1] += data[begin:]
        elif size:
            self._pieces.append(bytearray(data[begin:]))
        self._size += size

    def first(self) -> memoryview | bytearray:
        """Return what is to be sent next: a large piece, or small ones together.

        As long as nothing of it is sent, it begins with the same bytes and does not get shorter, as OpenSSL demands of
        a write that is tried again.
        """
        first = self._pieces[0]
        if isinstance(first, bytes) and len(first) - self._begin >= _GATHERED:
            return memoryview(first)[self._begin :]
        gathered = bytearray()
        begin = self._begin
        for piece in self._pieces:
            gathered += memoryview(piece)[begin : begin + _GATHERED - len(gathered)]
            begin = 0
            if len(gathered) == _GATHERED:
                break
        return gathered

    def sent(self, count: int) -> None:
        """Remove the first ``count`` bytes."""
        self._size -= count
        self._begin += count
        while self._pieces and self._begin >= len(self._pieces[0]):
            self._begin -= len(self._pieces.popleft())
