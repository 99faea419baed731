"""What a small payload may do to us: no more memory than the limit allows, and no error but a violation."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.reading import Outcome, Peer
from tests.wire import BINARY, RSV1, TEXT, Frame, cut_at
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor, compress_alone, inflate_all
from tornado_ws.deflate.ratio import RatioLimitedInflater
from tornado_ws.engine.contract import INFLATED_AT_ONCE, Inflater
from tornado_ws.errors import ProtocolError

pytestmark = pytest.mark.usefixtures("streams")

BACKENDS = ["zlib", "zlib_ng", "isal", "auto"]
LIMIT = 4 << 20


def bomb(size: int, final: bool = False) -> bytes:
    """Zeros, which deflate to a thousandth."""
    compressor = zlib.compressobj(9, wbits=-15)
    payload = compressor.compress(bytes(size))
    return payload + (compressor.flush(zlib.Z_FINISH) + b"\x00" if final else compressor.flush(zlib.Z_SYNC_FLUSH)[:-4])


BOMBS = {"one stream": bomb(64 << 20), "many with BFINAL": bomb(1 << 20, final=True)[:-1] * 64 + b"\x00"}


@pytest.mark.parametrize("payload", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_bomb_takes_the_limit_and_one_block(peer: Peer, payload: bytes, backend: str, opcode: int) -> None:
    wire = peer.send(Frame(opcode, payload, rsv=RSV1))
    inflater = PerMessageDeflateDecompressor(True, None, LIMIT, {"backend": backend})
    inflate_all(inflater, compress_alone(b"warm"), LIMIT)
    inflater.end_message()
    tracemalloc.start()
    try:
        outcome = peer.outcome(wire, limit=LIMIT, inflater=inflater)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome == Outcome([], 1009)
    # Memory that grows is an eighth larger than what it has, and a block is put together of smaller ones.
    assert peak < LIMIT * 9 / 8 + 3 * INFLATED_AT_ONCE + 3 * len(payload)


def test_a_ratio_stops_a_bomb_long_before_the_limit(peer: Peer) -> None:
    wire = peer.send(Frame(BINARY, bomb(64 << 20), rsv=RSV1))
    inner = PerMessageDeflateDecompressor(True, None, LIMIT)
    tracemalloc.start()
    try:
        outcome = peer.outcome(*cut_at(wire, 500), limit=LIMIT, inflater=RatioLimitedInflater(inner, 10))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome == Outcome([], 1009)
    assert peak < LIMIT / 4


def test_a_ratio_is_that_of_a_message_and_not_of_a_connection(peer: Peer) -> None:
    inflater = RatioLimitedInflater(PerMessageDeflateDecompressor(True, None, LIMIT), 100)
    frames = [Frame(BINARY, compress_alone(bytes(60_000)), rsv=RSV1)] * 10
    assert peer.outcome(peer.send(*frames), limit=LIMIT, inflater=inflater).close_code is None


payloads = st.one_of(
    st.binary(max_size=400),
    # One that is right but for a byte or its end.
    st.builds(
        lambda data, at, byte, end: (lambda good: good[: at % len(good)] + byte + good[at % len(good) + 1 :][:end])(
            compress_alone(data)
        ),
        st.one_of(st.binary(max_size=2000), st.just(bytes(300_000)), st.just(b"abcdefgh" * 4000)),
        st.integers(0, 10_000),
        st.binary(max_size=2),
        st.integers(0, 10_000),
    ),
    st.builds(lambda data: bomb(data, final=True) * 3, st.integers(0, 300_000)),
)


def fed(inflater: Inflater, payload: bytes, cuts: list[int], limit: int) -> int | None:
    """Return how many bytes ``payload`` inflates to, None where it is refused."""
    size = 0
    try:
        for piece in cut_at(payload, *(cut for cut in cuts if cut < len(payload))):
            size += len(inflate_all(inflater, piece, limit - size))
            if size > limit:
                return size
        inflater.end_message()
    except ProtocolError:
        return None
    return size


@given(
    payload=payloads,
    backend=st.sampled_from(BACKENDS),
    wbits=st.integers(8, 15),
    takeover=st.booleans(),
    limit=st.integers(0, 200_000),
    ratio=st.none() | st.integers(1, 50),
    cuts=st.lists(st.integers(0, 3000), max_size=5),
)
@settings(max_examples=500)
def test_any_payload_inflates_within_the_limit_or_is_a_violation(
    payload: bytes, backend: str, wbits: int, takeover: bool, limit: int, ratio: int | None, cuts: list[int]
) -> None:
    inflater: Inflater = PerMessageDeflateDecompressor(takeover, wbits, limit, {"backend": backend})
    if ratio is not None:
        inflater = RatioLimitedInflater(inflater, ratio)
    # Twice: the first one has left a context behind.
    for _ in range(2):
        size = fed(inflater, payload, cuts, limit)
        if size is None or size > limit:
            assert size is None or size == limit + 1
            return
        assert ratio is None or size <= max(64 * 1024, len(payload) * ratio)
