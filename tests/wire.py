"""Frames as RFC 6455 section 5.2 draws them, made without the code under test."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MESSAGES = (TEXT, BINARY)
CONTROLS = (CLOSE, PING, PONG)
RESERVED = (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10

#: The masking key of the RFC's examples.
MASK = b"\x37\xfa\x21\x3d"

_SINGLE_BYTES = [bytes((byte,)) for byte in range(256)]


def xor(payload: bytes, mask: bytes) -> bytes:
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def fewest(length: int) -> int:
    """How many bytes the extended length takes by the rules."""
    return 0 if length < 126 else 2 if length < 1 << 16 else 8


class Frame(NamedTuple):
    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    def encode(self, mask: bytes | None) -> bytes:
        body = self.payload if mask is None else xor(self.payload, mask)
        return self.header(mask, len(self.payload)) + body

    def header(self, mask: bytes | None, length: int, length_bytes: int | None = None) -> bytes:
        """The header of a frame that claims ``length``, told in ``length_bytes`` more bytes: 0, 2 or 8."""
        size = fewest(length) if length_bytes is None else length_bytes
        first = (0x80 if self.fin else 0) | self.rsv | self.opcode
        second = (0 if mask is None else 0x80) | {0: length, 2: 126, 8: 127}[size]
        return bytes((first, second)) + (length.to_bytes(size, "big") if size else b"") + (mask or b"")


def deflated(
    data: bytes,
    level: int = 6,
    wbits: int = 15,
    strategy: int = zlib.Z_DEFAULT_STRATEGY,
    flush: int = zlib.Z_SYNC_FLUSH,
) -> bytes:
    """Return the payload of a compressed message (RFC 7692 section 7.2.1)."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -wbits, zlib.DEF_MEM_LEVEL, strategy)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def inflated(payload: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


def close_payload(code: int, reason: str | bytes = b"") -> bytes:
    return struct.pack(">H", code) + (reason.encode() if isinstance(reason, str) else reason)


def each_byte(wire: bytes) -> Iterator[bytes]:
    # Not a generator: a tracer would be called twice for each byte.
    return map(_SINGLE_BYTES.__getitem__, wire)


def cut_at(wire: bytes, *points: int) -> list[bytes]:
    edges = [0, *sorted(points), len(wire)]
    return [wire[start:stop] for start, stop in itertools.pairwise(edges)]
