"""Writes the files that the load generator sends from: frames that are masked, and compressed, beforehand.

A file is the number of messages, the sizes of all frames, the sizes of all replies (32 bits each, in the machine's
order), the frames, the payloads of the replies. The load generator sends the frames over and over. That is sound with
context takeover too: the first of them refers to nothing before it.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from tornado.util import _websocket_mask

#: The window sizes that a server may ask of its clients; zlib cannot deflate with one of 8 bits.
_WINDOWS = range(9, 16)
_RSV1 = 0x40


def write_rings(
    prefix: Path, messages: Sequence[str | bytes], replies: Sequence[str | bytes] | None = None, *, deflate: bool
) -> None:
    """Write ``prefix`` with the endings .plain and .raw, and with .z9 to .z15 and .z9n to .z15n if ``deflate``.

    In the file with the ending .raw the reply is what was sent, mask and all; n stands for no context takeover.
    """
    plain = [_encode(message) for message in messages]
    answers = [_encode(reply) for reply in replies or messages]
    first_bytes = [0x81 if isinstance(message, str) else 0x82 for message in messages]
    frames = [_frame(first, payload) for first, payload in zip(first_bytes, plain, strict=True)]
    _write(prefix.with_suffix(".plain"), frames, answers)
    masked = [frame[len(frame) - len(payload) :] for frame, payload in zip(frames, plain, strict=True)]
    _write(prefix.with_suffix(".raw"), frames, masked)
    if not deflate:
        return
    for bits in _WINDOWS:
        for takeover in (True, False):
            packed = _deflate(plain, bits, takeover)
            frames = [_frame(first | _RSV1, payload) for first, payload in zip(first_bytes, packed, strict=True)]
            _write(prefix.with_suffix(f".z{bits}{'' if takeover else 'n'}"), frames, answers)


def _encode(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def _frame(first_byte: int, payload: bytes) -> bytes:
    mask = random.Random(len(payload) + payload[0]).randbytes(4)
    length = len(payload)
    if length < 126:
        header = struct.pack("!BB", first_byte, 0x80 | length)
    elif length <= 0xFFFF:
        header = struct.pack("!BBH", first_byte, 0x80 | 126, length)
    else:
        header = struct.pack("!BBQ", first_byte, 0x80 | 127, length)
    return header + mask + _websocket_mask(mask, payload)


def _deflate(payloads: Sequence[bytes], bits: int, takeover: bool) -> list[bytes]:
    packed = []
    compressor = None
    for payload in payloads:
        if compressor is None or not takeover:
            compressor = zlib.compressobj(6, zlib.DEFLATED, -bits)
        packed.append((compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4])
    return packed


def _write(path: Path, frames: Sequence[bytes], replies: Sequence[bytes]) -> None:
    count = len(frames)
    sizes = [count, *map(len, frames), *map(len, replies)]
    path.write_bytes(b"".join([struct.pack(f"={len(sizes)}I", *sizes), *frames, *replies]))
