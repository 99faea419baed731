"""What holds for any conversation, however it is framed and cut, and for bytes that are no conversation at all."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.model import expected, is_start_of_utf8, is_utf8
from tests.engine.reading import Engine, Outcome, Peer, events_now, read
from tests.wire import BINARY, CLOSE, CONTINUATION, MESSAGES, PING, PONG, RSV1, TEXT, Frame, cut_at, each_byte
from tornado_ws.close_codes import decode_close, encode_close
from tornado_ws.deflate.codec import PerMessageDeflateCompressor, PerMessageDeflateDecompressor
from tornado_ws.deflate.negotiation import accept_deflate_offer
from tornado_ws.engine.contract import Event
from tornado_ws.errors import ProtocolError
from tornado_ws.handshake import Extension, parse_extensions

# Machines that share their processors pause for longer than any deadline, and CI is to give one answer each time.
quietly = settings(derandomize="CI" in os.environ)

LIMIT = 1 << 20

#: As lengths go, those next to a boundary are the ones to try.
sizes = st.one_of(st.integers(0, 20), st.sampled_from([124, 125, 126, 127, 65534, 65535, 65536, 65537]))
texts = st.one_of(
    st.text(max_size=30),
    st.text("aé€😀\x00", max_size=30),
    st.builds(lambda text, size: (text * size)[:size], st.text("aé€😀", min_size=1, max_size=5), sizes),
)
binaries = st.one_of(
    st.binary(max_size=30),
    st.builds(lambda data, size: (data * size)[:size], st.binary(min_size=1, max_size=5), sizes),
)
controls = st.tuples(st.sampled_from([PING, PONG, CLOSE]), st.binary(max_size=125)).map(lambda made: Frame(*made))
masks = st.binary(min_size=4, max_size=4)


class Message(NamedTuple):
    event: Event
    cuts: list[float]
    compressed: bool
    #: What stands before each of its frames, and after the last.
    between: list[list[Frame]]


class Conversation(NamedTuple):
    """Messages with control frames between their fragments, and what was agreed about compressing them."""

    messages: list[Message]
    persistent: bool
    max_wbits: int | None

    def frames(self) -> list[Frame]:
        compressor = PerMessageDeflateCompressor(self.persistent, self.max_wbits)
        sent: list[Frame] = []
        for (opcode, content, _), cuts, compressed, between in self.messages:
            payload = content.encode() if isinstance(content, str) else content
            if compressed:
                payload = compressor.compress(payload)
            pieces = cut_at(payload, *(round(cut * len(payload)) for cut in cuts))
            for i, piece in enumerate(pieces):
                sent += between[i % len(between)]
                rsv = RSV1 if compressed and i == 0 else 0
                sent.append(Frame(CONTINUATION if i else opcode, piece, i == len(pieces) - 1, rsv))
        return sent

    def events(self) -> list[Event]:
        events: list[Event] = []
        for event, cuts, _, between in self.messages:
            for i in range(len(cuts) + 1):
                events += [(opcode, payload, len(payload)) for opcode, payload, *_ in between[i % len(between)]]
            events.append(event)
        return events

    def inflater(self) -> PerMessageDeflateDecompressor:
        return PerMessageDeflateDecompressor(self.persistent, self.max_wbits, LIMIT)


def messages(compressed: st.SearchStrategy[bool]) -> st.SearchStrategy[Message]:
    return st.tuples(
        st.one_of(
            texts.map(lambda text: (TEXT, text, len(text.encode()))),
            binaries.map(lambda data: (BINARY, data, len(data))),
        ),
        st.lists(st.floats(0, 1), max_size=4),
        compressed,
        st.lists(st.lists(controls, max_size=2), min_size=1, max_size=3),
    ).map(lambda made: Message(*made))


def conversations(compressed: st.SearchStrategy[bool]) -> st.SearchStrategy[Conversation]:
    windows = st.one_of(st.none(), st.integers(8, 15))
    made = st.tuples(st.lists(messages(compressed), max_size=4), st.booleans(), windows)
    return made.map(lambda parts: Conversation(*parts))


plain = conversations(st.just(False))
any_kind = conversations(st.booleans())
cuts = st.lists(st.floats(0, 1), max_size=10)


def chunks_of(wire: bytes, points: list[float]) -> list[bytes]:
    return cut_at(wire, *(round(point * len(wire)) for point in points))


@st.composite
def mutations(draw: st.DrawFn, wire: bytes) -> bytes:
    """``wire`` with a few bytes changed, lost, doubled or put in, mostly in what the first headers are made of."""
    mutated = bytearray(wire)
    for _ in range(draw(st.integers(1, 3))):
        if not mutated:
            break
        at = draw(st.integers(0, min(len(mutated) - 1, draw(st.sampled_from([3, 20, len(mutated)])))))
        kind = draw(st.sampled_from(["flip", "set", "delete", "insert", "double", "truncate"]))
        if kind == "flip":
            mutated[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            mutated[at] = draw(st.integers(0, 255))
        elif kind == "delete":
            del mutated[at : at + draw(st.integers(1, 4))]
        elif kind == "insert":
            mutated[at:at] = draw(st.binary(min_size=1, max_size=6))
        elif kind == "double":
            mutated[at:at] = mutated[at : at + draw(st.integers(1, 10))]
        else:
            del mutated[at:]
    return bytes(mutated)


# Conversations


@quietly
@given(conversation=any_kind, points=cuts)
@pytest.mark.rfc("6455-5.4-boundaries")
def test_any_split_of_a_conversation_gives_the_same_events(
    peer: Peer, conversation: Conversation, points: list[float]
) -> None:
    wire = peer.send(*conversation.frames())
    chunks = chunks_of(wire, points)
    assert peer.outcome(*chunks, inflater=conversation.inflater()) == Outcome(conversation.events())


@quietly
@given(conversation=any_kind)
def test_a_conversation_byte_by_byte_gives_the_same_events(peer: Peer, conversation: Conversation) -> None:
    wire = peer.send(*conversation.frames())
    if len(wire) < 5000:
        outcome = peer.outcome(*each_byte(wire), inflater=conversation.inflater())
        assert outcome == Outcome(conversation.events())


@quietly
@given(conversation=any_kind, keys=st.lists(masks, min_size=1))
def test_a_conversation_survives_any_masking(client: Peer, conversation: Conversation, keys: list[bytes]) -> None:
    frames = conversation.frames()
    wire = b"".join(frame.encode(keys[i % len(keys)]) for i, frame in enumerate(frames))
    assert client.outcome(wire, inflater=conversation.inflater()) == Outcome(conversation.events())


@quietly
@given(conversation=any_kind, masked=st.booleans())
def test_what_encode_frame_writes_is_read_back(engine: Engine, conversation: Conversation, masked: bool) -> None:
    wire = b"".join(
        engine.encode_frame((0x80 if fin else 0) | rsv | opcode, payload, masked)
        for opcode, payload, fin, rsv in conversation.frames()
    )
    outcome = Peer(engine, masked).outcome(wire, inflater=conversation.inflater())
    assert outcome == Outcome(conversation.events())


@quietly
@given(conversation=any_kind, points=cuts, cut=st.floats(0, 1))
def test_a_conversation_that_breaks_off_is_no_violation(
    peer: Peer, conversation: Conversation, points: list[float], cut: float
) -> None:
    wire = peer.send(*conversation.frames())
    reader = peer.reader(inflater=conversation.inflater())
    begun, rest = cut_at(wire, round(cut * len(wire)))
    first = read(reader, chunks_of(begun, points))
    assert first.close_code is None
    assert first.events == conversation.events()[: len(first.events)]
    assert read(reader, [rest]) == Outcome(conversation.events()[len(first.events) :])


@quietly
@given(conversation=any_kind, first=st.integers(0, 255), second=st.integers(0, 255), points=cuts)
def test_whatever_a_conversation_is_followed_by_its_events_come_first(
    peer: Peer, conversation: Conversation, first: int, second: int, points: list[float]
) -> None:
    wire = peer.send(*conversation.frames()) + bytes((first, second)) + b"\xff" * 20
    outcome = peer.outcome(*chunks_of(wire, points), inflater=conversation.inflater())
    events = conversation.events()
    assert outcome.events[: len(events)] == events
    assert outcome == peer.outcome(wire, inflater=conversation.inflater())


# No conversation at all


@quietly
@given(conversation=plain, data=st.data(), points=cuts, limit=st.sampled_from([0, 10, 130, 70_000]))
def test_a_mutated_conversation_is_read_as_the_model_reads_it(
    peer: Peer, conversation: Conversation, data: st.DataObject, points: list[float], limit: int
) -> None:
    wire = data.draw(mutations(peer.send(*conversation.frames())))
    model = expected(wire, peer.is_client, limit)
    for chunks in ([wire], chunks_of(wire, points)):
        outcome = peer.outcome(*chunks, limit=limit)
        assert outcome.events == model.events
        assert outcome.close_code in model.close_codes


@quietly
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([0x80, 0x81, 0x82, 0x00, 0x01, 0x02, 0x88, 0x89, 0x8A]),
            st.one_of(st.integers(0, 8), st.integers(0, 0xFF)),
        ),
        max_size=8,
    ),
    filler=st.binary(min_size=8, max_size=8),
    points=cuts,
)
def test_random_frames_are_read_as_the_model_reads_them(
    peer: Peer, headers: list[tuple[int, int]], filler: bytes, points: list[float]
) -> None:
    masked = 0x80 if peer.is_client else 0
    wire = b"".join(bytes((first, second ^ masked)) + filler[: second & 0xF] for first, second in headers)
    model = expected(wire, peer.is_client, 100)
    outcome = peer.outcome(*chunks_of(wire, points), limit=100)
    assert outcome.events == model.events
    assert outcome.close_code in model.close_codes


@quietly
@given(wire=st.binary(max_size=100), limit=st.integers(0, 1000))
@pytest.mark.rfc("6455-10.1-input")
def test_random_bytes_are_read_as_the_model_reads_them(peer: Peer, wire: bytes, limit: int) -> None:
    model = expected(wire, peer.is_client, limit)
    outcome = peer.outcome(*each_byte(wire), limit=limit)
    assert outcome.events == model.events
    assert outcome.close_code in model.close_codes


@quietly
@given(conversation=any_kind, data=st.data(), points=cuts)
def test_a_mutated_compressed_conversation_gives_the_same_however_it_is_cut(
    peer: Peer, conversation: Conversation, data: st.DataObject, points: list[float]
) -> None:
    wire = data.draw(mutations(peer.send(*conversation.frames())))
    outcome = peer.outcome(wire, inflater=conversation.inflater())
    assert outcome.close_code in (None, 1002, 1007, 1009)
    assert outcome == peer.outcome(*chunks_of(wire, points), inflater=conversation.inflater())


@quietly
@given(payload=st.binary(max_size=60), opcode=st.sampled_from(MESSAGES), limit=st.integers(0, 300), points=cuts)
def test_random_bytes_as_a_compressed_message_break_the_protocol_at_most(
    peer: Peer, payload: bytes, opcode: int, limit: int, points: list[float]
) -> None:
    wire = peer.send(Frame(opcode, payload, rsv=RSV1))
    inflater = PerMessageDeflateDecompressor(True, None, limit)
    outcome = peer.outcome(*chunks_of(wire, points), limit=limit, inflater=inflater)
    assert outcome.close_code in (None, 1007, 1009)
    assert all(size <= limit for _, _, size in outcome.events)


# Text

#: Bytes that mean something in UTF-8 follow one another often enough to make characters.
near_utf8 = st.lists(
    st.one_of(
        st.sampled_from(list(b"\xe0\xed\xf0\xf4\x80\x8f\x90\x9f\xa0\xbfa")).map(lambda byte: bytes((byte,))),
        st.sampled_from("é€😀\ud7ff\ue000\U0010ffff").map(str.encode),
        st.binary(min_size=1, max_size=1),
        st.just(b"plain text, longer than two words"),
    ),
    max_size=8,
).map(b"".join)


@quietly
@given(data=near_utf8)
def test_text_is_refused_at_the_byte_where_the_grammar_ends(peer: Peer, data: bytes) -> None:
    good = max(count for count in range(len(data) + 1) if is_start_of_utf8(data[:count]))
    reader = peer.reader()
    reader.feed(peer.header(Frame(TEXT), len(data) + 1))
    assert events_now(reader) == []
    wire = Frame(TEXT, data).encode(peer.mask)[-len(data) :] if data else b""
    assert read(reader, each_byte(wire[:good])) == Outcome([])
    if good < len(data):
        assert read(reader, [wire[good : good + 1]]) == Outcome([], 1007)


@quietly
@given(data=near_utf8, points=cuts)
@pytest.mark.rfc("6455-5.6-text", "6455-8.1-utf8")
@pytest.mark.rfc("7692-6.2-utf8")
def test_text_is_what_the_grammar_says_however_it_is_framed(peer: Peer, data: bytes, points: list[float]) -> None:
    good = Outcome([(TEXT, data.decode(), len(data))]) if is_utf8(data) else Outcome([], 1007)
    pieces = chunks_of(data, points)
    frames = [Frame(CONTINUATION if i else TEXT, piece, i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    assert peer.outcome(peer.send(Frame(TEXT, data))) == good
    assert peer.outcome(peer.send(*frames)) == good
    compressed = PerMessageDeflateCompressor(True, None).compress(data)
    inflater = PerMessageDeflateDecompressor(True, None, LIMIT)
    assert peer.outcome(peer.send(Frame(TEXT, compressed, rsv=RSV1)), inflater=inflater) == good


# The pure functions


@quietly
@given(payload=st.binary(max_size=125))
def test_any_close_payload_is_read_or_refused_and_what_is_read_can_be_sent(payload: bytes) -> None:
    refused_with = None
    try:
        code, reason = decode_close(payload)
    except ProtocolError as error:
        refused_with = error.close_code
    else:
        assert encode_close(code, reason) == payload
    assert refused_with in (None, 1002, 1007)


tokens = st.text("abz019-_!", min_size=1, max_size=5)
parameters = st.lists(st.tuples(tokens, st.one_of(st.none(), tokens)), max_size=3)
spaces = st.sampled_from(["", " ", "\t "])


@quietly
@given(extensions=st.lists(st.tuples(tokens, parameters), max_size=4), space=spaces, quoted=st.booleans())
def test_extensions_are_parsed_as_they_were_written(extensions: list[Extension], space: str, quoted: bool) -> None:
    def written(name: str, value: str | None) -> str:
        if value is None:
            return name
        return f'{name}{space}={space}"{value}"' if quoted else f"{name}{space}={space}{value}"

    elements = [
        f"{space};{space}".join([name, *(written(*parameter) for parameter in found)]) for name, found in extensions
    ]
    assert parse_extensions(f"{space},{space}".join(elements)) == extensions


@quietly
@given(header=st.one_of(st.text(max_size=40), st.text('a1=;," \\\tpermessage-deflate', max_size=60)))
def test_no_header_is_more_than_malformed(header: str) -> None:
    complaint = "malformed"
    try:
        parse_extensions(header)
    except ValueError as error:
        complaint = str(error)
    assert "malformed" in complaint
    accept_deflate_offer(header)


@quietly
@given(mask=masks, data=st.binary(max_size=300))
def test_masking_twice_changes_nothing(engine: Engine, mask: bytes, data: bytes) -> None:
    masked = engine.apply_mask(mask, data)
    assert masked == bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    assert engine.apply_mask(mask, masked) == data
