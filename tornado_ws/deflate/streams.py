"""The memory that streams of deflate keep between messages, and its bounds.

A deflater takes some 150 KiB, an inflater 40. A deflater with context takeover is kept live while it is in use and
there is room for it; one that was evicted to make room keeps the bytes that it needs to go on. A deflater without
context takeover is the same for all connections with equal parameters, so they share it.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque

from tornado_ws.deflate.backends import Codec
from tornado_ws.deflate.interfaces import Deflating, Live

#: Deflaters kept of one kind that nobody is using. More than one only where threads deflate side by side.
_POOLED = 4


class LiveStreams:
    """The live streams of all connections with the same options, up to ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[weakref.ref[Live], int] = OrderedDict()
        self._size = 0
        # Connections may be of several loops, each with a thread of its own. Nobody waits for it: a finalizer that
        # writes a message may run while it is held, in the same thread.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        streams = [reference() for reference in list(self._entries)]
        return sum(stream is not None and stream.live for stream in streams)

    def admit(self, stream: Live) -> bool:
        """Take one in, and freeze those that were not in use for the longest time until there is room.

        Returns False where there is none, or where somebody else is being taken in: then it should freeze itself as
        soon as it is done.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._admit(stream)
        finally:
            self._lock.release()

    def _admit(self, stream: Live) -> bool:
        # It may have been dropped and begun anew since it was here.
        self._size += stream.memory - self._entries.pop(weakref.ref(stream), 0)
        self._entries[weakref.ref(stream)] = stream.memory
        # Twice round at most: streams at work cannot be evicted.
        for _ in range(2 * len(self._entries)):
            if self._size <= self._limit:
                break
            reference, memory = self._entries.popitem(last=False)
            oldest = reference()
            if oldest is stream and not self._entries:
                self._size -= memory
                return False
            if oldest is not None and (oldest is stream or oldest.used or not oldest.freeze()):
                oldest.used = oldest is stream
                self._entries[reference] = memory
            else:
                self._size -= memory
        return True


class StreamPool:
    """Deflaters for messages that refer to nothing before them."""

    def __init__(self) -> None:
        self._idle: dict[tuple[Codec, int], deque[Deflating]] = {}

    def deflate(self, data: bytes, codec: Codec, wbits: int) -> bytes:
        """Return the payload of a message, its tail removed."""
        idle = self._idle.get((codec, wbits))
        if idle is None:
            idle = self._idle.setdefault((codec, wbits), deque(maxlen=_POOLED))
        try:
            stream = idle.pop()
        except IndexError:
            stream = codec.make_deflater(wbits)
        payload = stream.deflate_alone(data)
        idle.append(stream)
        return payload
