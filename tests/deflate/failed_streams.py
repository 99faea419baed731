"""Streams of deflate when memory runs out in the middle of one: nothing of what was lost is used afterwards.

Run by `tests.deflate.test_failed_streams`.
"""

from __future__ import annotations

import importlib
import random
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.needs import need
from tornado_ws.deflate.backends import Codec
from tornado_ws.deflate.module_streams import Deflater
from tornado_ws.deflate.options import deflate_options

pytestmark = pytest.mark.usefixtures("streams")

TAIL = b"\x00\x00\xff\xff"
SIZES = [20, 3000, 9000, 200_000]


def codec() -> Codec:
    return deflate_options({"backend": "zlib"}).codecs.to_deflate(1)


def each_failure(make: Callable[[], Any], use: Callable[[Any], object]) -> tuple[list[Any], Any]:
    """Use streams, each with another allocation failing; returns those that told, and the one that needed no more."""
    try:
        testcapi: Any = importlib.import_module("_testcapi")
    except ImportError:
        testcapi = None
    need(testcapi, "_testcapi")
    failed: list[Any] = []
    for number in range(1, 500):
        stream = make()
        tracer = sys.gettrace()
        # It would fail too, and measure nothing from then on.
        sys.settrace(None)
        testcapi.set_nomemory(number, number + 1)
        try:
            use(stream)
        except (MemoryError, zlib.error):
            failed.append(stream)
        else:
            return failed, stream
        finally:
            testcapi.remove_mem_hooks()
            sys.settrace(tracer)
    raise AssertionError("it took more allocations than that")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ["deflate", "deflate_alone"])
@pytest.mark.parametrize("admitted", [True, False])
def test_what_a_deflater_lost_is_not_referred_to(size: int, method: str, admitted: bool) -> None:
    data = random.Random(size).randbytes(size)
    answers = {True: None, False: lambda stream: False}
    made = codec()
    failed, _ = each_failure(
        lambda: made.make_deflater(15, b"", answers[admitted]), lambda stream: getattr(stream, method)(data)
    )
    assert failed
    for stream in failed:
        assert not stream.history
        assert zlib.decompressobj(-15).decompress(stream.deflate(data) + TAIL) == data


@pytest.mark.parametrize("size", SIZES)
def test_an_inflater_that_failed_inside_a_message_inflates_no_more(size: int) -> None:
    data = random.Random(size).randbytes(size)
    compressor = zlib.compressobj(wbits=-15)
    payload, again = ((compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2))
    pieces = payload[: size // 2], payload[size // 2 :]
    made, room = codec(), size + 1

    def use(stream: Any) -> None:
        for piece in pieces:
            stream.inflate(piece, room)

    failed, whole = each_failure(lambda: made.make_inflater(15), use)
    assert whole.end()
    assert whole.inflate(again, size + 1) == data
    assert failed
    for stream in failed:
        assert not stream.live
        with pytest.raises(stream.error):
            stream.inflate(again, size + 1)
        assert not stream.end()


@pytest.mark.parametrize("size", [20, 9000])
def test_what_follows_a_message_that_stands_alone_refers_to_nothing_before_it(size: int) -> None:
    data = random.Random(size).randbytes(size)
    for freezing in (False, True):
        stream = codec().make_deflater(15)
        inflater = zlib.decompressobj(-15)
        stream.deflate(data)
        # It went elsewhere.
        stream.deflate_alone(data[::-1])
        assert stream.history == b""
        if freezing:
            assert stream.freeze()
            assert stream.history == b""
        for _ in range(2):
            assert inflater.decompress(stream.deflate(data) + TAIL) == data
        assert (data + data).endswith(stream.history)
        assert len(stream.history) == min(2 * size, 2048)


def test_a_message_written_while_a_stream_is_taken_in_does_not_freeze_it() -> None:
    """A finalizer may run there that writes to the same connection."""
    data = random.Random(1).randbytes(9000)
    inner: list[bytes] = []
    answers = iter([False, True])
    busy = False

    def admit(stream: Any) -> bool:
        nonlocal busy
        if not busy:
            busy = True
            if not isinstance(stream, Deflater):
                inner.append(stream.deflate(data))
                inner.append(stream.deflate(b"small"))
            busy = False
        return next(answers)

    stream = codec().make_deflater(15, b"", admit)
    inflater = zlib.decompressobj(-15)
    for admitted in (False, True):
        payload = stream.deflate(data)
        assert stream.live is admitted
        assert [inflater.decompress(part + TAIL) for part in inner] == [data, b"small"][: len(inner)]
        inner.clear()
        assert inflater.decompress(payload + TAIL) == data
