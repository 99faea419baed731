"""Senders that leave on what RFC 7692 section 7.2.1 takes off the end of a compressed message.

Tornado, websockets and Node's ws take one such message, for zlib waits for the rest of the second tail; with a context
that is taken over they read the next message as that rest. The last bits that a sender leaves when it takes the tail
off are zeros, so there is no doubt when it is still there.
"""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.reading import Outcome, Peer
from tests.wire import CONTINUATION, RSV1, TEXT, Frame, cut_at, each_byte
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.deflate.module_streams import TAIL

pytestmark = pytest.mark.usefixtures("streams")

LIMIT = 1 << 20
BACKENDS = ["zlib", "zlib_ng", "isal", "auto"]
WORDS = [b"Hello, there", b"Hello, again, there", b"", b"Hello" * 300]


def payloads(takeover: bool, level: int = 6, flush: int = zlib.Z_SYNC_FLUSH) -> list[bytes]:
    """Compressed messages whose tails are left on."""
    made = []
    compressor = zlib.compressobj(level, wbits=-15)
    for words in WORDS:
        if not takeover or not words:
            compressor = zlib.compressobj(level, wbits=-15)
        made.append(compressor.compress(words) + compressor.flush(flush))
        assert made[-1].endswith(TAIL)
    return made


def inflater(takeover: bool, backend: str = "zlib") -> PerMessageDeflateDecompressor:
    return PerMessageDeflateDecompressor(takeover, None, LIMIT, {"backend": backend})


def events(*texts: bytes) -> list[tuple[int, str, int]]:
    return [(TEXT, text.decode(), len(text)) for text in texts]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [0, 6])
@pytest.mark.parametrize("takeover", [True, False])
def test_a_tail_that_was_left_on_is_the_tail(peer: Peer, takeover: bool, level: int, backend: str) -> None:
    wire = peer.send(*(Frame(TEXT, payload, rsv=RSV1) for payload in payloads(takeover, level)))
    expected = Outcome(events(*WORDS))
    assert peer.outcome(wire, inflater=inflater(takeover, backend)) == expected
    assert peer.outcome(*each_byte(wire), inflater=inflater(takeover, backend)) == expected
    for cut in range(0, len(wire), 7):
        assert peer.outcome(*cut_at(wire, cut), inflater=inflater(takeover, backend)) == expected


@pytest.mark.parametrize("takeover", [True, False])
def test_it_may_stand_in_fragments(peer: Peer, takeover: bool) -> None:
    payload = payloads(takeover)[0]
    for cut in range(len(payload) + 1):
        frames = [Frame(TEXT, payload[:cut], False, RSV1), Frame(CONTINUATION, payload[cut:])]
        outcome = peer.outcome(peer.send(*frames, *frames), inflater=inflater(takeover))
        assert outcome == Outcome(events(WORDS[0], WORDS[0]))


@pytest.mark.parametrize("takeover", [True, False])
def test_it_may_be_left_on_now_and_then(peer: Peer, takeover: bool) -> None:
    made = payloads(takeover)
    made[1], made[3] = made[1].removesuffix(TAIL), made[3].removesuffix(TAIL)
    wire = peer.send(*(Frame(TEXT, payload, rsv=RSV1) for payload in made))
    assert peer.outcome(wire, inflater=inflater(takeover)) == Outcome(events(*WORDS))
    assert peer.outcome(*each_byte(wire), inflater=inflater(takeover)) == Outcome(events(*WORDS))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("takeover", [True, False])
def test_behind_a_final_block_it_is_that_of_the_block_that_it_ends(peer: Peer, takeover: bool, backend: str) -> None:
    compressor = zlib.compressobj(wbits=-15)
    finished = compressor.compress(b"Hello") + compressor.flush()
    for payload, expected in (
        # A block of its own, from its header on.
        (finished + b"\x00" + TAIL, Outcome(events(b"Hello", b"Hello"))),
        # The last block is that.
        (finished + b"\x01" + TAIL, Outcome(events(b"Hello", b"Hello"))),
        # No header: it is a stored block of 65,280 bytes that is cut short.
        (finished + TAIL, Outcome([], 1007)),
    ):
        wire = peer.send(Frame(TEXT, payload, rsv=RSV1), Frame(TEXT, payload, rsv=RSV1))
        for chunks in ([wire], list(each_byte(wire))):
            assert peer.outcome(*chunks, inflater=inflater(takeover, backend)) == expected


@given(
    parts=st.lists(
        st.one_of(
            st.binary(max_size=6),
            st.sampled_from([TAIL, b"\x00" + TAIL, b"\x01" + TAIL, b"\x02\x00", b"\x4a\x04", b"\x00", b"\xff"]),
            st.builds(
                lambda data, strategy: zlib.compressobj(9, 8, -15, 9, strategy).compress(data), st.binary(), st.just(4)
            ),
        ),
        max_size=4,
    ),
    backend=st.sampled_from(BACKENDS),
    takeover=st.booleans(),
    cut=st.integers(0, 60),
)
@settings(max_examples=500)
def test_whatever_has_it_at_its_end_is_the_same_by_every_backend_and_at_every_cut(
    peer: Peer, parts: list[bytes], backend: str, takeover: bool, cut: int
) -> None:
    frame = Frame(TEXT, b"".join(parts) + TAIL, rsv=RSV1)
    wire = peer.send(frame, frame)
    expected = peer.outcome(wire, inflater=inflater(takeover))
    for chunks in ([wire], list(each_byte(wire)), cut_at(wire, cut)):
        assert peer.outcome(*chunks, inflater=inflater(takeover, backend)) == expected
