"""Fragmented messages (RFC 6455 section 5.4), with control frames between the fragments."""

from __future__ import annotations

import pytest

from tests.engine.reading import Outcome, Peer, events_now
from tests.wire import BINARY, CLOSE, CONTINUATION, CONTROLS, MESSAGES, PING, PONG, TEXT, Frame, cut_at, each_byte


def fragments(opcode: int, *payloads: bytes) -> list[Frame]:
    last = len(payloads) - 1
    return [Frame(CONTINUATION if i else opcode, payload, fin=i == last) for i, payload in enumerate(payloads)]


@pytest.mark.parametrize(
    "payloads",
    [
        [b"Hel", b"lo"],
        [b"H", b"e", b"l", b"l", b"o"],
        [b"", b"Hello"],
        [b"Hello", b""],
        [b"", b"", b"Hello", b"", b""],
        [b"", b""],
        [b"a" * 126, b"b" * 65536, b"c"],
    ],
    ids=lambda payloads: "+".join(str(len(payload)) for payload in payloads),
)
@pytest.mark.parametrize("opcode", MESSAGES)
@pytest.mark.rfc("6455-5.4-order", "6455-5.4-both-kinds", "6455-5.4-boundaries")
def test_joins_the_fragments_of_a_message(peer: Peer, opcode: int, payloads: list[bytes]) -> None:
    whole = b"".join(payloads)
    expected = Outcome([(opcode, whole.decode() if opcode == TEXT else whole, len(whole))])
    wire = peer.send(*fragments(opcode, *payloads))
    assert peer.outcome(wire) == expected
    assert peer.outcome(*cut_at(wire, *range(min(len(wire), 300)))) == expected


def test_a_message_may_have_a_great_many_fragments(peer: Peer) -> None:
    wire = peer.send(*fragments(BINARY, *[b"x"] * 20_000))
    assert peer.outcome(wire) == Outcome([(BINARY, b"x" * 20_000, 20_000)])


@pytest.mark.parametrize("opcode", MESSAGES)
@pytest.mark.parametrize("chunk", [100_000, 1 << 20, 1 << 24])
def test_a_message_may_be_of_many_mebibytes(peer: Peer, opcode: int, chunk: int) -> None:
    payload = b"0123456789abcdef" * 200_003
    size = len(payload)
    expected = Outcome([(opcode, payload.decode() if opcode == TEXT else payload, size)])
    for pieces in ([payload], cut_at(payload, 1, 2, 70_000, 1_500_000)):
        wire = peer.send(*fragments(opcode, *pieces))
        chunks = cut_at(wire, *range(chunk, len(wire), chunk))
        assert peer.outcome(*chunks, limit=size) == expected
        assert peer.outcome(*chunks, limit=size - 1) == Outcome([], 1009)


def test_a_fragmented_message_is_handed_out_with_its_last_frame_and_not_before(peer: Peer) -> None:
    reader = peer.reader()
    for frame in fragments(TEXT, b"Hel", b"l", b""):
        assert events_now(reader) == []
        reader.feed(peer.send(frame))
    assert events_now(reader) == [(TEXT, "Hell", 4)]


@pytest.mark.rfc("6455-5.4-both-kinds", "6455-5.4-type")
@pytest.mark.rfc("6455-6.2-type", "6455-6.2-new-message")
def test_messages_follow_each_other_fragmented_and_not(peer: Peer) -> None:
    sent = [Frame(TEXT, b"1"), *fragments(BINARY, b"2", b"3"), Frame(BINARY, b"4"), *fragments(TEXT, b"5", b"", b"6")]
    expected = Outcome([(TEXT, "1", 1), (BINARY, b"23", 2), (BINARY, b"4", 1), (TEXT, "56", 2)])
    assert peer.outcome(peer.send(*sent)) == expected
    assert peer.outcome(*each_byte(peer.send(*sent))) == expected


@pytest.mark.parametrize("opcode", CONTROLS)
@pytest.mark.parametrize("payload", [b"", b"\xffcontrol"])
@pytest.mark.rfc("6455-5.4-control-between-fragments")
def test_control_frames_come_at_once_between_the_fragments(peer: Peer, opcode: int, payload: bytes) -> None:
    reader = peer.reader()
    control = Frame(opcode, payload)
    event = (opcode, payload, len(payload))
    for frame in fragments(TEXT, b"Hel", b"", b"lo")[:2]:
        reader.feed(peer.send(frame, control, control))
        assert events_now(reader) == [event, event]
    reader.feed(peer.send(Frame(CONTINUATION, b"lo"), control))
    assert events_now(reader) == [(TEXT, "Hello", 5), event]


@pytest.mark.rfc("6455-5.6-text")
def test_a_control_frame_does_not_disturb_a_character_cut_by_fragments(peer: Peer) -> None:
    sent = [Frame(TEXT, b"\xe2", fin=False), Frame(PING, b"\xe2\x82"), Frame(CONTINUATION, b"\x82\xac")]
    expected = Outcome([(PING, b"\xe2\x82", 2), (TEXT, "€", 3)])
    assert peer.outcome(peer.send(*sent)) == expected
    assert peer.outcome(*each_byte(peer.send(*sent))) == expected


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("payload", [b"", b"lo"])
@pytest.mark.rfc("6455-5.4-not-interleaved")
def test_refuses_a_continuation_with_no_message_to_continue(peer: Peer, fin: bool, payload: bytes) -> None:
    lone = Frame(CONTINUATION, payload, fin)
    assert peer.outcome(peer.send(lone)) == Outcome([], 1002)
    after_one_frame = peer.send(Frame(TEXT, b"a"), lone)
    assert peer.outcome(after_one_frame) == Outcome([(TEXT, "a", 1)], 1002)
    after_fragments = peer.send(*fragments(TEXT, b"a", b"b"), lone)
    assert peer.outcome(after_fragments) == Outcome([(TEXT, "ab", 2)], 1002)
    after_control = peer.send(Frame(PING), lone)
    assert peer.outcome(after_control) == Outcome([(PING, b"", 0)], 1002)


@pytest.mark.parametrize("begun", MESSAGES)
@pytest.mark.parametrize("opcode", MESSAGES)
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("payload", [b"", b"Hel"])
@pytest.mark.rfc("6455-5.4-not-interleaved")
def test_refuses_a_new_message_inside_a_fragmented_one(
    peer: Peer, begun: int, opcode: int, fin: bool, payload: bytes
) -> None:
    begin = Frame(begun, payload, fin=False)
    assert peer.outcome(peer.send(begin, Frame(opcode, b"x", fin))) == Outcome([], 1002)
    wire = peer.send(begin, Frame(CONTINUATION, payload, fin=False), Frame(PONG), Frame(opcode, b"", fin))
    assert peer.outcome(*each_byte(wire)) == Outcome([(PONG, b"", 0)], 1002)


def test_in_message_from_the_first_header_of_a_message_to_its_last_byte(peer: Peer) -> None:
    reader = peer.reader()
    steps: list[tuple[bytes, bool]] = [
        (b"", False),
        (peer.send(Frame(TEXT, b"whole")), False),
        (peer.send(Frame(PING, b"ping")), False),
        (peer.send(Frame(PING, b"ping"))[:-1], False),
        (peer.send(Frame(PING, b"ping"))[-1:], False),
        (peer.send(Frame(TEXT, b"Hello"))[:-1], True),
        (peer.send(Frame(TEXT, b"Hello"))[-1:], False),
        (peer.send(Frame(BINARY, b"", fin=False)), True),
        (peer.send(Frame(CLOSE)), True),
        (peer.send(Frame(CONTINUATION, b"", fin=False)), True),
        (peer.send(Frame(CONTINUATION, b"x"))[:-1], True),
        (peer.send(Frame(CONTINUATION, b"x"))[-1:], False),
        (peer.send(*fragments(TEXT, b"a", b"b"), Frame(TEXT, b"c")), False),
    ]
    for chunk, expected in steps:
        reader.feed(chunk)
        events_now(reader)
        assert reader.in_message is expected, chunk
