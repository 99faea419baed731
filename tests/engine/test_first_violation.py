"""Which violation it is where there are several: the one that comes first in the bytes, however they are cut."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.reading import ENGINES, Outcome, Peer, read
from tests.wire import BINARY, CONTINUATION, RSV1, TEXT, Frame, cut_at, each_byte
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.engine.contract import INFLATED_AT_ONCE
from tornado_ws.errors import ProtocolError

pytestmark = pytest.mark.usefixtures("streams")

#: What no block can begin with, and no code of the fixed ones can be.
GARBAGE = b"\xff" * 8


def blocks(data: bytes, strategy: int = zlib.Z_FIXED, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    compressor = zlib.compressobj(9, wbits=-15, strategy=strategy)
    return compressor.compress(data) + compressor.flush(flush)


def cut_inside(data: bytes, strategy: int, cut: int) -> bytes:
    payload = blocks(data, strategy)
    return payload[: cut % (len(payload) + 1)]


def outcomes(wire_of: list[Frame], limit: int, *cuts: int) -> list[Outcome]:
    """What both engines, as both ends, make of frames in one piece, byte by byte, and cut."""
    found = []
    for engine in ENGINES:
        for is_client in (True, False):
            peer = Peer(engine, is_client)
            wire = peer.send(*wire_of)
            for chunks in ([wire], list(each_byte(wire)), cut_at(wire, *cuts)):
                for takeover in (True, False):
                    inflater = PerMessageDeflateDecompressor(takeover, None, limit, {"backend": "zlib"})
                    found.append(peer.outcome(*chunks, limit=limit, inflater=inflater))
    return found


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("good", [b"Hello, there", b"a" * 1000], ids=["literals", "matches"])
def test_garbage_behind_the_limit_is_too_big_and_before_it_is_garbage(good: bytes, opcode: int) -> None:
    # The flush ends a block, so that the garbage is the header of the next one.
    for payload in (
        blocks(good) + GARBAGE,
        blocks(good)[:-5] + GARBAGE,
        blocks(good, flush=zlib.Z_FINISH) + GARBAGE,
    ):
        for limit in (1, 5, len(good) - 2, len(good) - 1, len(good), len(good) + 1, 1 << 20):
            frames = [Frame(opcode, payload, rsv=RSV1)]
            found = outcomes(frames, limit, 7, 9, 12, len(payload))
            assert found == [found[0]] * len(found)
            if payload != blocks(good)[:-5] + GARBAGE:
                assert found[0] == Outcome([], 1009 if limit < len(good) else 1007)


messages = st.one_of(
    st.binary(max_size=30),
    st.text("aé€", max_size=30).map(str.encode),
    st.builds(lambda data, times: data * times, st.binary(min_size=1, max_size=4), st.integers(1, 400)),
    st.builds(lambda times: b"ab" * times, st.integers(INFLATED_AT_ONCE // 2 - 3, INFLATED_AT_ONCE // 2 + 3)),
)


@given(
    parts=st.lists(
        st.one_of(
            messages.map(blocks),
            messages.map(lambda data: blocks(data, flush=zlib.Z_FINISH)),
            st.builds(cut_inside, messages, st.sampled_from([zlib.Z_FIXED, zlib.Z_FILTERED]), st.integers(0, 10_000)),
            st.binary(max_size=4),
            st.just(GARBAGE),
        ),
        max_size=4,
    ),
    opcode=st.sampled_from([TEXT, BINARY]),
    fragments=st.lists(st.integers(0, 400), max_size=3),
    cuts=st.lists(st.integers(0, 500), max_size=4),
    limit=st.one_of(st.integers(0, 60), st.integers(0, 2000), st.integers(INFLATED_AT_ONCE, INFLATED_AT_ONCE + 3)),
)
@settings(max_examples=300)
def test_the_first_violation_is_the_same_in_both_engines_and_however_it_is_cut(
    parts: list[bytes], opcode: int, fragments: list[int], cuts: list[int], limit: int
) -> None:
    payload = b"".join(parts)
    edges = sorted({0, *(cut for cut in fragments if cut < len(payload)), len(payload)})
    pieces = [payload[begin:end] for begin, end in pairwise(edges)] or [b""]
    frames = [
        Frame(CONTINUATION if i else opcode, piece, i == len(pieces) - 1, 0 if i else RSV1)
        for i, piece in enumerate(pieces)
    ]
    found = outcomes([Frame(BINARY, b"x"), *frames] if limit else frames, limit, *cuts)
    assert found == [found[0]] * len(found)


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        (100, [Frame(TEXT, b"a", fin=False), Frame(CONTINUATION, b"\xff\xff")]),
        (100, [Frame(TEXT, b"a", fin=False), Frame(TEXT, b"b")]),
        (10, [Frame(BINARY, b"a", fin=False), Frame(CONTINUATION, b"b" * 10)]),
        (100, [Frame(TEXT, blocks(b"a"), False, RSV1), Frame(CONTINUATION, GARBAGE)]),
        (10, [Frame(TEXT, blocks(b"a" * 20), False, RSV1), Frame(CONTINUATION, b"\x00")]),
        (100, [Frame(TEXT, blocks(b"ab")[:3], True, RSV1)]),
        (1, [Frame(TEXT, b"abc")]),
    ],
)
def test_behind_a_violation_no_message_is_under_way(peer: Peer, limit: int, sent: list[Frame]) -> None:
    wire = peer.send(*sent)
    for cut in range(len(wire) + 1):
        for chunks in (cut_at(wire, cut), list(each_byte(wire))):
            reader = peer.reader(limit, PerMessageDeflateDecompressor(True, None, limit))
            assert read(reader, chunks).close_code is not None
            assert not reader.in_message
            reader.feed(wire)
            assert not reader.in_message


def test_what_does_not_inflate_stays_so() -> None:
    for size in (10, 5000, 40_000):
        inflater = PerMessageDeflateDecompressor(True, None, size - 1)
        assert len(inflater.inflate(blocks(b"ab" * (size // 2)) + GARBAGE, size - 1)) == size
        with pytest.raises(ProtocolError):
            inflater.inflate(b"", size)
