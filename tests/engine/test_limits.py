"""The size limit of a message, and what a reader keeps in memory."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.engine.reading import Outcome, Peer, events_now
from tests.wire import BINARY, CONTINUATION, MESSAGES, PING, RSV1, TEXT, Frame, cut_at, deflated, each_byte
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.engine.reader import FrameReader
from tornado_ws.errors import ProtocolError

KIB = 1024
MIB = 1024 * 1024


def inflater() -> PerMessageDeflateDecompressor:
    # The limit of its own is for `decompress` alone: a reader says how much it may give.
    return PerMessageDeflateDecompressor(True, None, 0)


# The limit on the wire


@pytest.mark.parametrize("limit", [0, 1, 10, 125, 126, 65535, 65536])
@pytest.mark.parametrize("opcode", MESSAGES)
def test_takes_a_message_of_just_the_limit(peer: Peer, opcode: int, limit: int) -> None:
    payload = b"x" * limit
    expected = Outcome([(opcode, payload.decode() if opcode == TEXT else payload, limit)])
    wire = peer.send(Frame(opcode, payload))
    assert peer.outcome(wire, limit=limit) == expected
    assert peer.outcome(*cut_at(wire, 1, len(wire) - 1), limit=limit) == expected


@pytest.mark.parametrize("limit", [0, 1, 10, 125, 126, 65535, 65536])
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("opcode", MESSAGES)
@pytest.mark.rfc("6455-10.4-limits")
def test_refuses_a_larger_message_before_its_payload_arrives(peer: Peer, opcode: int, fin: bool, limit: int) -> None:
    header = peer.header(Frame(opcode, fin=fin), limit + 1)
    assert peer.outcome(header, limit=limit) == Outcome([], 1009)
    assert peer.outcome(*each_byte(header), limit=limit) == Outcome([], 1009)
    before = peer.send(Frame(PING), Frame(TEXT))
    assert peer.outcome(before + header, limit=limit) == Outcome([(PING, b"", 0), (TEXT, "", 0)], 1009)


@pytest.mark.rfc("6455-10.4-limits")
def test_the_fragments_of_a_message_count_together(peer: Peer) -> None:
    begun = peer.send(Frame(BINARY, b"x" * 60, fin=False), Frame(CONTINUATION, b"y" * 30, fin=False))
    enough = peer.send(Frame(CONTINUATION, b"z" * 10))
    assert peer.outcome(begun + enough, limit=100) == Outcome([(BINARY, b"x" * 60 + b"y" * 30 + b"z" * 10, 100)])
    too_much = peer.header(Frame(CONTINUATION), 11)
    assert peer.outcome(begun, too_much, limit=100) == Outcome([], 1009)
    assert peer.outcome(*each_byte(begun + too_much), limit=100) == Outcome([], 1009)


def test_an_empty_fragment_after_just_the_limit_is_within_it(peer: Peer) -> None:
    wire = peer.send(Frame(BINARY, b"xxx", fin=False), Frame(CONTINUATION, fin=False), Frame(CONTINUATION))
    assert peer.outcome(wire, limit=3) == Outcome([(BINARY, b"xxx", 3)])


def test_each_message_counts_anew(peer: Peer) -> None:
    sent = [Frame(BINARY, b"12", fin=False), Frame(CONTINUATION, b"3"), Frame(TEXT, b"456"), Frame(BINARY, b"789")]
    expected = Outcome([(BINARY, b"123", 3), (TEXT, "456", 3), (BINARY, b"789", 3)])
    assert peer.outcome(peer.send(*sent), limit=3) == expected
    assert peer.outcome(*each_byte(peer.send(*sent)), limit=3) == expected


def test_control_frames_do_not_count(peer: Peer) -> None:
    ping = Frame(PING, b"p" * 125)
    wire = peer.send(ping, Frame(BINARY, b"12", fin=False), ping, Frame(CONTINUATION, b"3"))
    event = (PING, b"p" * 125, 125)
    assert peer.outcome(wire, limit=3) == Outcome([event, event, (BINARY, b"123", 3)])


def test_the_limit_is_in_bytes_and_not_in_characters(peer: Peer) -> None:
    wire = peer.send(Frame(TEXT, "€€".encode()))
    assert peer.outcome(wire, limit=6) == Outcome([(TEXT, "€€", 6)])
    assert peer.outcome(wire, limit=5) == Outcome([], 1009)


# The limit while inflating


@pytest.mark.parametrize("limit", [0, 1, 100, 65536])
@pytest.mark.parametrize("opcode", MESSAGES)
@pytest.mark.rfc("6455-10.4-limits")
def test_the_limit_of_a_compressed_message_is_after_inflating(peer: Peer, opcode: int, limit: int) -> None:
    payload = b"x" * limit
    expected = Outcome([(opcode, payload.decode() if opcode == TEXT else payload, limit)])
    for level in (0, 6):
        wire = peer.send(Frame(opcode, deflated(payload, level), rsv=RSV1))
        assert peer.outcome(wire, limit=limit, inflater=inflater()) == expected
        wire = peer.send(Frame(opcode, deflated(payload + b"x", level), rsv=RSV1))
        assert peer.outcome(wire, limit=limit, inflater=inflater()) == Outcome([], 1009)
        chunks = cut_at(wire, *range(0, len(wire), max(1, len(wire) // 100)))
        assert peer.outcome(*chunks, limit=limit, inflater=inflater()) == Outcome([], 1009)


def test_a_compressed_message_may_be_larger_on_the_wire_than_its_limit(peer: Peer) -> None:
    payload = b"incompressible"
    stored = deflated(payload, level=0)
    assert len(stored) > len(payload)
    wire = peer.send(Frame(BINARY, stored[:9], fin=False, rsv=RSV1), Frame(CONTINUATION, stored[9:]))
    expected = Outcome([(BINARY, payload, len(payload))])
    assert peer.outcome(wire, limit=len(payload), inflater=inflater()) == expected


def test_the_fragments_of_a_compressed_message_count_together(peer: Peer) -> None:
    compressor = zlib.compressobj(wbits=-15)
    steps = [compressor.compress(b"x" * 40) + compressor.flush(zlib.Z_SYNC_FLUSH) for _ in range(3)]
    begun = peer.send(Frame(BINARY, steps[0], fin=False, rsv=RSV1), Frame(CONTINUATION, steps[1], fin=False))
    rest = peer.send(Frame(CONTINUATION, steps[2][:-4]))
    assert peer.outcome(begun, rest, limit=120, inflater=inflater()) == Outcome([(BINARY, b"x" * 120, 120)])
    assert peer.outcome(begun, rest, limit=119, inflater=inflater()) == Outcome([], 1009)
    assert peer.outcome(begun, limit=79, inflater=inflater()) == Outcome([], 1009)


def test_refuses_a_bomb_before_the_rest_of_it_arrives(peer: Peer) -> None:
    bomb = deflated(bytes(10 * MIB))
    wire = peer.send(Frame(BINARY, bomb, fin=False, rsv=RSV1))
    assert peer.outcome(wire[: len(wire) // 10], limit=MIB // 2, inflater=inflater()) == Outcome([], 1009)


def test_an_uncompressed_message_is_limited_on_a_compressed_connection_too(peer: Peer) -> None:
    header = peer.header(Frame(BINARY), 11)
    assert peer.outcome(header, limit=10, inflater=inflater()) == Outcome([], 1009)
    begun = peer.send(Frame(BINARY, deflated(b"x" * 10), rsv=RSV1), Frame(BINARY, b"x" * 6, fin=False))
    header = peer.header(Frame(CONTINUATION), 5)
    expected = Outcome([(BINARY, b"x" * 10, 10)], 1009)
    assert peer.outcome(begun, header, limit=10, inflater=inflater()) == expected


def test_text_that_is_not_utf8_within_the_limit_is_refused_as_that_however_it_arrives(peer: Peer) -> None:
    wire = peer.send(Frame(TEXT, deflated(b"ok\xff" + b"a" * 100), rsv=RSV1))
    assert peer.outcome(*each_byte(wire), limit=50, inflater=inflater()) == Outcome([], 1007)
    assert peer.outcome(wire, limit=50, inflater=inflater()) == Outcome([], 1007)


@pytest.mark.parametrize("limit", [sys.maxsize - 1, sys.maxsize])
def test_there_may_be_no_limit_to_speak_of(peer: Peer, limit: int) -> None:
    wire = peer.send(Frame(TEXT, b"Hello"), Frame(TEXT, deflated(b"Hello"), rsv=RSV1))
    expected = Outcome([(TEXT, "Hello", 5), (TEXT, "Hello", 5)])
    assert peer.outcome(wire, limit=limit, inflater=inflater()) == expected


# Memory


def kept_after(work: Callable[[], object]) -> int:
    """How many bytes are still allocated of what ``work`` allocated."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def consume(reader: FrameReader, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        reader.feed(chunk)
        del chunk
        events_now(reader)


def one_chunk(peer: Peer) -> Iterator[bytes]:
    yield peer.send(Frame(BINARY, bytes(MIB)))


def many_chunks(peer: Peer) -> Iterator[bytes]:
    wire = peer.send(Frame(TEXT, b"x" * MIB))
    yield from cut_at(wire, *range(0, MIB, 60_000))


def many_fragments(peer: Peer) -> Iterator[bytes]:
    yield peer.send(Frame(BINARY, bytes(64 * KIB), fin=False))
    for _ in range(15):
        yield peer.send(Frame(CONTINUATION, bytes(64 * KIB), fin=False))
    yield peer.send(Frame(CONTINUATION))


def compressed(peer: Peer) -> Iterator[bytes]:
    yield peer.send(Frame(BINARY, deflated(bytes(MIB)), rsv=RSV1))


def incompressible(peer: Peer) -> Iterator[bytes]:
    yield peer.send(Frame(BINARY, deflated(bytes(MIB), level=0), rsv=RSV1))


ARRIVALS = [one_chunk, many_chunks, many_fragments, compressed, incompressible]


@pytest.mark.parametrize("arrives", ARRIVALS, ids=lambda arrives: str(arrives.__name__))
def test_an_idle_reader_keeps_nothing_of_the_messages_it_read(
    peer: Peer, arrives: Callable[[Peer], Iterator[bytes]]
) -> None:
    # Without takeover, so that the window does not count.
    reader = peer.reader(inflater=PerMessageDeflateDecompressor(False, None, 0))
    consume(reader, [peer.send(Frame(TEXT, deflated(b"warm"), rsv=RSV1), Frame(TEXT, b"up"))])
    # The process keeps the memory of a few large messages for those to come.
    consume(reader, arrives(peer))
    assert kept_after(lambda: consume(reader, arrives(peer))) < 8 * KIB


BEGUN = {
    "a header": lambda peer: peer.send(Frame(PING, b"ping"))[:1],
    "an extended length": lambda peer: peer.header(Frame(BINARY), 1000)[:3],
    "a control frame": lambda peer: peer.send(Frame(PING, b"ping"))[:-1],
    "a message": lambda peer: peer.send(Frame(BINARY, b"data"))[:-1],
    "a fragmented message": lambda peer: peer.send(Frame(BINARY, b"data", fin=False)),
}


@pytest.mark.parametrize("begins", BEGUN.values(), ids=BEGUN)
def test_a_reader_that_waits_inside_a_frame_keeps_its_beginning_alone(
    peer: Peer, begins: Callable[[Peer], bytes]
) -> None:
    reader = peer.reader()
    consume(reader, [peer.send(Frame(TEXT, b"warm"), Frame(TEXT, b"up"))])
    beginning = begins(peer)
    assert kept_after(lambda: consume(reader, (chunk + beginning for chunk in one_chunk(peer)))) < 8 * KIB


@pytest.mark.parametrize("size", [100, 60_000, MIB])
def test_a_reader_that_waits_inside_a_large_frame_keeps_what_it_has_of_it_once(peer: Peer, size: int) -> None:
    reader = peer.reader(limit=2 * MIB)
    consume(reader, [peer.send(Frame(TEXT, b"warm"), Frame(TEXT, b"up"))])
    beginning = peer.send(Frame(BINARY, bytes(2 * MIB)))[:MIB]
    assert kept_after(lambda: consume(reader, (beginning[i : i + size] for i in range(0, MIB, size)))) < 1.5 * MIB


def test_a_reader_keeps_nothing_of_a_message_that_a_violation_ends(peer: Peer) -> None:
    chunks = [peer.send(Frame(BINARY, bytes(MIB), fin=False)), peer.send(Frame(TEXT, b"another"))]

    def fail(reader: FrameReader) -> None:
        with pytest.raises(ProtocolError):
            consume(reader, chunks)

    # What Python, and whoever counts its lines, keeps of code that runs for the first time is not the reader's.
    fail(peer.reader(limit=2 * MIB))
    reader = peer.reader(limit=2 * MIB)
    assert kept_after(lambda: fail(reader)) < 8 * KIB


def test_the_memory_of_a_large_message_is_used_again_only_when_nobody_has_it(peer: Peer) -> None:
    reader = peer.reader()
    payloads = [bytes([number]) * (256 * KIB) for number in range(12)]
    kept: list[Any] = []
    for number, payload in enumerate(payloads):
        wire = peer.send(Frame(BINARY, payload))
        consume(reader, [wire[:1000]])
        reader.feed(wire[1000:])
        ((_, message, _),) = events_now(reader)
        hash(message)
        if number % 3:
            kept.append(memoryview(message) if number % 2 else message)
        del message
        # Whoever has a message sees it stay as it came, and a new one does not have the hash of an old one.
        assert [bytes(message) for message in kept] == [p for n, p in enumerate(payloads[: number + 1]) if n % 3]
        assert {message for message in kept if isinstance(message, bytes)} <= set(payloads)


def peak_of(work: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_costs_no_more_memory_than_the_limit_allows(peer: Peer) -> None:
    limit = 256 * KIB
    wire = peer.send(Frame(BINARY, deflated(bytes(64 * MIB)), rsv=RSV1))
    outcomes: list[Outcome] = []
    peak = peak_of(lambda: outcomes.append(peer.outcome(wire, limit=limit, inflater=inflater())))
    assert outcomes == [Outcome([], 1009)]
    assert peak < 4 * limit


def test_a_claimed_length_allocates_nothing(peer: Peer) -> None:
    header = peer.header(Frame(BINARY), 1 << 40)
    reader = peer.reader(limit=1 << 41)
    assert peak_of(lambda: consume(reader, [header])) < 8 * KIB
