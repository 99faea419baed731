"""Blocks with BFINAL in compressed messages (RFC 7692 section 7.2.3.4): they end a stream of deflate and no message."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.reading import Outcome, Peer
from tests.wire import BINARY, RSV1, TEXT, Frame, cut_at, each_byte
from tornado_ws.deflate.backends import Codec
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor, inflate_all
from tornado_ws.deflate.module_streams import BYTES_A_FINAL, MAX_FINALS, is_empty_stream
from tornado_ws.deflate.offload import OffloadingInflater, Rest
from tornado_ws.engine.contract import DEFERRED, INFLATED_AT_ONCE
from tornado_ws.engine.validation import decode_text
from tornado_ws.errors import ProtocolError

pytestmark = pytest.mark.usefixtures("streams")

#: Each ends its stream and gives nothing.
EMPTY = [b"\x03\x00", b"\x03\xa8", b"\x01\x00\x00\xff\xff", b"\xf9\x00\x00\xff\xff", b"\x02\x08\x20\xc0\x00"]
#: One byte, "a".
LITERAL = b"\x4b\x04\x00"
LIMIT = 1 << 20


def inflater(takeover: bool = True) -> PerMessageDeflateDecompressor:
    return PerMessageDeflateDecompressor(takeover, None, LIMIT)


def finished(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def flushed(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def wire_of(peer: Peer, *payloads: bytes, opcode: int = TEXT) -> bytes:
    return peer.send(*(Frame(opcode, payload, rsv=RSV1) for payload in payloads))


# The end of a message

ENDS = {
    "and its octet": finished(b"Hello") + b"\x00",
    "and no octet": finished(b"Hello"),
    "stored": b"\x01\x05\x00\xfa\xffHello",
    "an empty one behind a flush": flushed(b"Hello") + b"\x00\x00\xff\xff\x03\x00",
    "several empty ones": finished(b"Hello") + b"".join(EMPTY),
    "two streams": finished(b"Hel") + finished(b"lo"),
    "an empty one first": b"\x03\x00" + finished(b"Hello"),
}


@pytest.mark.parametrize("payload", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("takeover", [True, False])
def test_a_message_may_end_with_a_final_block(peer: Peer, takeover: bool, payload: bytes) -> None:
    wire = wire_of(peer, payload, flushed(b"next"), payload, payload)
    text, between = (TEXT, "Hello", 5), (TEXT, "next", 4)
    expected = Outcome([text, between, text, text])
    assert peer.outcome(*each_byte(wire), inflater=inflater(takeover)) == expected
    for cut in range(len(wire) + 1):
        assert peer.outcome(*cut_at(wire, cut), inflater=inflater(takeover)) == expected
    for cut in range(len(payload) + 1):
        fragments = [Frame(TEXT, payload[:cut], False, RSV1), Frame(0, payload[cut:]), Frame(TEXT, b"plain")]
        outcome = peer.outcome(peer.send(*fragments), inflater=inflater(takeover))
        assert outcome == Outcome([text, (TEXT, "plain", 5)])


def test_a_message_behind_a_final_block_may_refer_to_what_was_before(peer: Peer) -> None:
    words = random.Random(1).randbytes(2000)
    follower = zlib.compressobj(wbits=-15, zdict=words)
    payload = (follower.compress(words) + follower.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(payload) < 100
    event = (BINARY, words, 2000)
    wire = wire_of(peer, finished(words), payload, opcode=BINARY)
    assert peer.outcome(wire, inflater=inflater()) == Outcome([event, event])
    assert peer.outcome(*each_byte(wire), inflater=inflater()) == Outcome([event, event])


@pytest.mark.parametrize("payload", [b"", finished(b"Hello")[:-1], finished(b"Hello") + b"\xf2"])
@pytest.mark.parametrize("takeover", [True, False])
def test_what_is_cut_short_elsewhere_is_refused_behind_a_final_block_too(
    peer: Peer, takeover: bool, payload: bytes
) -> None:
    wire = wire_of(peer, finished(b"one"), payload)
    expected = Outcome([(TEXT, "one", 3)], 1007)
    assert peer.outcome(wire, inflater=inflater(takeover)) == expected
    assert peer.outcome(*each_byte(wire), inflater=inflater(takeover)) == expected


@pytest.mark.parametrize("takeover", [True, False])
def test_what_a_thread_inflates_may_end_with_a_final_block(peer: Peer, takeover: bool) -> None:
    text = "large " * 1000
    offloading = OffloadingInflater(inflater(takeover), 1000, LIMIT)
    for payload in (finished(text.encode()), flushed(text.encode()), finished(text.encode())):
        ((opcode, (rest, begun), _),), code = peer.outcome(wire_of(peer, payload), inflater=offloading)
        assert (opcode, code) == (TEXT | DEFERRED, None)
        assert isinstance(rest, Rest)
        # What the thread does.
        assert rest._inflate(TEXT, begun, decode_text) == (text, len(text))
        offloading.waiting -= 1


# Work


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each object of a Python module was given to inflate."""
    given: list[int] = []
    make = Codec.make_decompressor

    class Counting:
        def __init__(self, inner: Any) -> None:
            self._inner = inner
            given.append(0)

        def decompress(self, data: bytes, room: int = 0) -> Any:
            given[-1] += len(data)
            return self._inner.decompress(data, room)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    monkeypatch.setattr(Codec, "make_decompressor", lambda codec, *args: Counting(make(codec, *args)))
    return given


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("kind", ["stored", "dense"])
def test_inflating_piece_by_piece_copies_nothing_of_what_is_left(begun: list[int], kind: str, final: bool) -> None:
    size = 8 << 20
    compressor = zlib.compressobj(0 if kind == "stored" else 9, wbits=-15)
    data = random.Random(2).randbytes(size) if kind == "stored" else bytes(40 * size)
    payload = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    if final:
        payload = LITERAL + payload
    subject = inflater()
    tracemalloc.start()
    try:
        got = len(subject.inflate(payload, 2 * len(data)))
        while True:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            piece = subject.inflate(b"", 2 * len(data))
            got += len(piece)
            assert tracemalloc.get_traced_memory()[1] - before < 4 * INFLATED_AT_ONCE
            if len(piece) < INFLATED_AT_ONCE:
                break
    finally:
        tracemalloc.stop()
    assert got == len(data) + final
    # Of each step, what its object did not use is given again.
    assert sum(begun) <= len(payload) + 64 * 1024 * (got // INFLATED_AT_ONCE + 2)


@pytest.mark.parametrize("block", EMPTY)
@pytest.mark.parametrize("takeover", [True, False])
def test_a_flood_of_empty_final_blocks_begins_no_stream_for_each(
    peer: Peer, begun: list[int], takeover: bool, block: bytes
) -> None:
    wire = wire_of(peer, block * 100_000, flushed(b"next"))
    outcome = peer.outcome(*cut_at(wire, *range(0, len(wire), 65_531)), inflater=inflater(takeover))
    assert outcome == Outcome([(TEXT, "", 0), (TEXT, "next", 4)])
    assert len(begun) < 100


def test_a_flood_of_other_final_blocks_is_refused_at_the_same_block_however_it_is_cut(
    peer: Peer, begun: list[int]
) -> None:
    # The first number of blocks that is too many, by the rule and not by the code.
    most = next(count for count in range(1, 10_000) if count > MAX_FINALS + len(LITERAL) * count // BYTES_A_FINAL)
    for count in (most, most + 1):
        # It is seen where another one begins.
        expected = Outcome([(TEXT, "a" * count, count)]) if count == most else Outcome([], 1008)
        wire = wire_of(peer, LITERAL * count)
        for chunks in ([wire], cut_at(wire, *range(0, len(wire), 7)), list(each_byte(wire))):
            assert peer.outcome(*chunks, inflater=inflater()) == expected
    del begun[:]
    assert peer.outcome(wire_of(peer, LITERAL * 300_000), inflater=inflater()).close_code == 1008
    assert len(begun) <= most
    # It is a message's and not a connection's.
    wire = wire_of(peer, *[LITERAL * (most // 2)] * 5)
    assert len(peer.outcome(wire, inflater=inflater()).events) == 5


@pytest.mark.parametrize("data", [b"", b"x", b"Hello" * 20])
def test_many_messages_put_together_of_streams_of_their_own_arrive(peer: Peer, data: bytes) -> None:
    count = MAX_FINALS
    wire = wire_of(peer, finished(data) * count, opcode=BINARY)
    assert peer.outcome(wire, inflater=inflater()) == Outcome([(BINARY, data * count, len(data) * count)])


def test_only_empty_blocks_are_free() -> None:
    assert all(is_empty_stream(len(block), 0) for block in EMPTY)
    assert not is_empty_stream(len(LITERAL), 1)
    for block in EMPTY:
        stream = zlib.decompressobj(-15)
        assert stream.decompress(block + b"behind") == b""
        assert stream.unused_data == b"behind"


streams_of_deflate = st.one_of(
    st.sampled_from([*EMPTY, LITERAL, b"\x02\x0c\x00", b"\x00\x00\x00\xff\xff", b"\x00"]),
    st.binary(max_size=30).map(finished),
    st.binary(max_size=30).map(lambda data: flushed(data) + b"\x00\x00\xff\xff"),
    st.binary(max_size=3),
)


@given(
    parts=st.lists(st.lists(streams_of_deflate, max_size=6).map(b"".join), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 300), max_size=8),
    takeover=st.booleans(),
    limit=st.integers(0, 60),
)
def test_streams_in_a_row_are_the_same_however_they_are_cut(
    peer: Peer, parts: list[bytes], cuts: list[int], takeover: bool, limit: int
) -> None:
    wire = wire_of(peer, *parts, opcode=BINARY)
    whole = peer.outcome(wire, limit=limit, inflater=inflater(takeover))
    assert peer.outcome(*cut_at(wire, *cuts), limit=limit, inflater=inflater(takeover)) == whole
    assert known(parts, takeover, limit) == (whole.events, whole.close_code is None)


def known(parts: list[bytes], takeover: bool, limit: int) -> tuple[list[Any], bool]:
    """The same by zlib alone: a new object behind each final block, and the tail behind each message."""
    events: list[Any] = []
    window = b""
    for part in parts:
        data, message, stream = part, b"", None
        window = window if takeover else b""
        try:
            while data:
                stream = zlib.decompressobj(-15, zdict=window)
                piece = stream.decompress(data)
                message += piece
                window = (window + piece)[-32768:]
                data = stream.unused_data
            if stream is None or not stream.eof:
                stream = stream or zlib.decompressobj(-15)
                # It may have been left on.
                tail = b"" if part.endswith(b"\x00\x00\xff\xff") else b"\x00\x00\xff\xff"
                if stream.decompress(tail + b"\x01\x00\x00\xff\xff") or not stream.eof:
                    return events, False
                if stream.unused_data not in (b"", b"\x01\x00\x00\xff\xff"):
                    return events, False
        except zlib.error:
            return events, False
        if len(message) > limit:
            return events, False
        events.append((BINARY, message, len(message)))
    return events, True


def test_room_that_is_used_up_ends_nothing() -> None:
    payload = finished(b"a" * 300_000) * 2
    subject = inflater()
    for _ in range(2):
        assert inflate_all(subject, payload, 600_000) == b"a" * 600_000
        subject.end_message()
    with pytest.raises(ProtocolError):
        subject.inflate(finished(b"x") + b"\xff" * 10, 100)
