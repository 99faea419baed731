"""permessage-deflate (RFC 7692): the codec of one connection. Negotiation is in `handshake`."""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass
from typing import Any

from tornado_ws.closing import INVALID_PAYLOAD
from tornado_ws.errors import ProtocolError

#: What a sender leaves away at the end of a message and a receiver puts back (section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"
#: An empty final block. A stream ends there at once, but only if it stands between two blocks.
_FINAL_BLOCK = b"\x01\x00\x00\xff\xff"

#: Bytes inflated at a time behind a block with BFINAL.
_STEP = 1024

#: Tornado's level for both HTTP and WebSocket compression.
DEFAULT_LEVEL = 6
DEFAULT_MEM_LEVEL = 8

#: zlib cannot deflate with a window of 256 bytes (it needs 262 bytes of look-ahead).
MIN_DEFLATE_WBITS = 9


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


class _PerMessageDeflateCompressor:
    """Compresses the messages of one direction; the name and arguments are Tornado's.

    The compressor is made at the first message, so a connection that only receives has none.
    """

    __slots__ = ("_compressor", "_level", "_max_wbits", "_mem_level", "_persistent")

    def __init__(
        self, persistent: bool, max_wbits: int | None, compression_options: dict[str, Any] | None = None
    ) -> None:
        options = compression_options or {}
        self._persistent = persistent
        self._max_wbits = max(MIN_DEFLATE_WBITS, _check_wbits(max_wbits))
        self._level: int = options.get("compression_level", DEFAULT_LEVEL)
        self._mem_level: int = options.get("mem_level", DEFAULT_MEM_LEVEL)
        self._compressor: zlib._Compress | None = None

    def compress(self, data: bytes) -> bytes:
        """Return the payload of a compressed message, its tail removed (section 7.2.1)."""
        compressor = self._compressor
        if compressor is None:
            compressor = zlib.compressobj(self._level, zlib.DEFLATED, -self._max_wbits, self._mem_level)
            if self._persistent:
                self._compressor = compressor
        return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


class _PerMessageDeflateDecompressor:
    """Inflates the messages of one direction, piece by piece; the name and arguments are Tornado's."""

    __slots__ = ("_decompressor", "_max_message_size", "_max_wbits", "_persistent")

    def __init__(
        self,
        persistent: bool,
        max_wbits: int | None,
        max_message_size: int,
        compression_options: dict[str, Any] | None = None,
    ) -> None:
        self._persistent = persistent
        self._max_wbits = _check_wbits(max_wbits)
        self._max_message_size = max_message_size
        self._decompressor: zlib._Decompress | None = None

    def decompress(self, data: bytes) -> bytes:
        """Return a whole message. Raises `_DecompressTooLargeError` beyond ``max_message_size``, as Tornado's does."""
        message = self.inflate(data, self._max_message_size)
        if len(message) > self._max_message_size:
            raise _DecompressTooLargeError
        self.end_message()
        return message

    def inflate(self, data: bytes, limit: int) -> bytes:
        """Return what ``data`` inflates to, one byte more than ``limit`` standing for all that are too many.

        Raises `.ProtocolError` for what does not inflate.
        """
        pieces = []
        pos = 0
        step = len(data)
        while True:
            decompressor = self._current()
            chunk = data if step == len(data) else data[pos : pos + step]
            try:
                # Zero would mean no limit, so the one byte more is wanted here too.
                piece = decompressor.decompress(chunk, min(limit + 1, sys.maxsize))
            except zlib.error as error:
                reason = "compressed message that does not inflate"
                raise ProtocolError(INVALID_PAYLOAD, reason, f"{reason} ({error})") from None
            limit -= len(piece)
            pieces.append(piece)
            pos += len(chunk)
            if decompressor.eof:
                # A block with BFINAL ends the stream of zlib but not the message (section 7.2.3.4). Where there is one
                # there may be many, and zlib copies all that is behind each.
                pos -= len(decompressor.unused_data)
                step = _STEP
                self._decompressor = None
            if pos >= len(data) or limit < 0:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def end_message(self) -> None:
        """Raise `.ProtocolError` unless the message's stream ends between two blocks."""
        decompressor = self._current()
        try:
            # It has to add nothing, and to be the end of a block: after that either of the stream or of the next block.
            whole = decompressor.decompress(_TAIL) == b""
            ended = decompressor
            if not decompressor.eof:
                ended = decompressor.copy()
                whole = whole and ended.decompress(_FINAL_BLOCK) == b""
            whole = whole and ended.eof and not ended.unused_data
        except zlib.error:
            whole = False
        if not whole:
            raise ProtocolError(INVALID_PAYLOAD, "compressed message that is cut short")
        if decompressor.eof or not self._persistent:
            self._decompressor = None

    def _current(self) -> zlib._Decompress:
        if self._decompressor is None:
            self._decompressor = zlib.decompressobj(-self._max_wbits)
        return self._decompressor
