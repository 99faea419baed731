"""What was written and the kernel has not taken yet."""

from __future__ import annotations

from collections import deque

from tornado_ws.pieces import add_piece


class Backlog:
    """A queue of bytes. Large pieces are not copied: a message sent to many is in memory once."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: deque[bytearray | memoryview] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Take ``data``, which may not change from then on."""
        self._size += len(data)
        add_piece(self._pieces, memoryview(data))

    def first(self) -> bytearray | memoryview:
        """Return what is to be sent next, a piece of it at most."""
        return self._pieces[0]

    def sent(self, count: int) -> None:
        """Remove ``count`` bytes of the first piece."""
        self._size -= count
        if count == len(self._pieces[0]):
            self._pieces.popleft()
        else:
            self._pieces[0] = self._pieces[0][count:]
