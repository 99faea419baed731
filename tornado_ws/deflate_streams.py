"""One direction of a connection with permessage-deflate as a stream of deflate (RFC 1951), message by message.

These go by the objects of the zlib module, or of one like it. The native engine has classes of the same names and the
same contracts for libraries that it can call itself; only those know where a block ends, and what is in a window.

Between two messages neither direction needs more than the last bytes that went through it, for a stream can be taken
up anew by whoever knows them. So an inflater here begins anew with each message, since the peer may refer back to all
of its window. A deflater in use is kept, since it finds more the longer it lives: it is `live`, until `freeze`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tornado_ws.deflate_backends import Codec

#: What a sender leaves away at the end of a message and a receiver puts back (RFC 7692 section 7.2.1).
TAIL = b"\x00\x00\xff\xff"
#: An empty final block. A stream ends there at once, but only if it stands between two blocks.
_FINAL_BLOCK = b"\x01\x00\x00\xff\xff"
#: Bytes inflated at a time behind a block with BFINAL.
_STEP = 1024
#: Bytes sent before that a deflater begins on which takes the place of another. More cost more time than they save.
MAX_HISTORY = 2048
#: Bytes of them at which the oldest are dropped.
_TRIM_AT = 4 * 1024


class Live(Protocol):
    """A stream that takes ``memory`` bytes between two messages while it is ``live``."""

    memory: int
    #: Whether it was in use again since somebody looked.
    used: bool

    @property
    def live(self) -> bool: ...

    def freeze(self) -> bool:
        """Keep only what it takes to go on; false where that cannot be now."""


class Deflating(Live, Protocol):
    """Deflates messages."""

    @property
    def history(self) -> bytes:
        """The last bytes that the peer has in its window, so far as they are of use."""

    def deflate(self, data: bytes) -> bytes:
        """Return the payload of a message, its tail removed, which may refer to those before it."""

    def deflate_alone(self, data: bytes) -> bytes:
        """Return the payload of a message that refers to nothing before it, nor does what follows refer to it."""

    def sent(self, data: bytes) -> None:
        """The peer got ``data`` otherwise."""

    def forget(self) -> None:
        """Let the next message refer to nothing before it."""


class Inflating(Live, Protocol):
    """Inflates messages. ``error`` is what it raises for what does not inflate."""

    error: type[Exception]

    @property
    def history(self) -> bytes:
        """What the peer may refer back to."""

    def inflate(self, data: bytes, room: int) -> bytes:
        """Return what ``data`` inflates to, ``room`` bytes at most; what did not fit comes first the next time."""

    def end(self) -> bool:
        """Put the tail behind a message; returns whether its stream ends there, between two blocks."""


class Deflater:
    """See `Deflating`. ``history`` is what the peer has in its window; ``admit`` is asked whether it may stay live."""

    __slots__ = ("__weakref__", "_admit", "_codec", "_history", "_stream", "_wbits", "memory", "used")

    def __init__(self, codec: Codec, wbits: int, history: bytes, admit: Callable[[Live], bool] | None) -> None:
        self._codec = codec
        self._wbits = wbits
        self._admit = admit
        self._history = bytearray(history) if history else None
        self._stream: Any = None
        self.memory = codec.memory(wbits)
        self.used = False

    @property
    def live(self) -> bool:
        return self._stream is not None

    @property
    def history(self) -> bytes:
        return bytes(self._history[-MAX_HISTORY:]) if self._history is not None else b""

    def deflate(self, data: bytes) -> bytes:
        self.used = True
        # Looked at once: another thread may freeze it.
        stream = self._stream
        if stream is None:
            stream = self._stream = self._codec.make_compressor(self._wbits, self.history[-(1 << self._wbits) :])
            if self._admit is not None and not self._admit(self):
                self._stream = None
        try:
            payload = stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
        except BaseException:
            # It may have taken the data, which nobody will get.
            self.forget()
            raise
        self._remember(data)
        return payload[:-4]  # type: ignore[no-any-return]

    def deflate_alone(self, data: bytes) -> bytes:
        stream, self._stream = self._stream or self._codec.make_compressor(self._wbits), None
        # A full flush forgets what was before it.
        payload = stream.compress(data) + stream.flush(zlib.Z_FULL_FLUSH)
        self._stream = stream
        return payload[:-4]  # type: ignore[no-any-return]

    def _remember(self, data: bytes) -> None:
        history = self._history
        if len(data) >= MAX_HISTORY or history is None:
            self._history = bytearray(data[-MAX_HISTORY:])
        else:
            history += data
            if len(history) > _TRIM_AT:
                del history[:-MAX_HISTORY]

    def sent(self, data: bytes) -> None:
        self._stream = None
        self._remember(data)

    def forget(self) -> None:
        self._stream = self._history = None

    def freeze(self) -> bool:
        self._stream = None
        return True


class Inflater:
    """See `Inflating`. ``history`` is what the peer may refer back to. It is never live."""

    __slots__ = ("__weakref__", "_codec", "_history", "_stream", "_unread", "_wbits", "error", "memory", "used")

    def __init__(self, codec: Codec, wbits: int, history: bytes) -> None:
        self._codec = codec
        self._wbits = wbits
        self._history = bytearray(history) if history else None
        self._stream: Any = None
        #: What was given to `inflate` and did not fit into what it returned.
        self._unread = b""
        self.error = codec.error
        self.memory = 0
        self.used = False

    @property
    def live(self) -> bool:
        return False

    @property
    def history(self) -> bytes:
        return bytes(self._history) if self._history is not None else b""

    def inflate(self, data: bytes, room: int) -> bytes:
        if self._unread:
            data, self._unread = self._unread + data, b""
        stream = self._stream or self._begin()
        piece = self._decompress(stream, data, room)
        if stream.eof:
            return self._inflate_behind_final(piece, stream.unused_data, room)
        if len(piece) == room:
            self._unread = stream.unconsumed_tail
        return piece

    def _inflate_behind_final(self, piece: bytes, data: bytes, room: int) -> bytes:
        # A block with BFINAL ends the stream of zlib but not the message (section 7.2.3.4). Where there is one there
        # may be many, and zlib copies all that is behind each.
        pieces = [piece]
        pos = 0
        room -= len(piece)
        stream = self._begin()
        while pos < len(data) and room:
            chunk = data[pos : pos + _STEP]
            piece = self._decompress(stream, chunk, room)
            pieces.append(piece)
            room -= len(piece)
            pos += len(chunk) - len(stream.unused_data if stream.eof else stream.unconsumed_tail)
            if stream.eof:
                stream = self._begin()
        self._unread = data[pos:]
        return b"".join(pieces)

    def _decompress(self, stream: Any, data: bytes, room: int) -> bytes:
        piece: bytes = stream.decompress(data, room)
        window = 1 << self._wbits
        history = self._history
        if history is None or len(piece) >= window:
            self._history = bytearray(piece[-window:])
        else:
            history += piece
            if len(history) > window + (window >> 2):
                del history[:-window]
        return piece

    def _begin(self) -> Any:
        self._stream = self._codec.make_decompressor(self._wbits, self._history or b"")
        return self._stream

    def end(self) -> bool:
        stream = self._stream or self._begin()
        self._stream = None
        try:
            # It has to add nothing, and to be the end of a block: after that either of the stream or of the next block.
            whole = not stream.decompress(TAIL + _FINAL_BLOCK) and stream.eof
        except self.error:
            return False
        return whole and stream.unused_data in (b"", _FINAL_BLOCK)

    def freeze(self) -> bool:
        return True
