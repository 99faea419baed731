"""The codec of permessage-deflate (RFC 7692 section 7.2), by the names and arguments that Tornado gave it."""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire import cut_at, deflated, each_byte
from tornado_ws.deflate.codec import (
    DecompressTooLargeError,
    PerMessageDeflateCompressor,
    PerMessageDeflateDecompressor,
)
from tornado_ws.deflate.negotiation import DeflateParams
from tornado_ws.errors import ProtocolError

pytestmark = pytest.mark.usefixtures("streams")

LIMIT = 1 << 20
TEXT = b"the quick brown fox jumps over the lazy dog; " * 20
#: Without any repetition.
NOISE = random.Random(0).randbytes(20_000)


def inflater(persistent: bool = True, max_wbits: int | None = None) -> PerMessageDeflateDecompressor:
    return PerMessageDeflateDecompressor(persistent, max_wbits, LIMIT)


def finished(data: bytes, level: int = 6) -> bytes:
    """The payload of a sender that ends its blocks with BFINAL (section 7.2.3.4)."""
    compressor = zlib.compressobj(level, wbits=-15)
    return compressor.compress(data) + compressor.flush(zlib.Z_FINISH) + b"\x00"


BROKEN = "compressed message that does not inflate"
CUT_SHORT = "compressed message that is cut short"


def refused(call: Callable[..., object], *args: object) -> str:
    """The reason that the peer is told."""
    with pytest.raises(ProtocolError) as caught:
        call(*args)
    assert caught.value.close_code == 1007
    return caught.value.reason


# Round trips


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("max_wbits", [None, *range(8, 16)])
@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.rfc("7692-7.2.1-tail")
def test_messages_survive_a_round_trip(persistent: bool, max_wbits: int | None, level: int) -> None:
    compressor = PerMessageDeflateCompressor(persistent, max_wbits, {"compression_level": level})
    decompressor = PerMessageDeflateDecompressor(persistent, max_wbits, LIMIT, {"compression_level": level})
    for message in (TEXT, b"", TEXT, NOISE, b"a", b"", b"", TEXT * 50, bytes(70_000), NOISE + TEXT):
        payload = compressor.compress(message)
        assert not payload.endswith(b"\x00\x00\xff\xff")
        assert decompressor.decompress(payload) == message


@pytest.mark.rfc("7692-7.2.1-tail")
def test_a_message_compresses_as_in_the_rfc() -> None:
    compressor = PerMessageDeflateCompressor(True, None)
    assert compressor.compress(b"Hello").hex() == "f248cdc9c90700"
    assert compressor.compress(b"Hello").hex() == "f200110000"
    assert PerMessageDeflateCompressor(True, None).compress(b"").hex() == "00"


@pytest.mark.rfc("7692-7.2.1-tail")
def test_an_empty_message_is_never_an_empty_payload() -> None:
    # Section 7.2.3.6; a flush after a flush gives nothing.
    for persistent in (True, False):
        compressor = PerMessageDeflateCompressor(persistent, None)
        assert [compressor.compress(message).hex() for message in (b"", b"", b"")] == ["00", "00", "00"]


@pytest.mark.rfc("7692-7.1.1.1-not-taken-over", "7692-7.1.1.2-not-taken-over")
def test_takeover_refers_to_earlier_messages_and_no_takeover_does_not() -> None:
    taken_over, afresh = PerMessageDeflateCompressor(True, None), PerMessageDeflateCompressor(False, None)
    first, second = taken_over.compress(NOISE), taken_over.compress(NOISE)
    assert len(second) < len(first) / 10
    assert afresh.compress(NOISE) == afresh.compress(NOISE) == first


def test_without_takeover_a_reference_to_an_earlier_message_does_not_inflate() -> None:
    compressor = PerMessageDeflateCompressor(True, None)
    payloads = [compressor.compress(b"Hello"), compressor.compress(b"Hello")]
    decompressor = inflater(persistent=False)
    assert decompressor.decompress(payloads[0]) == b"Hello"
    assert refused(decompressor.decompress, payloads[1]) == BROKEN


@pytest.mark.parametrize("max_wbits", range(8, 15))
@pytest.mark.rfc("7692-7.2.1-window")
def test_a_window_is_kept_to_by_both_directions(max_wbits: int) -> None:
    # What lies just beyond the window, and what the smallest window still holds.
    distance = (1 << max_wbits) + 10
    message = NOISE[:distance] * 2 + NOISE[:200] * 2

    def inflate(payload: bytes) -> bytes:
        # Byte by byte, for zlib does not look at its window for what one call gives.
        decompressor = inflater(max_wbits=max_wbits)
        pieces = [decompressor.inflate(byte, LIMIT) for byte in each_byte(payload)]
        decompressor.end_message()
        return b"".join(pieces)

    assert inflate(PerMessageDeflateCompressor(True, max_wbits).compress(message)) == message
    too_far_back = PerMessageDeflateCompressor(True, 15).compress(message)
    assert refused(inflate, too_far_back) == BROKEN


def test_levels_and_memory_levels_are_zlibs() -> None:
    words = [b"alpha", b"beta", b"gamma", b"delta", b"alphabet", b"gamut"]
    message = b" ".join(random.Random(0).choices(words, k=2000))

    def payload(**options: Any) -> bytes:
        return PerMessageDeflateCompressor(True, None, options).compress(message)

    assert [payload(compression_level=level) for level in range(10)] == [
        deflated(message, level) for level in range(10)
    ]
    assert len({payload(compression_level=level) for level in range(9)}) == 9
    assert payload(mem_level=1) != payload(mem_level=9)
    assert payload() == payload(compression_level=6, mem_level=8)
    assert PerMessageDeflateCompressor(True, None).compress(message) == payload()


# What may stand in a stream

STREAMS = {
    "section 7.2.3.1, one block": ("f248cdc9c90700", b"Hello"),
    "section 7.2.3.3, stored": ("000500faff48656c6c6f00", b"Hello"),
    "section 7.2.3.4, BFINAL": ("f348cdc9c9070000", b"Hello"),
    "section 7.2.3.5, two blocks": ("f248050000 00ffffcac9c90700", b"Hello"),
    "section 7.2.3.6, empty": ("00", b""),
    "two blocks with BFINAL": ("f348cdc9c90700 f348cdc9c90700 00", b"HelloHello"),
    "a block with BFINAL, then one without": ("f348cdc9c90700 f248cdc9c90700", b"HelloHello"),
    "an empty block with BFINAL": ("0300 00", b""),
    "a stored block with BFINAL": ("010500faff48656c6c6f 00", b"Hello"),
    "empty stored blocks": ("000000ffff 000000ffff 00", b""),
    "an empty stored block with BFINAL as the last": ("01", b""),
}


@pytest.mark.parametrize(("payload", "message"), STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.rfc("7692-7.2.2-tail", "7692-7.2.2-blocks", "7692-7.2.3-examples")
def test_inflates_any_stream_of_blocks(payload: str, message: bytes, persistent: bool) -> None:
    decompressor = inflater(persistent)
    data = bytes.fromhex(payload)
    assert decompressor.decompress(data) == message
    assert decompressor.decompress(data) == message
    assert decompressor.decompress(bytes.fromhex("f248cdc9c90700")) == b"Hello"
    assert b"".join(decompressor.inflate(byte, LIMIT) for byte in each_byte(data)) == message
    decompressor.end_message()


@pytest.mark.parametrize("strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE])
@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.rfc("7692-7.2.2-blocks")
def test_inflates_in_any_pieces(level: int, strategy: int) -> None:
    payload = deflated(TEXT + NOISE, level, strategy=strategy)
    for step in (1, 7, 100, len(payload)):
        decompressor = inflater()
        pieces = cut_at(payload, *range(step, len(payload), step))
        assert b"".join(decompressor.inflate(piece, LIMIT) for piece in pieces) == TEXT + NOISE
        decompressor.end_message()


def test_inflates_what_has_arrived_at_once() -> None:
    decompressor = inflater()
    assert decompressor.inflate(bytes.fromhex("000500faff4865"), LIMIT) == b"He"
    assert decompressor.inflate(bytes.fromhex("6c"), LIMIT) == b"l"
    assert decompressor.inflate(b"", LIMIT) == b""
    assert decompressor.inflate(bytes.fromhex("6c6f00"), LIMIT) == b"lo"
    decompressor.end_message()


@pytest.mark.parametrize("persistent", [True, False])
def test_messages_follow_one_that_ended_with_bfinal(persistent: bool) -> None:
    decompressor = inflater(persistent)
    for message in (TEXT, b"Hello", NOISE):
        assert decompressor.decompress(finished(message)) == message
        assert decompressor.decompress(deflated(message)) == message


# What may not

WHOLE = {
    "fixed codes": deflated(b"Hello, Hello, World", strategy=zlib.Z_FIXED),
    "dynamic codes": deflated(TEXT),
    "dynamic codes, literals alone": deflated(TEXT, strategy=zlib.Z_HUFFMAN_ONLY),
    "stored": deflated(b"stored bytes, 24 of them", level=0),
    "many stored": deflated(bytes(range(256)), level=0),
    "BFINAL, fixed": finished(b"Hello"),
    "BFINAL, dynamic": finished(TEXT),
    "BFINAL, stored": finished(b"stored", level=0),
    "BFINAL, stored, as long as what is put back": finished(b"1234", level=0),
    "empty": b"\x00",
}
#: The first byte of a stored block is a whole stream by itself: nobody can tell that more was to come.
EMPTY = (b"\x00", b"\x01")


@pytest.mark.parametrize("payload", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("persistent", [True, False])
def test_a_stream_cut_short_is_never_delivered(payload: bytes, persistent: bool) -> None:
    inflater(persistent).decompress(payload)
    for cut in range(len(payload)):
        stream = zlib.decompressobj(-15)
        stream.decompress(payload[:cut])
        # Behind a block with BFINAL it is whole, with or without its octet.
        if payload[:cut] in EMPTY or stream.eof:
            continue
        assert refused(inflater(persistent).decompress, payload[:cut]) == CUT_SHORT, cut
        decompressor = inflater(persistent)
        for byte in each_byte(payload[:cut]):
            decompressor.inflate(byte, LIMIT)
        assert refused(decompressor.end_message) == CUT_SHORT, cut


def test_a_later_message_cut_short_is_not_delivered_either() -> None:
    compressor = PerMessageDeflateCompressor(True, None)
    payloads = [compressor.compress(TEXT) for _ in range(3)]
    for cut in range(len(payloads[2])):
        decompressor = inflater()
        assert [decompressor.decompress(payload) for payload in payloads[:2]] == [TEXT, TEXT]
        assert refused(decompressor.decompress, payloads[2][:cut]) == CUT_SHORT


GARBAGE = {
    "a block type that is reserved": "07",
    "a stored length that does not match": "000500faee48656c6c6f00",
    "a distance before the beginning": "f200110000",
    "a code that no symbol has": "edc0ffffffffffffff",
    "random": "d1f5a7c3b09e",
    "text": "48656c6c6f2c20776f726c64",
    "a zlib header": "789cf248cdc9c90700",
    "the tail left on twice": "f248cdc9c907000000ffff0000ffff",
    "the tail behind a stored block that is cut": "000600f9ff480000ffff",
    "nothing but the tail": "0000ffff",
    "garbage after the last block": "f248cdc9c90700 00ffff 07",
    "garbage after BFINAL": "f348cdc9c90700 07",
}


@pytest.mark.parametrize("payload", GARBAGE.values(), ids=GARBAGE)
def test_refuses_what_does_not_inflate(payload: str) -> None:
    data = bytes.fromhex(payload)
    for persistent in (True, False):
        assert refused(inflater(persistent).decompress, data) in (BROKEN, CUT_SHORT)


# The size limit


@pytest.mark.parametrize("limit", [0, 1, 5, 1000, 65536])
@pytest.mark.parametrize("level", [0, 6])
def test_inflates_up_to_the_limit_and_no_further(limit: int, level: int) -> None:
    exact, beyond = deflated(b"x" * limit, level), deflated(b"x" * (limit + 1), level)
    assert inflater().inflate(exact, limit) == b"x" * limit
    assert inflater().inflate(beyond, limit) == b"x" * (limit + 1)
    assert inflater().inflate(deflated(b"x" * (limit + 1000), level), limit) == b"x" * (limit + 1)
    assert PerMessageDeflateDecompressor(True, None, limit).decompress(exact) == b"x" * limit
    with pytest.raises(DecompressTooLargeError):
        PerMessageDeflateDecompressor(True, None, limit).decompress(beyond)


def test_the_limit_is_shared_by_the_blocks_with_bfinal_of_one_message() -> None:
    hello = bytes.fromhex("f348cdc9c90700")
    assert PerMessageDeflateDecompressor(True, None, 15).decompress(hello * 3 + b"\x00") == b"Hello" * 3
    assert len(inflater().inflate(hello * 3 + b"\x00", 14)) == 15
    assert len(inflater().inflate(hello * 3 + b"\x00", 10)) == 11
    assert len(inflater().inflate(hello * 3 + b"\x00", 8)) == 9
    with pytest.raises(DecompressTooLargeError):
        PerMessageDeflateDecompressor(True, None, 14).decompress(hello * 3 + b"\x00")


@pytest.mark.parametrize("limit", [sys.maxsize - 1, sys.maxsize])
def test_the_limit_may_be_the_largest_size_there_is(limit: int) -> None:
    hello = bytes.fromhex("f248cdc9c90700")
    assert inflater().inflate(hello, limit) == b"Hello"
    assert PerMessageDeflateDecompressor(True, None, limit).decompress(hello) == b"Hello"


def test_decompress_tells_a_broken_stream_from_a_large_one() -> None:
    assert refused(PerMessageDeflateDecompressor(True, None, 1).decompress, b"\x07") == BROKEN


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    limit = 64 * 1024
    bomb = deflated(bytes(64 << 20))
    decompressor = inflater()
    decompressor.decompress(deflated(b"warm"))
    tracemalloc.start()
    try:
        assert len(decompressor.inflate(bomb, limit)) == limit + 1
        assert tracemalloc.get_traced_memory()[1] < 4 * limit + len(bomb)
    finally:
        tracemalloc.stop()


# Memory


def kept_by(make: Callable[[], object]) -> int:
    """Return how many bytes what ``make`` returns takes. The least of some: other threads allocate memory too."""
    make()
    return min(_kept_now(make) for _ in range(3))


def _kept_now(make: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
        del made
        return kept
    finally:
        tracemalloc.stop()


def used_compressor(persistent: bool, *messages: bytes) -> object:
    compressor = PerMessageDeflateCompressor(persistent, None)
    for message in messages:
        compressor.compress(message)
    return compressor


def used_decompressor(persistent: bool, *messages: bytes) -> object:
    decompressor = inflater(persistent)
    for message in messages:
        decompressor.decompress(deflated(message))
    return decompressor


@pytest.mark.parametrize("make", [used_compressor, used_decompressor])
@pytest.mark.parametrize("persistent", [True, False])
def test_nothing_is_allocated_before_the_first_message(make: Callable[..., object], persistent: bool) -> None:
    assert kept_by(lambda: make(persistent)) < 1024


@pytest.mark.parametrize("make", [used_compressor, used_decompressor])
def test_only_takeover_keeps_a_window_between_messages(make: Callable[..., object]) -> None:
    assert kept_by(lambda: make(False, TEXT)) < 1024
    assert kept_by(lambda: make(True, TEXT)) > len(TEXT)


# Arguments


@pytest.mark.parametrize("max_wbits", [-15, 0, 7, 16, 31])
def test_refuses_a_window_that_the_rfc_does_not_have(max_wbits: int) -> None:
    with pytest.raises(ValueError, match=rf"max_wbits value {max_wbits}; allowed range 8-15"):
        PerMessageDeflateCompressor(True, max_wbits)
    with pytest.raises(ValueError, match=rf"max_wbits value {max_wbits}; allowed range 8-15"):
        PerMessageDeflateDecompressor(True, max_wbits, LIMIT)


def test_takes_tornados_arguments_by_name_and_by_position() -> None:
    options = {"compression_level": 1, "mem_level": 1}
    by_name = PerMessageDeflateCompressor(persistent=True, max_wbits=15, compression_options=options)
    by_position = PerMessageDeflateCompressor(True, 15, options)
    assert by_name.compress(TEXT) == (payload := by_position.compress(TEXT))
    decompressor = PerMessageDeflateDecompressor(
        persistent=True, max_wbits=15, max_message_size=LIMIT, compression_options=options
    )
    assert decompressor.decompress(payload) == TEXT
    assert PerMessageDeflateDecompressor(True, 15, LIMIT, options).decompress(payload) == TEXT


def test_agreed_parameters_are_a_value() -> None:
    assert DeflateParams() == DeflateParams(False, False, None, None)
    assert DeflateParams(server_max_window_bits=9) != DeflateParams(client_max_window_bits=9)
    assert len({DeflateParams(), DeflateParams()}) == 1
