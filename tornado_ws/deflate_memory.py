"""What compressors keep between messages, bounded.

A compressor takes some 150 KiB. One that is to refer to earlier messages (context takeover) is kept live while it is in
use and there is room for it; whoever was put out for another begins anew on the last bytes that it had sent. One that
refers to nothing is the same for all connections with equal parameters, so they share it.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque

from tornado_ws.deflate_backends import Codec, Deflating

#: Compressors kept of one kind that nobody is using. More than one only where threads deflate side by side.
_POOLED = 4


class LiveStream:
    """A compressor that may be taken from its connection between two messages."""

    __slots__ = ("codec", "size", "stream", "used")

    def __init__(self, codec: Codec, wbits: int, stream: Deflating) -> None:
        self.codec = codec
        self.size = codec.memory(wbits)
        self.stream: Deflating | None = stream
        #: Whether it was in use again since somebody looked.
        self.used = False


class LiveStreams:
    """The live compressors of all connections with the same options, up to ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._streams: deque[LiveStream] = deque()
        self._size = 0
        # Connections may be of several loops, each with a thread of its own. Not held where a message is compressed.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(live.stream is not None for live in self._streams)

    def admit(self, live: LiveStream) -> None:
        """Take one in, and put out those that were not in use for the longest time until there is room."""
        with self._lock:
            self._streams.append(live)
            self._size += live.size
            while self._size > self._limit:
                oldest = self._streams.popleft()
                if oldest.stream is not None and oldest.used and oldest is not live:
                    oldest.used = False
                    self._streams.append(oldest)
                elif oldest is live and self._streams:
                    self._streams.append(live)
                else:
                    self._size -= oldest.size
                    oldest.stream = None


class StreamPool:
    """Compressors that refer to nothing before the message that they are given."""

    def __init__(self) -> None:
        self._idle: dict[tuple[Codec, int], deque[Deflating]] = {}

    def compress(self, data: bytes, codec: Codec, wbits: int) -> bytes:
        """Return ``data`` deflated, with the tail of the flush."""
        idle = self._idle.get((codec, wbits))
        if idle is None:
            idle = self._idle.setdefault((codec, wbits), deque(maxlen=_POOLED))
        try:
            stream = idle.pop()
        except IndexError:
            stream = codec.make_compressor(wbits)
        # A full flush forgets what was before it.
        payload = stream.compress(data) + stream.flush(zlib.Z_FULL_FLUSH)
        idle.append(stream)
        return payload
