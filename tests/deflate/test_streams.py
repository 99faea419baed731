"""Streams of deflate that the native engine goes on with, against those by the objects of the zlib module."""

from __future__ import annotations

import importlib
import random
import threading
import types
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.needs import need
from tests.wire import each_byte
from tornado_ws.deflate import backends
from tornado_ws.deflate.backends import Codec, library_of
from tornado_ws.deflate.interfaces import Live
from tornado_ws.deflate.module_streams import Deflater, Inflater
from tornado_ws.deflate.options import deflate_options
from tornado_ws.deflate.streams import LiveStreams

NOISE = random.Random(1).randbytes(100_000)
TAIL = b"\x00\x00\xff\xff"
BACKENDS = ["zlib", "zlib_ng"]


def codec_of(backend: str) -> Codec:
    codec = deflate_options({"backend": backend}).codecs.to_deflate(1)
    need(library_of(codec.backend), f"{backend} without its module")
    return codec


def native_inflater(codec: Codec, wbits: int = 15, history: bytes = b"", admit: Any = None) -> Any:
    return codec.make_inflater(wbits, history, admit)


def native_deflater(codec: Codec, wbits: int = 15, history: bytes = b"", admit: Any = None) -> Any:
    return codec.make_deflater(wbits, history, admit)


pieces = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(lambda start, size: NOISE[start : start + size], st.integers(0, 60_000), st.integers(0, 40_000)),
        st.builds(lambda byte, size: bytes((byte,)) * size, st.integers(0, 255), st.integers(0, 100_000)),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("backend", BACKENDS)
@given(messages=pieces, wbits=st.integers(9, 15), freezing=st.sets(st.integers(0, 5)))
def test_deflaters_of_both_kinds_keep_the_window_and_the_history(
    backend: str, messages: list[bytes], wbits: int, freezing: set[int]
) -> None:
    codec = codec_of(backend)
    streams = [native_deflater(codec, wbits), Deflater(codec, wbits, b"", None)]
    for stream in streams:
        inflater = zlib.decompressobj(-wbits)
        sent = b""
        for number, message in enumerate(messages):
            if number in freezing:
                assert stream.freeze()
                assert not stream.live
            payload = stream.deflate(message or b"x")
            assert b"".join(inflater.decompress(byte) for byte in each_byte(payload + TAIL)) == (message or b"x")
            sent += message or b"x"
            assert len(stream.history) <= 2048
            assert sent.endswith(stream.history)
            assert len(stream.history) >= min(len(sent), 2048, (1 << wbits) - 262)


def outcome(stream: Any, payload: bytes, room: int) -> object:
    """What becomes of a message: its bytes, or why there is none."""
    got = b""
    try:
        for at in range(0, len(payload), 700) or (0,):
            piece = stream.inflate(payload[at : at + 700], room)
            got += piece
            while len(piece) == room:
                piece = stream.inflate(b"", room)
                got += piece
    except stream.error:
        return "does not inflate"
    return got if stream.end() else "cut short"


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    data=st.data(),
    messages=pieces,
    level=st.integers(0, 9),
    strategy=st.integers(0, 4),
    wbits=st.integers(9, 15),
    room=st.integers(1, 100_000),
)
@settings(max_examples=300)
def test_inflaters_of_both_kinds_agree_on_what_is_whole_and_what_is_not(
    backend: str, data: st.DataObject, messages: list[bytes], level: int, strategy: int, wbits: int, room: int
) -> None:
    codec = codec_of(backend)
    streams = [native_inflater(codec, wbits), Inflater(codec, wbits, b"")]
    compressor = zlib.compressobj(level, zlib.DEFLATED, -wbits, 8, strategy)
    for message in messages:
        payload = (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] or b"\x00"
        if data.draw(st.booleans()):
            assert [outcome(stream, payload, room) for stream in streams] == [message, message]
            assert streams[0].history == streams[1].history[-(1 << wbits) :]
        else:
            cut = data.draw(st.integers(0, len(payload)))
            broken = payload[:cut] + data.draw(st.binary(max_size=8))
            native, by_module = (outcome(stream, broken, room) for stream in streams)
            assert native == by_module
            return


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.rfc("7692-7.2.2-taken-over")
def test_an_inflater_goes_on_where_another_was_frozen(backend: str) -> None:
    codec = codec_of(backend)
    compressor = zlib.compressobj(wbits=-15)
    stream = native_inflater(codec)
    for message in (NOISE[:40_000], NOISE[20_000:50_000], b"", NOISE[49_000:60_000]):
        payload = (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] or b"\x00"
        assert stream.inflate(payload[:100], 1 << 17) + stream.inflate(payload[100:], 1 << 17) == message
        # Inside of a message it cannot be.
        assert not stream.freeze()
        assert stream.end()
        assert stream.freeze()
        assert not stream.live
        assert stream.history.endswith(message[-1000:])


def test_what_is_not_to_stay_is_frozen_when_its_message_is_done() -> None:
    codec = codec_of("zlib")
    asked: list[Live] = []

    def refuse(stream: Live) -> bool:
        asked.append(stream)
        return False

    deflater, inflater = native_deflater(codec, admit=refuse), native_inflater(codec, admit=refuse)
    for message in (b"one, one", b"one, two", NOISE):
        payload = deflater.deflate(message)
        assert not deflater.live
        assert inflater.inflate(payload, 1 << 17) == message
        assert inflater.live
        assert inflater.end()
        assert not inflater.live
    assert asked == [deflater, inflater] * 3


def test_both_directions_share_the_memory_and_dead_ones_take_none() -> None:
    codec = codec_of("zlib")
    live = LiveStreams(700_000)
    payload = native_deflater(codec).deflate(b"text")
    streams = []
    for _ in range(20):
        streams += [native_deflater(codec, admit=live.admit), native_inflater(codec, admit=live.admit)]
        streams[-2].deflate(b"text")
        streams[-1].inflate(payload, 100)
        streams[-1].end()
    assert 4 <= len(live) == sum(stream.live for stream in streams)
    assert sum(stream.memory for stream in streams if stream.live) <= 700_000
    # Whoever forgets and begins anew is counted once.
    for _ in range(100):
        streams[-2].forget()
        streams[-2].deflate(b"text")
    assert 4 <= len(live) == sum(stream.live for stream in streams)
    del streams
    assert len(live) == 0


def test_more_than_the_memory_is_live_only_while_all_are_at_work() -> None:
    codec = codec_of("zlib")
    live = LiveStreams(100_000)
    payload = native_deflater(codec).deflate(b"text")
    streams = [native_inflater(codec, admit=live.admit) for _ in range(5)]
    for stream in streams:
        # Their messages are not at their end.
        stream.inflate(payload, 100)
    assert len(live) == 5
    for stream in streams:
        assert stream.end()
    late = native_inflater(codec, admit=live.admit)
    late.inflate(payload, 100)
    assert len(live) <= 2
    assert late.live


def test_a_thread_at_work_keeps_its_stream() -> None:
    codec = codec_of("zlib")
    stream = native_deflater(codec)
    data = NOISE * 40
    payloads: list[bytes] = []
    worker = threading.Thread(target=lambda: payloads.append(stream.deflate(data)))
    worker.start()
    # Whether or not it is done by then: it gives nothing up in the middle.
    while worker.is_alive():
        stream.freeze()
        stream.forget()
    worker.join()
    assert zlib.decompressobj(-15).decompress(payloads[0] + TAIL) == data
    follower = stream.deflate(b"alone")
    assert zlib.decompressobj(-15).decompress(follower + TAIL) == b"alone"


def test_a_module_that_does_not_show_its_functions_is_used_by_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codec_of("zlib")
    native = importlib.import_module("tornado_ws.deflate._deflate")
    # A program with zlib inside, as some Pythons are, or a library that has none of it.
    empty = types.ModuleType("empty")
    empty.error = zlib.error  # type: ignore[attr-defined]
    for file in ("/nowhere/zlib.so", native.__file__):
        empty.__file__ = file
        with pytest.raises(ImportError, match="empty does not show its functions"):
            native.Library(empty, "none_")

    def refuse(*args: object) -> None:
        raise ImportError

    monkeypatch.setattr(native, "Library", refuse)
    library_of.cache_clear()
    try:
        assert isinstance(codec.make_deflater(15), Deflater)
        assert isinstance(codec.make_inflater(15), Inflater)
    finally:
        library_of.cache_clear()
    assert backends.library_of is library_of


@pytest.mark.parametrize("backend", BACKENDS)
def test_room_below_zero_is_none(backend: str) -> None:
    """zlib counts without a sign: it would write behind its memory."""
    codec = codec_of(backend)
    payload = native_deflater(codec).deflate(b"x" * 100_000)
    assert native_inflater(codec).inflate(payload, -5) == b""


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_made_without_what_it_needs(backend: str) -> None:
    codec = codec_of(backend)
    for made in (library_of(codec.backend), native_deflater(codec), native_inflater(codec)):
        cls: Any = type(made)
        with pytest.raises(TypeError):
            cls.__new__(cls)
