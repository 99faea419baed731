"""Single frames (RFC 6455 sections 5.2 to 5.5): what a reader takes, what it refuses, and what is written."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.engine.reading import LIMIT, Engine, Outcome, Peer, events_now, is_finished, read
from tests.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTROLS,
    MASK,
    MESSAGES,
    PING,
    PONG,
    RESERVED,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Frame,
    cut_at,
    each_byte,
    xor,
)
from tornado_ws.engine.contract import Event
from tornado_ws.errors import ProtocolError

LARGEST_LENGTH = (1 << 63) - 1


# What is taken

EXAMPLES: dict[str, tuple[bool, str, Event]] = {
    "an unmasked text message": (False, "810548656c6c6f", (TEXT, "Hello", 5)),
    "a masked text message": (True, "818537fa213d7f9f4d5158", (TEXT, "Hello", 5)),
    "a fragmented text message": (False, "010348656c80026c6f", (TEXT, "Hello", 5)),
    "an unmasked ping": (False, "890548656c6c6f", (PING, b"Hello", 5)),
    "a masked pong": (True, "8a8537fa213d7f9f4d5158", (PONG, b"Hello", 5)),
    "256 bytes": (False, "827e0100" + "05" * 256, (BINARY, b"\x05" * 256, 256)),
    "64 KiB": (False, "827f0000000000010000" + "05" * 65536, (BINARY, b"\x05" * 65536, 65536)),
}


@pytest.mark.parametrize(("from_client", "wire", "event"), EXAMPLES.values(), ids=EXAMPLES)
def test_takes_the_examples_of_section_5_7(engine: Engine, from_client: bool, wire: str, event: Event) -> None:
    assert Peer(engine, from_client).outcome(bytes.fromhex(wire)) == Outcome([event])


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 65537, 200_000])
@pytest.mark.parametrize("opcode", MESSAGES)
def test_takes_a_message_of_any_length(peer: Peer, opcode: int, length: int) -> None:
    payload = (b"0123456789" * (length // 10 + 1))[:length]
    expected = payload.decode() if opcode == TEXT else payload
    wire = peer.send(Frame(opcode, payload))
    assert peer.outcome(wire) == Outcome([(opcode, expected, length)])
    assert peer.outcome(*cut_at(wire, 1, 3, 7, 12, len(wire) - 1)) == Outcome([(opcode, expected, length)])


@pytest.mark.parametrize("length", [0, 1, 124, 125])
@pytest.mark.parametrize("opcode", CONTROLS)
@pytest.mark.rfc("6455-5.5-control-length")
def test_takes_a_control_frame_of_at_most_125_bytes(peer: Peer, opcode: int, length: int) -> None:
    wire = peer.send(Frame(opcode, b"\xff" * length))
    assert peer.outcome(wire) == Outcome([(opcode, b"\xff" * length, length)])
    assert peer.outcome(*each_byte(wire)) == Outcome([(opcode, b"\xff" * length, length)])


@pytest.mark.rfc("6455-6.2-type")
def test_payloads_are_str_for_text_and_bytes_for_all_else(peer: Peer) -> None:
    sent = [Frame(opcode, b"x") for opcode in (TEXT, BINARY, *CONTROLS)]
    for chunks in ([peer.send(*sent)], each_byte(peer.send(*sent))):
        assert [type(payload) for _, payload, _ in peer.outcome(*chunks).events] == [str, bytes, bytes, bytes, bytes]


def test_size_is_in_bytes_and_not_in_characters(peer: Peer) -> None:
    assert peer.outcome(peer.send(Frame(TEXT, "aé€😀".encode()))).events == [(TEXT, "aé€😀", 10)]


def test_a_close_payload_is_handed_on_as_it_is(peer: Peer) -> None:
    for payload in (b"\x03", b"\x00\x00", b"\x03\xe8\xff"):
        assert peer.outcome(peer.send(Frame(CLOSE, payload))) == Outcome([(CLOSE, payload, len(payload))])


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04", b"\x00\x00\x00\x80"])
@pytest.mark.parametrize("opcode", [BINARY, PING])
@pytest.mark.rfc("6455-6.2-unmasked")
def test_takes_any_masking_key(client: Peer, opcode: int, mask: bytes) -> None:
    payload = bytes(range(100))
    assert client.outcome(Frame(opcode, payload).encode(mask)) == Outcome([(opcode, payload, 100)])


@pytest.mark.parametrize("length", range(1, 12))
@pytest.mark.parametrize("opcode", [BINARY, PING])
@pytest.mark.rfc("6455-5.3-algorithm")
def test_unmasks_in_step_wherever_a_payload_is_cut(client: Peer, opcode: int, length: int) -> None:
    payload = bytes(range(length))
    wire = client.send(Frame(opcode, payload))
    for first in range(6, len(wire) + 1):
        for second in range(first, len(wire) + 1):
            assert client.outcome(*cut_at(wire, first, second)) == Outcome([(opcode, payload, length)])


@pytest.mark.parametrize("length", [16, 17, 31, 100])
def test_unmasks_in_step_when_a_longer_payload_is_cut(client: Peer, length: int) -> None:
    payload = bytes(i * 37 & 0xFF for i in range(length))
    wire = client.send(Frame(BINARY, payload))
    for first in range(6, len(wire)):
        for second in (first, min(first + 13, len(wire))):
            assert client.outcome(*cut_at(wire, first, second)) == Outcome([(BINARY, payload, length)])


@pytest.mark.rfc("6455-5.3-algorithm")
def test_each_frame_has_its_own_masking_key(client: Peer) -> None:
    wire = Frame(BINARY, b"abc", fin=False).encode(b"1234")
    wire += Frame(CONTINUATION, b"defgh", fin=False).encode(b"5678") + Frame(CONTINUATION, b"i").encode(b"90ab")
    assert client.outcome(wire) == Outcome([(BINARY, b"abcdefghi", 9)])
    assert client.outcome(*each_byte(wire)) == Outcome([(BINARY, b"abcdefghi", 9)])


# What is refused


def refuses(peer: Peer, wire: bytes, close_code: int = 1002) -> None:
    """The violation is seen at the end of the header, however it arrives, and what went before is not lost."""
    before = peer.send(Frame(TEXT, b"before"))
    expected = Outcome([(TEXT, "before", 6)], close_code)
    assert peer.outcome(before + wire) == expected
    assert peer.outcome(*each_byte(before + wire)) == expected
    assert peer.outcome(before + wire + peer.send(Frame(TEXT, b"after"))) == expected


@pytest.mark.parametrize("opcode", RESERVED)
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("length", [0, 5])
@pytest.mark.rfc("6455-5.2-opcode-refused")
def test_refuses_a_reserved_opcode(peer: Peer, opcode: int, fin: bool, length: int) -> None:
    refuses(peer, peer.header(Frame(opcode, fin=fin), length))


@pytest.mark.parametrize("rsv", range(RSV3, 0x80, RSV3))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, *CONTROLS])
@pytest.mark.parametrize("length", [0, 5])
@pytest.mark.rfc("6455-5.2-rsv-refused")
def test_refuses_reserved_bits_that_no_extension_claimed(peer: Peer, opcode: int, rsv: int, length: int) -> None:
    refuses(peer, peer.header(Frame(opcode, rsv=rsv), length))


@pytest.mark.parametrize("rsv", [RSV1, RSV2, RSV3])
@pytest.mark.rfc("6455-5.2-rsv-refused")
def test_refuses_reserved_bits_in_a_continuation(peer: Peer, rsv: int) -> None:
    refuses(peer, peer.send(Frame(TEXT, b"a", fin=False), Frame(CONTINUATION, b"b", rsv=rsv)))


@pytest.mark.parametrize("opcode", [TEXT, BINARY, *CONTROLS])
@pytest.mark.parametrize("payload", [b"", b"Hello"])
@pytest.mark.rfc("6455-5.1-server-refuses-unmasked")
def test_refuses_an_unmasked_frame_from_a_client(client: Peer, opcode: int, payload: bytes) -> None:
    refuses(client, Frame(opcode, payload).encode(None))


@pytest.mark.parametrize("opcode", [TEXT, BINARY, *CONTROLS])
@pytest.mark.parametrize("payload", [b"", b"Hello"])
@pytest.mark.rfc("6455-5.1-client-refuses-masked")
def test_refuses_a_masked_frame_from_a_server(server: Peer, opcode: int, payload: bytes) -> None:
    refuses(server, Frame(opcode, payload).encode(MASK))


@pytest.mark.rfc("6455-5.1-server-refuses-unmasked", "6455-5.1-client-refuses-masked")
def test_refuses_the_wrong_masking_in_a_continuation_too(peer: Peer) -> None:
    wrong = None if peer.is_client else MASK
    refuses(peer, peer.send(Frame(TEXT, b"a", fin=False)) + Frame(CONTINUATION, b"b").encode(wrong))


@pytest.mark.parametrize(("length", "length_bytes"), [(0, 2), (1, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8)])
@pytest.mark.parametrize("opcode", MESSAGES)
@pytest.mark.rfc("6455-5.2-length-shortest")
def test_refuses_a_length_that_is_not_told_in_the_fewest_bytes(
    peer: Peer, opcode: int, length: int, length_bytes: int
) -> None:
    refuses(peer, peer.header(Frame(opcode), length, length_bytes))


@pytest.mark.parametrize(("length", "length_bytes"), [(126, 2), (65535, 2), (65536, 8)])
@pytest.mark.rfc("6455-5.2-length-shortest")
def test_takes_a_length_told_in_the_fewest_bytes(peer: Peer, length: int, length_bytes: int) -> None:
    wire = peer.header(Frame(BINARY), length, length_bytes) + xor(b"x" * length, peer.mask or b"\0\0\0\0")
    assert peer.outcome(wire) == Outcome([(BINARY, b"x" * length, length)])


@pytest.mark.parametrize("length", [1 << 63, (1 << 63) + 5, (1 << 64) - 1])
@pytest.mark.rfc("6455-5.2-length-top-bit")
def test_refuses_a_length_with_its_most_significant_bit_set(peer: Peer, length: int) -> None:
    # 1002, though it is beyond any limit too: the length is not well formed.
    refuses(peer, peer.header(Frame(BINARY), length))


@pytest.mark.rfc("6455-5.2-length-top-bit")
def test_the_largest_length_is_well_formed(peer: Peer) -> None:
    header = peer.header(Frame(BINARY), LARGEST_LENGTH)
    assert peer.outcome(header, limit=LARGEST_LENGTH) == Outcome([])
    assert peer.outcome(header, limit=LARGEST_LENGTH - 1) == Outcome([], 1009)


@pytest.mark.parametrize("length", [126, 127, 65535, 65536])
@pytest.mark.parametrize("opcode", CONTROLS)
@pytest.mark.rfc("6455-5.5-control-length")
def test_refuses_a_control_frame_of_more_than_125_bytes(peer: Peer, opcode: int, length: int) -> None:
    refuses(peer, peer.header(Frame(opcode), length))


@pytest.mark.parametrize("length_bytes", [2, 8])
@pytest.mark.parametrize("opcode", CONTROLS)
def test_refuses_a_control_frame_with_an_extended_length(peer: Peer, opcode: int, length_bytes: int) -> None:
    refuses(peer, peer.header(Frame(opcode), 5, length_bytes))


@pytest.mark.parametrize("opcode", CONTROLS)
@pytest.mark.parametrize("length", [0, 5])
@pytest.mark.rfc("6455-5.4-control-not-fragmented")
def test_refuses_a_fragmented_control_frame(peer: Peer, opcode: int, length: int) -> None:
    refuses(peer, peer.header(Frame(opcode, fin=False), length))


@pytest.mark.parametrize(
    "frame",
    [Frame(0x3), Frame(TEXT, rsv=RSV2), Frame(PING, fin=False), Frame(CONTINUATION)],
    ids=["a reserved opcode", "a reserved bit", "a fragmented ping", "a lone continuation"],
)
def test_two_bytes_are_enough_to_refuse(peer: Peer, frame: Frame) -> None:
    assert peer.outcome(peer.send(frame)[:2]) == Outcome([], 1002)


# How it is told: the contract at the head of `tornado_ws.engine.reader`


def test_wants_another_chunk_when_it_has_no_whole_event(peer: Peer) -> None:
    reader = peer.reader()
    steps = iter(reader)
    assert next(steps) is None
    wire = peer.send(Frame(TEXT, b"Hello"))
    for chunk in each_byte(wire[:-1]):
        reader.feed(chunk)
        assert next(steps) is None
        assert next(steps) is None
    reader.feed(wire[-1:])
    assert next(steps) == (TEXT, "Hello", 5)
    assert next(steps) is None


def test_an_empty_chunk_changes_nothing(peer: Peer) -> None:
    wire = peer.send(Frame(TEXT, "é".encode()), Frame(PING, b"x"))
    chunks = [chunk for byte in each_byte(wire) for chunk in (b"", byte, b"")]
    assert peer.outcome(*chunks) == Outcome([(TEXT, "é", 2), (PING, b"x", 1)])


def test_chunks_may_be_fed_faster_than_they_are_parsed(peer: Peer) -> None:
    reader = peer.reader()
    for byte in each_byte(peer.send(Frame(TEXT, b"one"), Frame(BINARY, b"two"))):
        reader.feed(byte)
    assert events_now(reader) == [(TEXT, "one", 3), (BINARY, b"two", 3)]
    reader.feed(peer.send(Frame(TEXT, b"three")))
    reader.feed(peer.send(Frame(TEXT, b"four")))
    assert next(iter(reader)) == (TEXT, "three", 5)
    reader.feed(peer.send(Frame(TEXT, b"five")))
    assert events_now(reader) == [(TEXT, "four", 4), (TEXT, "five", 4)]


def test_iterating_anew_goes_on_where_it_was_left(peer: Peer) -> None:
    reader = peer.reader()
    reader.feed(peer.send(Frame(TEXT, b"a"), Frame(TEXT, b"b"), Frame(TEXT, b"c")))
    assert [next(iter(reader)) for _ in range(4)] == [(TEXT, "a", 1), (TEXT, "b", 1), (TEXT, "c", 1), None]


def test_parses_no_further_than_the_next_event(peer: Peer) -> None:
    reader = peer.reader()
    reader.feed(peer.send(Frame(TEXT, b"good"), Frame(PING, b"good"), Frame(0x3)))
    steps = iter(reader)
    assert next(steps) == (TEXT, "good", 4)
    assert next(steps) == (PING, b"good", 4)
    with pytest.raises(ProtocolError) as caught:
        next(steps)
    assert caught.value.close_code == 1002
    assert is_finished(reader)


def test_every_event_before_a_violation_comes_first(peer: Peer) -> None:
    sent = [Frame(TEXT, b"1"), Frame(PING, b"2"), Frame(BINARY, b"3", fin=False), Frame(PONG, b"4"), Frame(0x7)]
    expected = Outcome([(TEXT, "1", 1), (PING, b"2", 1), (PONG, b"4", 1)], 1002)
    assert peer.outcome(peer.send(*sent, Frame(TEXT, b"5"))) == expected
    assert peer.outcome(*each_byte(peer.send(*sent))) == expected


def test_a_message_begun_before_a_violation_is_never_handed_out(peer: Peer) -> None:
    wire = peer.send(Frame(TEXT, b"Hel", fin=False), Frame(0x3), Frame(CONTINUATION, b"lo"))
    assert peer.outcome(wire) == Outcome([], 1002)


def test_readers_share_nothing(peer: Peer) -> None:
    one, other = peer.reader(), peer.reader()
    one.feed(peer.send(Frame(TEXT, b"Hel", fin=False)))
    assert events_now(one) == []
    assert read(other, [peer.send(Frame(CONTINUATION, b"lo"))]) == Outcome([], 1002)
    assert read(one, [peer.send(Frame(CONTINUATION, b"lo"))]) == Outcome([(TEXT, "Hello", 5)])


# What is written

HEADERS = {
    0: "8200",
    1: "8201",
    125: "827d",
    126: "827e007e",
    127: "827e007f",
    255: "827e00ff",
    256: "827e0100",
    65535: "827effff",
    65536: "827f0000000000010000",
    70000: "827f0000000000011170",
}


@pytest.mark.parametrize(("length", "header"), HEADERS.items())
@pytest.mark.rfc("6455-5.2-length-shortest")
def test_writes_a_length_in_the_fewest_bytes(engine: Engine, length: int, header: str) -> None:
    payload = b"x" * length
    assert engine.encode_frame(0x82, payload, False) == bytes.fromhex(header) + payload


@pytest.mark.parametrize("first", [0x81, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1, 0x42, 0xF2])
@pytest.mark.parametrize("masked", [True, False])
def test_writes_the_first_byte_as_it_is_given(engine: Engine, first: int, masked: bool) -> None:
    assert engine.encode_frame(first, b"Hello", masked)[0] == first


@pytest.mark.parametrize("length", [*HEADERS, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.rfc("6455-5.3-mask-bit", "6455-5.3-algorithm")
def test_masks_what_a_client_sends(engine: Engine, length: int) -> None:
    payload = bytes(i * 7 & 0xFF for i in range(length))
    frame = engine.encode_frame(0x82, payload, True)
    size = len(frame) - length
    mask = frame[size - 4 : size]
    assert frame == Frame(BINARY, payload).encode(mask)


@pytest.mark.rfc("6455-5.3-fresh-key")
@pytest.mark.rfc("6455-10.3-new-key")
def test_masks_each_frame_with_a_fresh_key(engine: Engine) -> None:
    keys = {engine.encode_frame(0x89, b"", True)[2:] for _ in range(100)}
    assert len(keys) > 95
    assert {len(key) for key in keys} == {4}


@pytest.mark.rfc("6455-5.3-fresh-key")
def test_keys_are_those_of_the_operating_systems_generator_each_for_one_frame(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = bytearray()
    urandom = os.urandom

    def watched(size: int) -> bytes:
        drawn.extend(urandom(size))
        return bytes(drawn[-size:])

    monkeypatch.setattr(os, "urandom", watched)
    # What was drawn before is used up first.
    keys = [engine.encode_frame(0x89, b"", True)[2:] for _ in range(2048)]
    available = Counter(bytes(drawn[i : i + 4]) for i in range(0, len(drawn), 4))
    assert not Counter(keys[1024:]) - available


@pytest.mark.rfc("6455-5.3-fresh-key")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_child_has_keys_of_its_own(engine: Engine) -> None:
    engine.encode_frame(0x89, b"", True)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, b"".join(engine.encode_frame(0x89, b"", True)[2:] for _ in range(100)))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 400)
    os.close(reading)
    os.close(writing)
    ours = {engine.encode_frame(0x89, b"", True)[2:] for _ in range(100)}
    assert len(theirs) == 400
    # Two keys in ten thousand pairs are alike once in some hundred thousand runs.
    assert len(ours & {theirs[i : i + 4] for i in range(0, 400, 4)}) < 2


@pytest.mark.parametrize("from_client", [True, False])
@pytest.mark.parametrize("length", HEADERS)
def test_reads_what_it_writes(engine: Engine, from_client: bool, length: int) -> None:
    payload = b"\xa5" * length
    frame = engine.encode_frame(0x82, payload, from_client)
    assert Peer(engine, from_client).outcome(frame, limit=LIMIT) == Outcome([(BINARY, payload, length)])


@pytest.mark.parametrize("mask", [MASK, b"\0\0\0\0", b"\xff\x00\xff\x01"])
@pytest.mark.rfc("6455-5.3-algorithm")
def test_apply_mask_is_an_exclusive_or_with_the_repeated_key(engine: Engine, mask: bytes) -> None:
    for length in (*range(40), 1000, 4096, 4099):
        data = bytes(i * 31 & 0xFF for i in range(length))
        masked = engine.apply_mask(mask, data)
        assert type(masked) is bytes
        assert masked == bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
