"""permessage-deflate (RFC 7692): the codec of one connection. Negotiation is in `handshake`.

Between two messages neither direction needs more than the last bytes that went through it, for a stream of deflate can
be taken up anew by whoever knows them. An inflater is made for each message, since the peer may refer back to all of
its window; a deflater that is in use is kept, since it finds more the longer it lives (`deflate_memory`).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tornado_ws.closing import INVALID_PAYLOAD
from tornado_ws.deflate_backends import LARGE_MESSAGE, Codec, Deflating, Inflating
from tornado_ws.deflate_memory import LiveStream, StreamPool
from tornado_ws.deflate_options import MIN_DEFLATE_WBITS, DeflateOptions, deflate_options
from tornado_ws.errors import ProtocolError
from tornado_ws.frames import INFLATED_AT_ONCE

#: What a sender leaves away at the end of a message and a receiver puts back (section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"
#: An empty final block. A stream ends there at once, but only if it stands between two blocks.
_FINAL_BLOCK = b"\x01\x00\x00\xff\xff"
#: An empty message: to a flush that has nothing to flush, some backends answer with nothing.
_EMPTY = b"\x00"

#: Bytes inflated at a time behind a block with BFINAL.
_STEP = 1024
#: Bytes sent before that a compressor begins on which takes the place of another. More cost more time than they save.
_MAX_HISTORY = 2048

#: Bytes of them at which the oldest are dropped.
_TRIM_AT = 4 * 1024

_SYNC_FLUSH = zlib.Z_SYNC_FLUSH

_pool = StreamPool()


@dataclass(frozen=True)
class DeflateParams:
    """What was agreed (section 7.1), in the words of the header: windows in bits, None where none was named."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None


class _DecompressTooLargeError(Exception):
    pass


def _check_wbits(max_wbits: int | None) -> int:
    if max_wbits is None:
        return zlib.MAX_WBITS
    if not 8 <= max_wbits <= zlib.MAX_WBITS:
        raise ValueError(f"Invalid max_wbits value {max_wbits!r}; allowed range 8-{zlib.MAX_WBITS}")
    return max_wbits


def compress_alone(
    data: bytes, options: DeflateOptions | Mapping[str, Any] | None = None, max_wbits: int = zlib.MAX_WBITS
) -> bytes:
    """Return the payload of a compressed message that refers to nothing before it.

    Any peer can inflate it whose window is at least ``max_wbits`` (9 to 15). Whoever sends it on a connection with
    context takeover has to tell that connection's compressor, by `_PerMessageDeflateCompressor.forget`.
    """
    if not data:
        return _EMPTY
    return _pool.compress(data, deflate_options(options).codecs.to_deflate(len(data)), max_wbits)[: -len(_TAIL)]


class _PerMessageDeflateCompressor:
    """Compresses the messages of one direction; the name and arguments are Tornado's.

    The compressor is made at the first message, so a connection that only receives has none.
    """

    __slots__ = ("_codecs", "_history", "_live", "_max_wbits", "_options", "_persistent", "offload_size", "threshold")

    def __init__(
        self,
        persistent: bool,
        max_wbits: int | None,
        compression_options: Mapping[str, Any] | DeflateOptions | None = None,
    ) -> None:
        self._options = deflate_options(compression_options)
        self._codecs = self._options.codecs
        self._persistent = persistent
        self._max_wbits = max(MIN_DEFLATE_WBITS, _check_wbits(max_wbits))
        #: Bytes that a message has to have to be worth compressing.
        self.threshold = self._options.threshold
        #: Bytes from which a thread is to compress it.
        self.offload_size = self._options.offload_size if self._options.offload_size is not None else sys.maxsize
        self._live: LiveStream | None = None
        #: What the peer has last in its window.
        self._history: bytearray | None = None

    def __del__(self) -> None:
        # The stream is in a list of those that are live, which has no other way to learn of it.
        live = getattr(self, "_live", None)
        if live is not None:
            live.stream = None

    def compress(self, data: bytes) -> bytes:
        """Return the payload of a compressed message, its tail removed (section 7.2.1)."""
        if not data:
            return _EMPTY
        if not self._persistent:
            return compress_alone(data, self._options, self._max_wbits)
        size = len(data)
        # As `Codecs.to_deflate`, without the call.
        codec = self._codecs.deflate_small if size < LARGE_MESSAGE else self._codecs.deflate_large
        live = self._live
        # Looked at once: another thread may put it out.
        stream = live.stream if live is not None and live.codec is codec else None
        if stream is None:
            stream = self._begin(codec)
        else:
            live.used = True  # type: ignore[union-attr]
        try:
            payload = stream.compress(data) + stream.flush(_SYNC_FLUSH)
        except BaseException:
            # It may have taken the data, which nobody will get.
            self.forget()
            raise
        history = self._history
        if size >= _MAX_HISTORY or history is None or len(history) > _TRIM_AT:
            self._remember(data)
        else:
            history += data
        return payload[:-4]

    def compress_shared(self, data: bytes, shared: dict[Any, bytes]) -> bytes:
        """As `compress`, but without reference to anything before, and made once for all that have the same options.

        ``shared`` is where it is kept, one for each ``data``.
        """
        key = (self._options, self._max_wbits)
        payload = shared.get(key)
        if payload is None:
            payload = shared[key] = compress_alone(data, self._options, self._max_wbits)
        self.forget(data)
        return payload

    def forget(self, sent: bytes = b"") -> None:
        """Drop the context, so that the next message refers to nothing that this compressor has compressed.

        ``sent`` is what the peer got since, compressed by somebody else: the next message may refer to that.
        """
        if self._live is not None:
            self._live.stream = None
            self._live = None
        if not sent:
            self._history = None
        elif self._persistent:
            self._remember(sent)

    def _begin(self, codec: Codec) -> Deflating:
        if self._live is not None:
            self._live.stream = None
        history = self._history[-self._history_size :] if self._history else b""
        stream = codec.make_compressor(self._max_wbits, history)
        self._live = LiveStream(codec, self._max_wbits, stream)
        self._options.live.admit(self._live)
        return stream

    @property
    def _history_size(self) -> int:
        return min(_MAX_HISTORY, 1 << self._max_wbits)

    def _remember(self, data: bytes) -> None:
        if len(data) >= _MAX_HISTORY or self._history is None:
            self._history = bytearray(data[-_MAX_HISTORY:])
        else:
            self._history += data
            del self._history[:-_MAX_HISTORY]


class _PerMessageDeflateDecompressor:
    """Inflates the messages of one direction, piece by piece; the name and arguments are Tornado's."""

    __slots__ = (
        "_codec",
        "_history",
        "_max_message_size",
        "_max_wbits",
        "_options",
        "_persistent",
        "_stream",
        "_unread",
    )

    def __init__(
        self,
        persistent: bool,
        max_wbits: int | None,
        max_message_size: int,
        compression_options: Mapping[str, Any] | DeflateOptions | None = None,
    ) -> None:
        self._options = deflate_options(compression_options)
        self._persistent = persistent
        self._max_wbits = _check_wbits(max_wbits)
        self._max_message_size = max_message_size
        self._codec: Codec | None = None
        self._stream: Inflating | None = None
        #: What the peer may refer back to.
        self._history: bytearray | None = None
        #: What was given to `inflate` and did not fit into what it returned.
        self._unread = b""

    def decompress(self, data: bytes) -> bytes:
        """Return a whole message. Raises `_DecompressTooLargeError` beyond ``max_message_size``, as Tornado's does."""
        message = inflate_all(self, data, self._max_message_size)
        if len(message) > self._max_message_size:
            raise _DecompressTooLargeError
        self.end_message()
        return message

    def inflate(self, data: bytes, limit: int) -> bytes:
        """Return what ``data`` inflates to; see `.frames.Inflater`."""
        room = limit + 1 if limit < INFLATED_AT_ONCE else INFLATED_AT_ONCE
        if self._unread:
            data, self._unread = self._unread + data, b""
        stream = self._stream
        if stream is None:
            self._codec = self._options.codecs.to_inflate(len(data))
            stream = self._begin()
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

    def _decompress(self, stream: Inflating, data: bytes, room: int) -> bytes:
        assert self._codec is not None
        try:
            piece = stream.decompress(data, room)
        except self._codec.error as error:
            reason = "compressed message that does not inflate"
            raise ProtocolError(INVALID_PAYLOAD, reason, f"{reason} ({error})") from None
        if self._persistent:
            self._remember(piece)
        return piece

    def _remember(self, piece: bytes) -> None:
        window = 1 << self._max_wbits
        history = self._history
        if history is None or len(piece) >= window:
            self._history = bytearray(piece[-window:])
        else:
            history += piece
            if len(history) > window + (window >> 2):
                del history[:-window]

    def end_message(self) -> None:
        """Raise `.ProtocolError` unless the message's stream ends between two blocks."""
        stream = self._stream or self._begin()
        try:
            # It has to add nothing, and to be the end of a block: after that either of the stream or of the next block.
            whole = not stream.decompress(_TAIL + _FINAL_BLOCK) and stream.eof
            whole = whole and stream.unused_data in (b"", _FINAL_BLOCK)
        except self._codec.error:  # type: ignore[union-attr]
            whole = False
        if not whole:
            raise ProtocolError(INVALID_PAYLOAD, "compressed message that is cut short")
        self._stream = None

    def _begin(self) -> Inflating:
        if self._codec is None:
            self._codec = self._options.codecs.inflate_small
        self._stream = self._codec.make_decompressor(self._max_wbits, self._history or b"")
        return self._stream


def inflate_all(inflater: Any, data: bytes, limit: int) -> bytes:
    """Return all that ``data`` inflates to, one byte more than ``limit`` standing for all that are too many."""
    piece = inflater.inflate(data, limit)
    if len(piece) < INFLATED_AT_ONCE:
        return piece  # type: ignore[no-any-return]
    pieces = []
    while True:
        pieces.append(piece)
        limit -= len(piece)
        if limit < 0 or len(piece) < INFLATED_AT_ONCE:
            return b"".join(pieces)
        piece = inflater.inflate(b"", limit)
