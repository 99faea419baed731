"""Frames as RFC 6455 section 5.2 draws them, made without the code under test: right ones and wrong ones."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10

#: Builds frames as one side sends them: `frame` with a mask or without.
Builder = Callable[..., bytes]


class Frame(NamedTuple):
    """One frame: ``opcode`` (int), ``payload`` (bytes), ``fin`` (bool), and ``rsv``, the sum of `RSV1` and the like."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    def encode(self, mask: bytes | None) -> bytes:
        """Return the frame as bytes, under the 4 bytes of ``mask``; None is no mask."""
        body = self.payload if mask is None else xor(self.payload, mask)
        return self.header(mask, len(self.payload)) + body

    def header(self, mask: bytes | None, length: int, length_bytes: int | None = None) -> bytes:
        """Return the header of a frame that claims ``length``, told in ``length_bytes`` more bytes: 0, 2 or 8.

        Raises ValueError for any other number of them.
        """
        size = fewest(length) if length_bytes is None else length_bytes
        if size not in (0, 2, 8):
            raise ValueError(f"length_bytes is {size!r}; it has to be 0, 2 or 8")
        first = (0x80 if self.fin else 0) | self.rsv | self.opcode
        second = (0 if mask is None else 0x80) | {0: length, 2: 126, 8: 127}[size]
        return bytes((first, second)) + (length.to_bytes(size, "big") if size else b"") + (mask or b"")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    masked: bool,
    fin: bool = True,
    rsv: int = 0,
    length: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """Return a frame as bytes. ``length`` lies about the payload, ``length_bytes`` (0, 2 or 8) says it in that many."""
    mask = os.urandom(4) if masked else None
    header = Frame(opcode, payload, fin, rsv).header(mask, len(payload) if length is None else length, length_bytes)
    return header + (xor(payload, mask) if mask else payload)


def close_payload(code: int, reason: str | bytes = b"") -> bytes:
    """Return the payload of a close frame (RFC 6455 section 5.5.1), of any code from 0 to 65535."""
    return struct.pack(">H", code) + (reason.encode() if isinstance(reason, str) else reason)


def deflated(data: bytes, level: int = 6, wbits: int = 15, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Return the payload of a compressed message (RFC 7692 section 7.2.1); its first frame has `RSV1`."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -wbits, zlib.DEF_MEM_LEVEL, strategy)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def inflated(payload: bytes) -> bytes:
    """Return the message of a compressed payload, if it refers to no message before it."""
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


def xor(payload: bytes, mask: bytes) -> bytes:
    """Return ``payload`` masked, or unmasked (RFC 6455 section 5.3)."""
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def fewest(length: int) -> int:
    """Return how many bytes the extended length takes by the rules: 0, 2 or 8."""
    return 0 if length < 126 else 2 if length < 1 << 16 else 8
