"""Compressed messages in frames (RFC 7692 section 6): what a reader makes of RSV1 with permessage-deflate agreed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.engine.reading import Outcome, Peer, events_now
from tests.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTROLS,
    MESSAGES,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Frame,
    cut_at,
    each_byte,
)
from tornado_ws.deflate.codec import PerMessageDeflateCompressor, PerMessageDeflateDecompressor
from tornado_ws.engine.contract import DEFERRED
from tornado_ws.errors import ProtocolError

pytestmark = pytest.mark.usefixtures("streams")

HELLO = bytes.fromhex("f248cdc9c90700")


def inflater(persistent: bool = True) -> PerMessageDeflateDecompressor:
    return PerMessageDeflateDecompressor(persistent, None, 0)


def compressed(opcode: int, *payloads: bytes) -> list[Frame]:
    last = len(payloads) - 1
    return [
        Frame(opcode if i == 0 else CONTINUATION, payload, fin=i == last, rsv=0 if i else RSV1)
        for i, payload in enumerate(payloads)
    ]


class Recorder:
    """An inflater that inflates nothing and tells what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, int] | str] = []

    def inflate(self, data: bytes, limit: int) -> bytes:
        self.calls.append((data, limit))
        return data[: limit + 1]

    def end_message(self) -> None:
        self.calls.append("end of message")


# Section 7.2.3

EXAMPLES = {
    "one block": ["c107f248cdc9c90700"],
    "in two fragments": ["4103f248cd", "8004c9c90700"],
    "the window taken over": ["c107f248cdc9c90700", "c105f200110000"],
    "a block without compression": ["c10b000500faff48656c6c6f00"],
    "a block with BFINAL": ["c108f348cdc9c9070000"],
    "two blocks": ["c10df248050000 00ffffcac9c90700"],
}


@pytest.mark.parametrize("wire", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.rfc("7692-7.2.2-tail", "7692-7.2.3-examples")
def test_takes_the_examples_of_section_7_2_3(server: Peer, wire: list[str]) -> None:
    messages = 2 if len(wire) == 2 and wire[1].startswith("c1") else 1
    expected = Outcome([(TEXT, "Hello", 5)] * messages)
    chunks = [bytes.fromhex(chunk) for chunk in wire]
    assert server.outcome(*chunks, inflater=inflater()) == expected
    assert server.outcome(*each_byte(b"".join(chunks)), inflater=inflater()) == expected


@pytest.mark.parametrize("opcode", MESSAGES)
@pytest.mark.rfc("7692-6.2-decompress")
@pytest.mark.rfc("7692-6-opcode")
def test_takes_compressed_messages_in_any_fragments(peer: Peer, opcode: int) -> None:
    expected = Outcome([(opcode, "Hello" if opcode == TEXT else b"Hello", 5)])
    for first in range(len(HELLO) + 1):
        for second in range(first, len(HELLO) + 1):
            wire = peer.send(*compressed(opcode, *cut_at(HELLO, first, second)))
            assert peer.outcome(wire, inflater=inflater()) == expected
            assert peer.outcome(*each_byte(wire), inflater=inflater()) == expected


@pytest.mark.rfc("7692-6.2-uncompressed")
def test_takes_messages_with_and_without_compression_in_turn(peer: Peer) -> None:
    compressor = PerMessageDeflateCompressor(True, None)
    sent = [
        *compressed(TEXT, compressor.compress(b"Hello")),
        Frame(TEXT, b"plain"),
        *compressed(BINARY, compressor.compress(b"Hello")),
        Frame(BINARY, b"pl", fin=False),
        Frame(CONTINUATION, b"ain"),
        *compressed(TEXT, compressor.compress(b"Hello, Hello")),
    ]
    expected = Outcome(
        [
            (TEXT, "Hello", 5),
            (TEXT, "plain", 5),
            (BINARY, b"Hello", 5),
            (BINARY, b"plain", 5),
            (TEXT, "Hello, Hello", 12),
        ]
    )
    assert peer.outcome(peer.send(*sent), inflater=inflater()) == expected
    assert peer.outcome(*each_byte(peer.send(*sent)), inflater=inflater()) == expected


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.rfc("7692-7.2.3-examples")
def test_takes_an_empty_compressed_message(peer: Peer, persistent: bool) -> None:
    sent = [*compressed(TEXT, b"\x00"), *compressed(BINARY, b"\x00"), *compressed(TEXT, HELLO)]
    expected = Outcome([(TEXT, "", 0), (BINARY, b"", 0), (TEXT, "Hello", 5)])
    assert peer.outcome(peer.send(*sent), inflater=inflater(persistent)) == expected


def test_payloads_are_str_for_text_and_bytes_for_binary(peer: Peer) -> None:
    wire = peer.send(*compressed(TEXT, HELLO), *compressed(BINARY, HELLO))
    assert [type(payload) for _, payload, _ in peer.outcome(wire, inflater=inflater()).events] == [str, bytes]


@pytest.mark.parametrize("opcode", CONTROLS)
def test_takes_a_control_frame_between_the_fragments_of_a_compressed_message(peer: Peer, opcode: int) -> None:
    reader = peer.reader(inflater=inflater())
    control = Frame(opcode, b"control")
    first, second, third = compressed(TEXT, HELLO[:2], HELLO[2:5], HELLO[5:])
    reader.feed(peer.send(first, control, second, control))
    assert events_now(reader) == [(opcode, b"control", 7)] * 2
    assert reader.in_message
    reader.feed(peer.send(third, control))
    assert events_now(reader) == [(TEXT, "Hello", 5), (opcode, b"control", 7)]
    assert not reader.in_message


# RSV1 where it has no place


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_refuses_rsv1_that_was_not_negotiated(peer: Peer, opcode: int, fin: bool) -> None:
    assert peer.outcome(peer.send(Frame(opcode, HELLO, fin, RSV1))) == Outcome([], 1002)


@pytest.mark.parametrize("opcode", CONTROLS)
@pytest.mark.parametrize("payload", [b"", HELLO])
@pytest.mark.rfc("7692-6-rsv1-place-refused")
def test_refuses_rsv1_on_a_control_frame(peer: Peer, opcode: int, payload: bytes) -> None:
    control = peer.send(Frame(opcode, payload, rsv=RSV1))
    assert peer.outcome(control, inflater=inflater()) == Outcome([], 1002)
    begun = peer.send(*compressed(TEXT, HELLO, b"")[:1])
    assert peer.outcome(begun + control, inflater=inflater()) == Outcome([], 1002)


@pytest.mark.parametrize("first_rsv", [0, RSV1])
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.rfc("7692-6-rsv1-place-refused")
def test_refuses_rsv1_on_a_continuation(peer: Peer, first_rsv: int, fin: bool) -> None:
    wire = peer.send(Frame(TEXT, b"", fin=False, rsv=first_rsv), Frame(CONTINUATION, HELLO, fin, RSV1))
    assert peer.outcome(wire, inflater=inflater()) == Outcome([], 1002)


@pytest.mark.parametrize("rsv", [RSV2, RSV3, RSV1 | RSV2, RSV1 | RSV3, RSV2 | RSV3, RSV1 | RSV2 | RSV3])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING])
def test_refuses_the_reserved_bits_that_are_not_permessage_deflate(peer: Peer, opcode: int, rsv: int) -> None:
    assert peer.outcome(peer.send(Frame(opcode, HELLO, rsv=rsv))[:2], inflater=inflater()) == Outcome([], 1002)


@pytest.mark.parametrize("fin", [True, False])
def test_refuses_a_new_compressed_message_inside_another(peer: Peer, fin: bool) -> None:
    for begun in (Frame(TEXT, b"", fin=False), Frame(TEXT, HELLO, fin=False, rsv=RSV1)):
        wire = peer.send(begun, Frame(TEXT, HELLO, fin, RSV1))
        assert peer.outcome(wire, inflater=inflater()) == Outcome([], 1002)


@pytest.mark.parametrize("opcode", [0x3, 0x7, 0xB])
def test_refuses_a_reserved_opcode_with_rsv1(peer: Peer, opcode: int) -> None:
    assert peer.outcome(peer.send(Frame(opcode, rsv=RSV1)), inflater=inflater()) == Outcome([], 1002)


# Streams that are broken


def test_events_before_a_broken_stream_come_first(peer: Peer) -> None:
    sent = [Frame(PING, b"1"), *compressed(TEXT, HELLO), Frame(PONG, b"2"), *compressed(TEXT, b"\xff\xff", b"")]
    wire = peer.send(*sent, Frame(CLOSE))
    expected = Outcome([(PING, b"1", 1), (TEXT, "Hello", 5), (PONG, b"2", 1)], 1007)
    assert peer.outcome(wire, inflater=inflater()) == expected
    assert peer.outcome(*each_byte(wire), inflater=inflater()) == expected


def test_garbage_is_refused_inside_an_unfinished_frame(peer: Peer) -> None:
    wire = peer.send(*compressed(TEXT, b"\x07" + bytes(100)))
    assert peer.outcome(wire[:7], inflater=inflater()) == Outcome([], 1007)


@pytest.mark.parametrize("cut", range(len(HELLO)))
@pytest.mark.rfc("7692-6.2-decompress")
def test_refuses_a_compressed_message_that_is_cut_short(peer: Peer, cut: int) -> None:
    for frames in (compressed(TEXT, HELLO[:cut]), compressed(TEXT, HELLO[:cut], b"")):
        wire = peer.send(*frames)
        assert peer.outcome(wire, inflater=inflater()) == Outcome([], 1007)
        assert peer.outcome(*each_byte(wire), inflater=inflater()) == Outcome([], 1007)


# What a reader asks of an inflater


def test_inflates_no_further_than_the_next_event(peer: Peer) -> None:
    recorder = Recorder()
    reader = peer.reader(100, recorder)
    reader.feed(peer.send(*compressed(BINARY, b"one"), *compressed(BINARY, b"two")))
    assert recorder.calls == []
    steps = iter(reader)
    assert next(steps) == (BINARY, b"one", 3)
    assert recorder.calls == [(b"one", 100), "end of message"]
    assert next(steps) == (BINARY, b"two", 3)
    assert recorder.calls[2:] == [(b"two", 100), "end of message"]


def test_inflates_each_piece_as_it_arrives_with_what_is_left_of_the_limit(peer: Peer) -> None:
    recorder = Recorder()
    reader = peer.reader(100, recorder)
    wire = peer.send(*compressed(BINARY, b"abcde", b"fg"))
    header = len(peer.send(*compressed(BINARY, b"abcde", b""))[: -5 - len(peer.send(Frame(CONTINUATION)))])
    reader.feed(wire[: header + 2])
    assert events_now(reader) == []
    assert recorder.calls == [(b"ab", 100)]
    reader.feed(wire[header + 2 : header + 5])
    assert events_now(reader) == []
    assert recorder.calls[1:] == [(b"cde", 98)]
    reader.feed(wire[header + 5 :])
    assert events_now(reader) == [(BINARY, b"abcdefg", 7)]
    assert recorder.calls[2:] == [(b"fg", 95), "end of message"]


@pytest.mark.rfc("7692-6.2-uncompressed")
def test_leaves_messages_without_rsv1_and_control_frames_to_themselves(peer: Peer) -> None:
    recorder = Recorder()
    wire = peer.send(Frame(TEXT, b"a"), Frame(BINARY, b"b", fin=False), Frame(PING, b"c"), Frame(CONTINUATION, b"d"))
    expected = Outcome([(TEXT, "a", 1), (PING, b"c", 1), (BINARY, b"bd", 2)])
    assert peer.outcome(wire, inflater=recorder) == expected
    assert recorder.calls == []


def test_one_byte_more_than_the_limit_is_too_many(peer: Peer) -> None:
    recorder = Recorder()
    wire = peer.send(*compressed(BINARY, b"abc", b"def"))
    assert peer.outcome(wire, limit=6, inflater=Recorder()) == Outcome([(BINARY, b"abcdef", 6)])
    assert peer.outcome(wire, limit=5, inflater=recorder) == Outcome([], 1009)
    assert recorder.calls == [(b"abc", 5), (b"def", 2)]


@pytest.mark.parametrize(("limit", "close_code"), [(2, 1009), (3, 1007), (4, 1007), (100, 1007)])
def test_text_is_checked_up_to_the_limit_and_no_further(peer: Peer, limit: int, close_code: int) -> None:
    wire = peer.send(*compressed(TEXT, b"ab\xffcde"))
    assert peer.outcome(wire, limit=limit, inflater=Recorder()) == Outcome([], close_code)
    assert peer.outcome(*each_byte(wire), limit=limit, inflater=Recorder()) == Outcome([], close_code)


def test_a_violation_that_an_inflater_sees_is_the_readers(peer: Peer) -> None:
    class Strict(Recorder):
        def inflate(self, data: bytes, limit: int) -> bytes:
            raise ProtocolError(1007, "no")

    class StrictAtTheEnd(Recorder):
        def end_message(self) -> None:
            raise ProtocolError(1007, "no")

    wire = peer.send(Frame(PING), *compressed(TEXT, b"text"), Frame(PING))
    assert peer.outcome(wire, inflater=Strict()) == Outcome([(PING, b"", 0)], 1007)
    assert peer.outcome(wire, inflater=StrictAtTheEnd()) == Outcome([(PING, b"", 0)], 1007)


class Holding(Recorder):
    """Gives two bytes of each message, and holds back the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = SimpleNamespace(size=40)

    def inflate(self, data: bytes, limit: int) -> bytes:
        return super().inflate(data, limit)[:2]

    def end_message(self) -> Any:
        super().end_message()
        return self.rest


@pytest.mark.parametrize(
    ("opcode", "payload"), [(TEXT, b"text"), (BINARY, b"\xff\xfe\xfd"), (TEXT, b"\xc3"), (TEXT, b"")]
)
def test_what_an_inflater_holds_back_is_left_to_whoever_takes_the_event(
    peer: Peer, opcode: int, payload: bytes
) -> None:
    inflater = Holding()
    wire = peer.send(*compressed(opcode, payload), Frame(PING), *compressed(opcode, payload), Frame(TEXT, b"plain"))
    event = (opcode | DEFERRED, (inflater.rest, payload[:2]), len(payload[:2]) + 40)
    assert peer.outcome(wire, inflater=inflater) == Outcome([event, (PING, b"", 0), event, (TEXT, "plain", 5)])

    handed_out: list[Any] = []
    reader = peer.reader(inflater=inflater)
    reader.feed(wire)
    handler = SimpleNamespace(on_message=handed_out.append)
    assert [reader.deliver(handler, 100) for _ in range(4)] == [event, (PING, b"", 0), event, None]
    assert handed_out == ["plain"]
