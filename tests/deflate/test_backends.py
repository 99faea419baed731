"""Every backend reads what every other one writes, within any window and with or without context takeover."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire import each_byte
from tornado_ws.deflate import backends
from tornado_ws.deflate.codec import (
    PerMessageDeflateCompressor,
    PerMessageDeflateDecompressor,
    compress_alone,
    inflate_all,
)
from tornado_ws.deflate.module_streams import Deflater
from tornado_ws.deflate.options import deflate_options
from tornado_ws.deflate.streams import LiveStreams
from tornado_ws.errors import ProtocolError

pytestmark = pytest.mark.usefixtures("streams")

LIMIT = 1 << 22
BACKENDS = ["zlib", "zlib_ng", "isal", "auto"]
NOISE = random.Random(0).randbytes(70_000)
LEVELS: dict[str, list[int | None]] = {"zlib": [0, None], "zlib_ng": [None, 1, 9], "isal": [0, None, 3], "auto": [None]}

#: Messages that refer to each other, from near and far, and none.
MESSAGES = [
    NOISE[:3000] + NOISE[:2000],
    b"",
    b"a",
    NOISE[:400],
    b"small messages that are alike, number 1",
    b"small messages that are alike, number 2",
    NOISE[:40_000],
    NOISE[35_000:36_000] + NOISE[:500],
    b"x" * 300_000,
    NOISE + NOISE[:100],
    b"",
]


def strictly_inflated(payloads: list[bytes], wbits: int, takeover: bool) -> list[bytes]:
    """Inflate with zlib, a byte at a time: a reference beyond the window is an error then."""
    messages = []
    inflater = zlib.decompressobj(-wbits)
    for payload in payloads:
        messages.append(b"".join(map(inflater.decompress, each_byte(payload + b"\x00\x00\xff\xff"))))
        if not takeover:
            inflater = zlib.decompressobj(-wbits)
    return messages


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("wbits", [9, 10, 12, 15])
@pytest.mark.parametrize("takeover_memory", [0, 1 << 24], ids=["always afresh", "live"])
def test_a_window_is_kept_to(backend: str, takeover: bool, wbits: int, takeover_memory: int) -> None:
    for level in LEVELS[backend]:
        options = {"backend": backend, "compression_level": level, "takeover_memory": takeover_memory}
        compressor = PerMessageDeflateCompressor(takeover, wbits, options)
        payloads = [compressor.compress(message) for message in MESSAGES]
        assert strictly_inflated(payloads, wbits, takeover) == MESSAGES


messages = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.builds(lambda start, size: NOISE[start : start + size], st.integers(0, 60_000), st.integers(0, 9000)),
        st.builds(lambda byte, size: bytes((byte,)) * size, st.integers(0, 255), st.integers(0, 200_000)),
    ),
    max_size=8,
)


@given(
    messages=messages,
    there=st.sampled_from(BACKENDS),
    here=st.sampled_from(BACKENDS),
    wbits=st.integers(9, 15),
    takeover=st.booleans(),
    takeover_memory=st.sampled_from([0, 400_000, 1 << 24]),
    mem_level=st.integers(1, 9),
    cuts=st.integers(1, 5000),
)
@settings(max_examples=200)
def test_what_one_backend_deflates_any_other_inflates(
    messages: list[bytes],
    there: str,
    here: str,
    wbits: int,
    takeover: bool,
    takeover_memory: int,
    mem_level: int,
    cuts: int,
) -> None:
    options = {"backend": there, "mem_level": mem_level, "takeover_memory": takeover_memory}
    compressor = PerMessageDeflateCompressor(takeover, wbits, options)
    decompressor = PerMessageDeflateDecompressor(takeover, wbits, LIMIT, {"backend": here})
    for number, message in enumerate(messages):
        payload = compressor.compress(message)
        if number == len(messages) // 2:
            compressor.forget()
        pieces = [inflate_all(decompressor, payload[at : at + cuts], LIMIT) for at in range(0, len(payload), cuts)]
        decompressor.end_message()
        assert b"".join(pieces) == message


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [0, 1, 3])
def test_a_limit_is_the_same_for_every_backend(backend: str, level: int) -> None:
    options = {"backend": backend}
    for size in (0, 1, 1000, 131_071, 131_072, 131_073, 400_000):
        payload = compress_alone(bytes(size), {"backend": backend, "compression_level": level})
        exact = PerMessageDeflateDecompressor(True, None, size, options)
        assert exact.decompress(payload) == bytes(size)
        if size:
            small = PerMessageDeflateDecompressor(True, None, size - 1, options)
            assert len(inflate_all(small, payload, size - 1)) == size


BROKEN = ["07", "000500faee48656c6c6f00", "f200110000", "edc0ffffffffffffff"]
CUT_SHORT = [compress_alone(NOISE[:100] + b"text " * 100)[:cut] for cut in range(1, 120, 7)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("payload", [*map(bytes.fromhex, BROKEN), *CUT_SHORT])
def test_what_does_not_inflate_is_refused_by_every_backend(backend: str, payload: bytes) -> None:
    decompressor = PerMessageDeflateDecompressor(True, None, LIMIT, {"backend": backend})
    with pytest.raises(ProtocolError) as caught:
        decompressor.decompress(payload)
    assert caught.value.close_code == 1007


FINAL = [bytes.fromhex(payload) for payload in ("f348cdc9c9070000", "f348cdc9c90700f348cdc9c9070000", "01", "030000")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_block_with_bfinal_ends_no_message_in_any_backend(backend: str) -> None:
    decompressor = PerMessageDeflateDecompressor(True, None, LIMIT, {"backend": backend})
    assert [decompressor.decompress(payload) for payload in FINAL * 2] == [b"Hello", b"HelloHello", b"", b""] * 2
    # All that a peer may do, and the context goes on.
    context = zlib.compressobj(wbits=-15, zdict=b"Hello")
    assert decompressor.decompress(context.compress(b"Hello") + context.flush(zlib.Z_SYNC_FLUSH)[:-4]) == b"Hello"


# What is kept between messages


def codec() -> tuple[PerMessageDeflateCompressor, PerMessageDeflateDecompressor]:
    return PerMessageDeflateCompressor(True, None), PerMessageDeflateDecompressor(True, None, LIMIT)


def trades(count: int) -> list[bytes]:
    return [
        b'{"type": "trade", "id": %d, "pair": "BTC-USD", "price": %d.25}' % (n * 7, 64_000 + n) for n in range(count)
    ]


def sizes(compressor: Any, messages: list[bytes]) -> int:
    return sum(len(compressor.compress(message)) for message in messages)


def test_a_compressor_that_was_put_out_begins_on_what_the_peer_has() -> None:
    live = sizes(PerMessageDeflateCompressor(True, None, {}), trades(100))
    afresh = sizes(PerMessageDeflateCompressor(True, None, {"takeover_memory": 0}), trades(100))
    alone = sizes(PerMessageDeflateCompressor(False, None, {}), trades(100))
    assert afresh < live * 1.2
    assert afresh < alone / 2


def test_live_compressors_are_bounded_and_those_in_use_stay() -> None:
    options = deflate_options({"takeover_memory": 1_000_000})
    busy, *others = (PerMessageDeflateCompressor(True, None, options) for _ in range(40))
    first = busy.compress(b"busy")
    stream = busy._stream
    assert stream is not None
    for other in others:
        other.compress(b"once")
        busy.compress(b"busy")
        assert stream.live
    assert 1 < len(options.live) <= 1_000_000 // stream.memory
    # Those that are gone make room.
    del busy, others, other, stream
    assert len(options.live) == 0
    assert first


def test_no_more_than_the_limit_is_live_though_all_are_in_use() -> None:
    options = deflate_options({"takeover_memory": 500_000, "mem_level": 5})
    compressors = [PerMessageDeflateCompressor(True, None, options) for _ in range(10)]
    for _ in range(3):
        for compressor in compressors:
            compressor.compress(b"again")
    assert len(options.live) == 3
    assert len(LiveStreams(0)) == 0


def test_a_compressor_forgets() -> None:
    compressor, decompressor = (
        PerMessageDeflateCompressor(True, None),
        PerMessageDeflateDecompressor(True, None, LIMIT),
    )
    decompressor.decompress(compressor.compress(NOISE[:1000]))
    compressor.forget()
    payload = compressor.compress(NOISE[:1000])
    assert len(payload) > 1000
    assert decompressor.decompress(payload) == NOISE[:1000]


def test_a_compressor_goes_on_behind_a_message_that_another_compressed() -> None:
    compressor, decompressor = (
        PerMessageDeflateCompressor(True, None),
        PerMessageDeflateDecompressor(True, None, LIMIT),
    )
    decompressor.decompress(compressor.compress(b"its own message"))
    decompressor.decompress(compress_alone(NOISE[:1000]))
    compressor.forget(NOISE[:1000])
    payload = compressor.compress(b"its own message, and " + NOISE[:1000])
    assert len(payload) < 60
    assert decompressor.decompress(payload) == b"its own message, and " + NOISE[:1000]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_compressed_alone_refers_to_nothing(backend: str) -> None:
    options = {"backend": backend}
    for wbits in (9, 12, 15):
        payloads = [compress_alone(message, options, wbits) for message in MESSAGES]
        assert strictly_inflated(payloads, wbits, takeover=False) == MESSAGES


def test_a_compressor_that_fails_refers_to_nothing_that_the_peer_did_not_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "library_of", lambda backend: None)
    compressor, decompressor = (
        PerMessageDeflateCompressor(True, None),
        PerMessageDeflateDecompressor(True, None, LIMIT),
    )
    decompressor.decompress(compressor.compress(b"first"))

    class Failing:
        def __init__(self, stream: Any) -> None:
            self.compress = stream.compress

        def flush(self, mode: int) -> bytes:
            raise MemoryError

    stream = compressor._stream
    assert isinstance(stream, Deflater)
    stream._stream = Failing(stream._stream)
    with pytest.raises(MemoryError):
        compressor.compress(NOISE[:1000])
    assert decompressor.decompress(compressor.compress(NOISE[:1000])) == NOISE[:1000]


@pytest.mark.parametrize("takeover", [True, False])
def test_an_inflater_without_takeover_takes_no_place_among_those_that_stay(takeover: bool) -> None:
    options = deflate_options({"takeover_memory": 200_000})
    stays = PerMessageDeflateDecompressor(True, None, LIMIT, options)
    stays.decompress(compress_alone(b"text"))
    live = stays._stream
    assert live is not None
    was_live = live.live
    for _ in range(20):
        other = PerMessageDeflateDecompressor(takeover, None, LIMIT, options)
        assert other.decompress(compress_alone(b"text")) == b"text"
        live.used = False
    assert live.live is (was_live and not takeover)
