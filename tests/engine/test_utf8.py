"""Text is UTF-8 (RFC 6455 sections 5.6 and 8.1), refused at the first byte that no text can have there."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import pytest

from tests.engine.model import is_start_of_utf8
from tests.engine.reading import Outcome, Peer, events_now, read
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, RSV1, TEXT, Frame, cut_at, each_byte
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor

#: Each with the index of the first byte that decides.
ILL_FORMED: dict[str, tuple[bytes, int]] = {
    "a continuation byte first, 80": (b"\x80", 0),
    "a continuation byte first, BF": (b"\xbf", 0),
    "overlong in two bytes, C0": (b"\xc0\x80", 0),
    "overlong in two bytes, C1": (b"\xc1\xbf", 0),
    "overlong in three bytes, E0 80": (b"\xe0\x80\x80", 1),
    "overlong in three bytes, E0 9F": (b"\xe0\x9f\xbf", 1),
    "overlong in four bytes, F0 80": (b"\xf0\x80\x80\x80", 1),
    "overlong in four bytes, F0 8F": (b"\xf0\x8f\xbf\xbf", 1),
    "the first surrogate": (b"\xed\xa0\x80", 1),
    "the last surrogate": (b"\xed\xbf\xbf", 1),
    "a pair of surrogates": (b"\xed\xa0\xbd\xed\xb8\x80", 1),
    "beyond U+10FFFF, F4 90": (b"\xf4\x90\x80\x80", 1),
    "beyond U+10FFFF, F4 BF": (b"\xf4\xbf\xbf\xbf", 1),
    "beyond U+10FFFF, F5": (b"\xf5\x80\x80\x80", 0),
    "five bytes, F8": (b"\xf8\x88\x80\x80\x80", 0),
    "six bytes, FC": (b"\xfc\x84\x80\x80\x80\x80", 0),
    "FE": (b"\xfe", 0),
    "FF": (b"\xff", 0),
    "two bytes, the second ASCII": (b"\xc2\x41", 1),
    "two bytes, the second a first": (b"\xdf\xc2\x80", 1),
    "three bytes, the second ASCII": (b"\xe2\x41\x80", 1),
    "three bytes, the second a first": (b"\xe2\xe2\x82", 1),
    "three bytes, the third ASCII": (b"\xe2\x82\x41", 2),
    "three bytes, the third a first": (b"\xef\xbf\xc0", 2),
    "four bytes, the second ASCII": (b"\xf0\x41\x80\x80", 1),
    "four bytes, the third ASCII": (b"\xf0\x9f\x41\x80", 2),
    "four bytes, the fourth ASCII": (b"\xf0\x9f\x98\x41", 3),
    "four bytes, the fourth a first": (b"\xf4\x8f\xbf\xf4", 3),
}
PREFIXES = [b"", b"plain", b"plain text, longer than two words", "κόσμε".encode(), "\U0010ffff".encode()]

WELL_FORMED = [
    "\x00",
    "\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\u0fff",
    "\u1000",
    "\ucfff",
    "\ud000",
    "\ud7ff",
    "\ue000",
    "\ufdd0",
    "\ufeff",
    "\ufffd",
    "\uffff",
    "\U00010000",
    "\U0001f600",
    "\U0003ffff",
    "\U00040000",
    "\U000fffff",
    "\U00100000",
    "\U0010fffe",
    "\U0010ffff",
]


def in_one_frame(peer: Peer, payload: bytes) -> Iterator[bytes]:
    wire = peer.send(Frame(TEXT, payload + b"more"))
    start = len(wire) - len(payload) - 4
    yield wire[:start]
    for i in range(len(payload)):
        yield wire[start + i : start + i + 1]


def in_a_frame_each(peer: Peer, payload: bytes) -> Iterator[bytes]:
    yield peer.send(Frame(TEXT, b"", fin=False))
    for byte in each_byte(payload):
        yield peer.send(Frame(CONTINUATION, byte, fin=False))


def in_a_compressed_frame(peer: Peer, payload: bytes) -> Iterator[bytes]:
    compressor = zlib.compressobj(wbits=-15)
    steps = [compressor.compress(byte) + compressor.flush(zlib.Z_SYNC_FLUSH) for byte in each_byte(payload)]
    wire = peer.send(Frame(TEXT, b"".join([*steps, b"more"]), rsv=RSV1))
    start = len(wire) - sum(map(len, steps)) - 4
    yield wire[:start]
    for step in steps:
        yield wire[start : start + len(step)]
        start += len(step)


def in_compressed_fragments(peer: Peer, payload: bytes) -> Iterator[bytes]:
    compressor = zlib.compressobj(wbits=-15)
    yield peer.send(Frame(TEXT, b"", fin=False, rsv=RSV1))
    for byte in each_byte(payload):
        step = compressor.compress(byte) + compressor.flush(zlib.Z_SYNC_FLUSH)
        yield peer.send(Frame(CONTINUATION, step, fin=False))


ARRIVALS = {
    "byte by byte inside one frame": in_one_frame,
    "in a frame for each byte": in_a_frame_each,
    "byte by byte inside one compressed frame": in_a_compressed_frame,
    "in a fragment of a compressed message for each byte": in_compressed_fragments,
}


def accepted_bytes(peer: Peer, chunks: Iterator[bytes]) -> int | None:
    """How many bytes of text the reader took before it refused one; None if it took them all."""
    reader = peer.reader(inflater=PerMessageDeflateDecompressor(True, None, 0))
    reader.feed(next(chunks))
    assert events_now(reader) == []
    for count, chunk in enumerate(chunks):
        outcome = read(reader, [chunk])
        assert outcome.events == []
        if outcome.close_code is not None:
            assert outcome.close_code == 1007
            return count
    return None


@pytest.mark.parametrize(("sequence", "offending"), ILL_FORMED.values(), ids=ILL_FORMED)
@pytest.mark.parametrize("arrives", ARRIVALS.values(), ids=ARRIVALS)
@pytest.mark.rfc("6455-8.1-utf8")
def test_refuses_ill_formed_text_at_the_byte_that_decides(
    peer: Peer, arrives: Callable[[Peer, bytes], Iterator[bytes]], sequence: bytes, offending: int
) -> None:
    for prefix in PREFIXES:
        assert accepted_bytes(peer, arrives(peer, prefix + sequence)) == len(prefix) + offending


@pytest.mark.parametrize(("sequence", "offending"), ILL_FORMED.values(), ids=ILL_FORMED)
@pytest.mark.parametrize("prefix", PREFIXES, ids=bytes.hex)
def test_refuses_ill_formed_text_however_it_is_cut(peer: Peer, prefix: bytes, sequence: bytes, offending: int) -> None:
    text = prefix + sequence
    assert peer.outcome(peer.send(Frame(TEXT, text))) == Outcome([], 1007)
    whole = peer.send(Frame(TEXT, text))
    for point in range(len(whole)):
        assert peer.outcome(*cut_at(whole, point)) == Outcome([], 1007)
    decided = len(prefix) + offending + 1
    for point in range(decided + 1):
        first, rest = Frame(TEXT, text[:point], fin=False), Frame(CONTINUATION, text[point:decided], fin=False)
        assert peer.outcome(peer.send(first, rest)) == Outcome([], 1007)


def test_decides_about_each_pair_of_bytes_as_the_grammar_of_rfc_3629_does(server: Peer) -> None:
    for first in range(0x80, 0x100):
        for second in range(0x100):
            pair = bytes((first, second))
            good = next((count for count in (2, 1) if is_start_of_utf8(pair[:count])), 0)
            reader = server.reader()
            outcomes = [read(reader, [chunk]) for chunk in (b"\x01\x03", pair[:1])]
            if good:
                outcomes.append(read(reader, [pair[1:]]))
            assert [outcome.close_code for outcome in outcomes] == [None, *[None] * good, *[1007] * (good < 2)], pair


@pytest.mark.parametrize("character", WELL_FORMED, ids=ascii)
@pytest.mark.rfc("6455-5.6-text")
def test_takes_the_edges_of_unicode_however_they_are_cut(peer: Peer, character: str) -> None:
    text = f"a{character}b{character}"
    payload = text.encode()
    expected = Outcome([(TEXT, text, len(payload))])
    wire = peer.send(Frame(TEXT, payload))
    for point in range(len(wire)):
        assert peer.outcome(*cut_at(wire, point)) == expected
    assert peer.outcome(*each_byte(wire)) == expected
    for point in range(len(payload) + 1):
        first, rest = Frame(TEXT, payload[:point], fin=False), Frame(CONTINUATION, payload[point:])
        assert peer.outcome(peer.send(first, rest)) == expected
    assert peer.outcome(*in_a_frame_each(peer, payload), peer.send(Frame(CONTINUATION))) == expected


@pytest.mark.parametrize("character", WELL_FORMED, ids=ascii)
@pytest.mark.parametrize("arrives", ARRIVALS.values(), ids=ARRIVALS)
def test_no_byte_of_well_formed_text_is_refused(
    peer: Peer, arrives: Callable[[Peer, bytes], Iterator[bytes]], character: str
) -> None:
    assert accepted_bytes(peer, arrives(peer, f"a{character}b{character}".encode())) is None


CUT_SHORT = [bytes.fromhex(end) for end in ["c2", "df", "e0a0", "e2", "e282", "ed9f", "f09f", "f09f98", "f48fbf"]]


@pytest.mark.parametrize("end", CUT_SHORT, ids=bytes.hex)
@pytest.mark.parametrize("prefix", PREFIXES, ids=bytes.hex)
@pytest.mark.rfc("6455-5.6-text")
def test_refuses_a_message_that_ends_inside_a_character(peer: Peer, prefix: bytes, end: bytes) -> None:
    text = prefix + end
    before, after = peer.send(Frame(PING)), peer.send(Frame(TEXT, b"after"))
    expected = Outcome([(PING, b"", 0)], 1007)
    whole = before + peer.send(Frame(TEXT, text)) + after
    assert peer.outcome(whole) == expected
    assert peer.outcome(*each_byte(whole)) == expected
    fragmented = peer.send(Frame(TEXT, text, fin=False), Frame(CONTINUATION))
    assert peer.outcome(before + fragmented + after) == expected
    assert peer.outcome(*each_byte(before + fragmented + after)) == expected


@pytest.mark.parametrize("end", CUT_SHORT, ids=bytes.hex)
@pytest.mark.rfc("7692-6.2-utf8")
def test_refuses_a_compressed_message_that_ends_inside_a_character(peer: Peer, end: bytes) -> None:
    compressor = zlib.compressobj(wbits=-15)
    compressed = (compressor.compress(b"text" + end) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    wire = peer.send(Frame(TEXT, compressed, rsv=RSV1))
    for chunks in ([wire], each_byte(wire)):
        assert peer.outcome(*chunks, inflater=PerMessageDeflateDecompressor(True, None, 0)) == Outcome([], 1007)


def test_a_character_does_not_go_on_in_the_next_message(peer: Peer) -> None:
    wire = peer.send(Frame(TEXT, b"a", fin=False), Frame(CONTINUATION, b"b"), Frame(TEXT, b"\x82\xac", fin=False))
    assert peer.outcome(*each_byte(wire)) == Outcome([(TEXT, "ab", 2)], 1007)


def test_a_byte_order_mark_is_part_of_the_text(peer: Peer) -> None:
    assert peer.outcome(*each_byte(peer.send(Frame(TEXT, b"\xef\xbb\xbfa")))) == Outcome([(TEXT, "\ufeffa", 4)])


@pytest.mark.parametrize(("sequence", "offending"), ILL_FORMED.values(), ids=ILL_FORMED)
@pytest.mark.rfc("6455-5.6-binary")
def test_binary_messages_and_control_frames_are_not_text(peer: Peer, sequence: bytes, offending: int) -> None:
    sent = [Frame(BINARY, sequence, fin=False), Frame(PING, sequence), Frame(CONTINUATION, sequence)]
    size = len(sequence)
    expected = Outcome([(PING, sequence, size), (BINARY, sequence * 2, 2 * size), (CLOSE, sequence, size)])
    wire = peer.send(*sent, Frame(CLOSE, sequence))
    assert peer.outcome(wire) == expected
    assert peer.outcome(*each_byte(wire)) == expected
