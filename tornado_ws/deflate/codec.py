"""permessage-deflate (RFC 7692): the codec of one connection."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from tornado_ws.close_codes import INVALID_PAYLOAD
from tornado_ws.deflate.backends import LARGE_MESSAGE, LARGE_PAYLOAD, Codec
from tornado_ws.deflate.interfaces import Deflating, Inflating
from tornado_ws.deflate.options import MIN_DEFLATE_WBITS, DeflateOptions, deflate_options
from tornado_ws.deflate.streams import StreamPool
from tornado_ws.engine.contract import INFLATED_AT_ONCE
from tornado_ws.errors import ProtocolError

#: The payload of an empty message: to a flush that has nothing to flush, some backends answer with nothing.
_EMPTY = b"\x00"

_pool = StreamPool()


class DecompressTooLargeError(Exception):
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
    context takeover has to tell that connection's compressor, by `PerMessageDeflateCompressor.forget`.
    """
    if not data:
        return _EMPTY
    return _pool.deflate(data, deflate_options(options).codecs.to_deflate(len(data)), max_wbits)


class PerMessageDeflateCompressor:
    """Compresses the messages of one direction; the name and arguments are Tornado's.

    The compressor is made at the first message, so a connection that only receives has none.
    """

    __slots__ = ("_codec", "_codecs", "_max_wbits", "_options", "_persistent", "_stream", "offload_size", "threshold")

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
        #: Bytes from which a thread is to compress it, None for never.
        self.offload_size = self._options.offload_size
        self._codec: Codec | None = None
        self._stream: Deflating | None = None

    def compress(self, data: bytes) -> bytes:
        """Return the payload of a compressed message, its tail removed (section 7.2.1)."""
        if not data:
            return _EMPTY
        if not self._persistent:
            return compress_alone(data, self._options, self._max_wbits)
        # As `Codecs.to_deflate`, without the call.
        codec = self._codecs.deflate_small if len(data) < LARGE_MESSAGE else self._codecs.deflate_large
        stream = self._stream
        if stream is None or codec is not self._codec:
            stream = self._change_to(codec)
        return stream.deflate(data)

    def _change_to(self, codec: Codec) -> Deflating:
        history = self._stream.history if self._stream is not None else b""
        self._codec = codec
        self._stream = codec.make_deflater(self._max_wbits, history, self._options.live.admit)
        return self._stream

    def begin_message(self) -> Callable[[bytes], bytes]:
        """Return what deflates a message part by part: each payload is without its tail, as that of `compress`.

        Between two of them this may not compress anything else.
        """
        if self._persistent:
            return self.compress
        return self._codecs.deflate_large.make_deflater(self._max_wbits, b"", self._options.live.admit).deflate

    def is_offloaded(self, data: bytes) -> bool:
        """Whether a thread is to compress ``data``."""
        return self.offload_size is not None and len(data) >= self.offload_size

    def compress_shared(self, data: bytes, shared: dict[Any, bytes]) -> bytes:
        """As `compress`, but without reference to anything before, and made once for all that have the same options.

        ``shared`` is where it is kept, one for each ``data``.
        """
        payload = self.deflate_shared(data, shared)
        self.forget(data)
        return payload

    @property
    def sharing_key(self) -> tuple[DeflateOptions, int]:
        """This is what two compressors have in common whose connections can get the same payloads."""
        return self._options, self._max_wbits

    def deflate_shared(self, data: bytes, shared: dict[Any, bytes]) -> bytes:
        """As `compress_shared`, without a change of this compressor: `forget` has to be told of ``data``."""
        key = self.sharing_key
        payload = shared.get(key)
        if payload is None:
            payload = shared[key] = compress_alone(data, *key)
        return payload

    def forget(self, sent: bytes = b"") -> None:
        """Drop the context, so that the next message refers to nothing that this compressor has compressed.

        ``sent`` is what the peer got since, compressed by somebody else: the next message may refer to that.
        """
        if sent and self._persistent:
            stream = self._stream or self._change_to(self._codecs.deflate_small)
            stream.sent(sent)
        elif self._stream is not None:
            self._stream.forget()


class PerMessageDeflateDecompressor:
    """Inflates the messages of one direction, piece by piece; the name and arguments are Tornado's."""

    __slots__ = ("_begun", "_codec", "_codecs", "_max_message_size", "_max_wbits", "_options", "_persistent", "_stream")

    def __init__(
        self,
        persistent: bool,
        max_wbits: int | None,
        max_message_size: int,
        compression_options: Mapping[str, Any] | DeflateOptions | None = None,
    ) -> None:
        self._options = deflate_options(compression_options)
        self._codecs = self._options.codecs
        self._persistent = persistent
        self._max_wbits = _check_wbits(max_wbits)
        self._max_message_size = max_message_size
        self._codec: Codec | None = None
        self._stream: Inflating | None = None
        #: Whether a message has begun and not ended.
        self._begun = False

    def decompress(self, data: bytes) -> bytes:
        """Return a whole message. Raises `DecompressTooLargeError` beyond ``max_message_size``, as Tornado's does."""
        message = inflate_all(self, data, self._max_message_size)
        if len(message) > self._max_message_size:
            raise DecompressTooLargeError
        self.end_message()
        return message

    def inflate(self, data: bytes, limit: int) -> bytes:
        """Return what ``data`` inflates to; see `.contract.Inflater`."""
        stream = self._stream
        if stream is None or not self._begun:
            # As `Codecs.to_inflate`, without the call.
            codec = self._codecs.inflate_small if len(data) < LARGE_PAYLOAD else self._codecs.inflate_large
            if stream is None or codec is not self._codec:
                stream = self._change_to(codec)
            self._begun = True
        try:
            return stream.inflate(data, limit + 1 if limit < INFLATED_AT_ONCE else INFLATED_AT_ONCE)
        except stream.error as error:
            reason = "compressed message that does not inflate"
            raise ProtocolError(INVALID_PAYLOAD, reason, f"{reason} ({error})") from None

    def _change_to(self, codec: Codec) -> Inflating:
        history = self._stream.history if self._stream is not None else b""
        self._codec = codec
        # Without context takeover the stream ends with its message.
        admit = self._options.live.admit if self._persistent else None
        self._stream = codec.make_inflater(self._max_wbits, history, admit)
        return self._stream

    def end_message(self) -> None:
        """Raise `.ProtocolError` unless the message's stream ends between two blocks."""
        if not self._begun:
            # It has no payload.
            self.inflate(b"", 0)
        stream = self._stream
        assert stream is not None
        self._begun = False
        if not self._persistent:
            self._stream = None
        if not stream.end():
            raise ProtocolError(INVALID_PAYLOAD, "compressed message that is cut short")


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
