"""Messages that are given in parts: what the parts are, and that nothing else is different."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.reading import LIMIT, Outcome, Peer, events_now, join_parts, read
from tests.engine.test_properties import Conversation, any_kind, chunks_of, cuts, mutations, near_utf8, quietly
from tests.wire import BINARY, CONTINUATION, PING, RSV1, TEXT, Frame, deflated, each_byte
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.deflate.ratio import RatioLimitedInflater
from tornado_ws.engine.contract import DEFERRED, INFLATED_AT_ONCE, LAST, PART, Inflater
from tornado_ws.engine.reader import FrameReader

MIN_PART_SIZE = 4
part_sizes = st.one_of(st.integers(MIN_PART_SIZE, 40), st.sampled_from([125, 126, 65536, 3 * INFLATED_AT_ONCE]))


def reader_of(peer: Peer, part_size: int, limit: int = LIMIT, inflater: Inflater | None = None) -> FrameReader:
    return peer.engine.FrameReader(peer.is_client, limit, inflater, True, part_size)


def in_parts(peer: Peer, chunks: Iterable[bytes], part_size: int, inflater: Inflater | None, limit: int) -> Outcome:
    """Return what a reader gives, the parts of each message joined; an unfinished message is left out."""
    outcome = read(reader_of(peer, part_size, limit, inflater), chunks)
    return Outcome(join_parts(outcome.events, part_size), outcome.close_code)


@quietly
@given(conversation=any_kind, points=cuts, part_size=part_sizes)
@pytest.mark.rfc("6455-5.4-boundaries")
def test_the_parts_of_a_message_are_the_message(
    peer: Peer, conversation: Conversation, points: list[float], part_size: int
) -> None:
    chunks = chunks_of(peer.send(*conversation.frames()), points)
    assert in_parts(peer, chunks, part_size, conversation.inflater(), LIMIT) == Outcome(conversation.events())


@quietly
@given(conversation=any_kind, part_size=part_sizes)
def test_the_parts_of_a_message_that_comes_byte_by_byte(peer: Peer, conversation: Conversation, part_size: int) -> None:
    wire = peer.send(*conversation.frames())
    if len(wire) < 5000:
        outcome = in_parts(peer, each_byte(wire), part_size, conversation.inflater(), LIMIT)
        assert outcome == Outcome(conversation.events())


@quietly
@given(
    conversation=any_kind,
    data=st.data(),
    points=cuts,
    part_size=part_sizes,
    limit=st.sampled_from([0, 10, 130, 70_000, LIMIT]),
)
def test_a_violation_is_the_same_as_in_a_whole_message(
    peer: Peer, conversation: Conversation, data: st.DataObject, points: list[float], part_size: int, limit: int
) -> None:
    wire = data.draw(mutations(peer.send(*conversation.frames())))
    chunks = chunks_of(wire, points)
    whole = peer.outcome(*chunks, limit=limit, inflater=conversation.inflater())
    assert in_parts(peer, chunks, part_size, conversation.inflater(), limit) == whole


@quietly
@given(data=near_utf8, points=cuts, part_size=st.integers(MIN_PART_SIZE, 9), compressed=st.booleans())
@pytest.mark.rfc("6455-8.1-utf8")
@pytest.mark.rfc("7692-6.2-utf8")
def test_text_in_parts_is_refused_where_a_whole_one_is(
    peer: Peer, data: bytes, points: list[float], part_size: int, compressed: bool
) -> None:
    frame = Frame(TEXT, deflated(data), rsv=RSV1) if compressed else Frame(TEXT, data)
    chunks = chunks_of(peer.send(frame), points)
    inflaters = [PerMessageDeflateDecompressor(True, None, LIMIT) for _ in range(2)]
    whole = peer.outcome(*chunks, inflater=inflaters[0])
    assert in_parts(peer, chunks, part_size, inflaters[1], LIMIT) == whole


def test_parts_of_one_frame_come_as_its_bytes_do(peer: Peer) -> None:
    reader = reader_of(peer, 4)
    wire = peer.send(Frame(BINARY, b"abcdefghij"))
    reader.feed(wire[:-4])
    assert events_now(reader) == [(PART | BINARY, b"abcd", 4), (PART | BINARY, b"ef", 2)]
    reader.feed(wire[-4:])
    assert events_now(reader) == [(PART | LAST | BINARY, b"ghij", 4)]
    assert not reader.in_message


def test_a_message_that_fits_in_a_part_and_lies_there_whole_is_no_part(peer: Peer) -> None:
    outcome = read(reader_of(peer, 4), [peer.send(Frame(TEXT, b"abcd"), Frame(BINARY, b""))])
    assert outcome == Outcome([(TEXT, "abcd", 4), (BINARY, b"", 0)])


def test_a_character_that_is_cut_waits_for_its_rest(peer: Peer) -> None:
    reader = reader_of(peer, 4)
    frames = [Frame(TEXT, b"a\xf0\x9f", False), Frame(PING, b"x"), Frame(CONTINUATION, b"\x98\x80", True)]
    reader.feed(peer.send(*frames))
    assert events_now(reader) == [(PART | TEXT, "a", 1), (PING, b"x", 1), (PART | LAST | TEXT, "😀", 4)]


def test_an_empty_last_frame_is_an_empty_last_part(peer: Peer) -> None:
    wire = peer.send(Frame(BINARY, b"ab", False), Frame(CONTINUATION, b"", False), Frame(CONTINUATION, b""))
    assert read(reader_of(peer, 4), [wire]) == Outcome([(PART | BINARY, b"ab", 2), (PART | LAST | BINARY, b"", 0)])


def test_text_as_bytes_is_cut_between_characters_too(peer: Peer) -> None:
    reader = peer.engine.FrameReader(peer.is_client, LIMIT, None, False, 4)
    reader.feed(peer.send(Frame(TEXT, "aé€😀".encode())))
    parts = [(b"a\xc3\xa9", 3), ("€".encode(), 3), ("😀".encode(), 4)]
    assert [event[1:] for event in events_now(reader)] == parts


@pytest.mark.rfc("6455-10.4-limits")
def test_the_limit_is_seen_in_the_header_of_the_frame_that_passes_it(peer: Peer) -> None:
    first = Frame(BINARY, b"abcdef", False)
    reader = reader_of(peer, 4, limit=8)
    reader.feed(peer.send(first))
    assert [event[1] for event in events_now(reader)] == [b"abcd", b"ef"]
    assert read(reader, [peer.header(Frame(CONTINUATION), 3)]) == Outcome([], 1009)


def test_what_inflates_to_much_is_given_in_parts_of_no_more_than_their_size(peer: Peer) -> None:
    wire = peer.send(Frame(BINARY, deflated(bytes(1 << 20)), rsv=RSV1))
    for inflater in (
        PerMessageDeflateDecompressor(True, None, LIMIT),
        RatioLimitedInflater(PerMessageDeflateDecompressor(True, None, LIMIT), 2000),
    ):
        for size in (1000, 65536, INFLATED_AT_ONCE, 1 << 20):
            reader = reader_of(peer, size, inflater=inflater)
            reader.feed(wire)
            events = events_now(reader)
            assert b"".join(part for _, part, _ in events) == bytes(1 << 20)
            assert max(got for _, _, got in events) == min(size, INFLATED_AT_ONCE)


def test_a_ratio_is_looked_at_in_parts_too(peer: Peer) -> None:
    wire = peer.send(Frame(BINARY, deflated(bytes(1 << 20)), rsv=RSV1))
    inflater = RatioLimitedInflater(PerMessageDeflateDecompressor(True, None, LIMIT), 10)
    outcome = read(reader_of(peer, 1000, inflater=inflater), [wire])
    assert outcome.close_code == 1009
    assert sum(size for _, _, size in outcome.events) <= 64 * 1024


def test_deliver_gives_parts_to_whoever_called_it(peer: Peer) -> None:
    class Handler:
        def __init__(self) -> None:
            self.messages: list[str | bytes] = []

        def on_message(self, message: str | bytes) -> None:
            self.messages.append(message)

    handler = Handler()
    reader = reader_of(peer, 4)
    reader.feed(peer.send(Frame(TEXT, b"abc"), Frame(BINARY, b"abcdef"), Frame(TEXT, b"d")))
    assert reader.deliver(handler, 100) == (PART | BINARY, b"abcd", 4)
    assert reader.deliver(handler, 100) == (PART | LAST | BINARY, b"ef", 2)
    assert reader.deliver(handler, 100) is None
    assert handler.messages == ["abc", "d"]
    assert (reader.messages, reader.message_bytes) == (2, 4)


def test_the_marks_of_an_opcode_are_apart() -> None:
    assert len({DEFERRED, PART, LAST, DEFERRED | PART | LAST, 0xF}) == 5
    assert not (DEFERRED | PART | LAST) & 0xF
