"""Streams of deflate of both kinds: what we deflate zlib inflates, and what comes is inflated as zlib does."""

from __future__ import annotations

import zlib

from tornado_ws.deflate.backends import Codec
from tornado_ws.deflate.interfaces import Deflating, Inflating
from tornado_ws.deflate.module_streams import TAIL, Deflater, Inflater
from tornado_ws.deflate.options import deflate_options

_ROOM = 1 << 16
#: wbits of the largest window.
_LARGEST = 15


def _inflate(stream: Inflating, payload: bytes, piece: int) -> bytes | None:
    """Return the message, None where there is none."""
    got = b""
    try:
        for at in range(0, len(payload) or 1, piece):
            got += stream.inflate(payload[at : at + piece], _ROOM)
    except stream.error:
        return None
    return got if stream.end() else None


def _inflate_by_zlib(payload: bytes, wbits: int) -> bytes | None:
    """Return the message, None where zlib alone does not see its end."""
    stream = zlib.decompressobj(-wbits)
    try:
        # Some senders leave the tail on.
        got = stream.decompress(payload if payload.endswith(TAIL) else payload + TAIL)
        # Only between two blocks is an empty final one the end.
        stream.decompress(b"\x01\x00\x00\xff\xff")
    except zlib.error:
        return None
    return got if stream.eof and not stream.unused_data else None


def _inflate_by_both(codec: Codec, wbits: int, payload: bytes, piece: int) -> bytes | None:
    streams: list[Inflating] = [codec.make_inflater(wbits), Inflater(codec, wbits, b"")]
    first, second = [_inflate(stream, payload, piece) for stream in streams]
    assert first == second, (codec, first, second)
    return first


def _check_inflating(payload: bytes, wbits: int, piece: int) -> None:
    by_zlib = _inflate_by_zlib(payload, wbits)
    for backend in ("zlib", "zlib_ng"):
        codec = deflate_options({"backend": backend}).codecs.to_inflate(1)
        whole, in_pieces = [_inflate_by_both(codec, wbits, payload, size) for size in (len(payload) or 1, piece)]
        if whole != in_pieces:
            # The peer refers behind the window: zlib finds it where it has no more than the window at hand.
            assert (whole is None) != (in_pieces is None), (backend, whole, in_pieces)
            for size in (len(payload), piece):
                largest = _inflate_by_both(codec, _LARGEST, payload, size)
                assert largest == (in_pieces if whole is None else whole), (backend, whole, in_pieces, largest)
        elif by_zlib is not None and len(by_zlib) < _ROOM:
            assert whole == by_zlib, (backend, whole, by_zlib)


def _check_deflating(content: bytes, wbits: int, piece: int) -> None:
    codec = deflate_options({"backend": "zlib"}).codecs.to_deflate(1)
    streams: list[Deflating] = [codec.make_deflater(wbits), Deflater(codec, wbits, b"", None)]
    for stream in streams:
        peer = zlib.decompressobj(-wbits)
        for number, at in enumerate(range(0, len(content), piece)):
            message = content[at : at + piece]
            # Each step is also where the stream may be put out, or its context dropped.
            if message[0] & 7 == 1:
                stream.freeze()
            elif message[0] & 7 == 2:
                stream.forget()
            alone = message[0] & 7 == 3
            payload = stream.deflate_alone(message) if alone and not number else stream.deflate(message)
            assert peer.decompress(payload + TAIL) == message


def check(data: bytes) -> None:
    """The first byte is the window and the direction, the second the size of the pieces; the rest is the content."""
    if len(data) < 2:
        return
    wbits, piece, content = 9 + data[0] % 7, data[1] or 1, data[2:]
    if data[0] & 0x80:
        _check_deflating(content, wbits, piece)
    else:
        _check_inflating(content, wbits, piece)
