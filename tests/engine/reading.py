"""The engines under test, and what a reader makes of frames."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tests.needs import has_native_engine
from tests.wire import BINARY, MASK, PING, TEXT, Frame
from tornado_ws.close_codes import encode_close
from tornado_ws.engine import pure
from tornado_ws.engine.contract import LAST, PART, Event, Inflater
from tornado_ws.engine.read_ahead import ReadAhead
from tornado_ws.engine.reader import FrameReader
from tornado_ws.errors import ProtocolError

LIMIT = 1 << 20


class Engine(NamedTuple):
    name: str
    FrameReader: type[FrameReader]
    ReadAhead: type[ReadAhead]
    encode_frame: Callable[[int, bytes, bool], bytes]
    apply_mask: Callable[[bytes, bytes], bytes]


def _engines() -> list[Engine]:
    modules: list[Any] = [pure]
    # Looked for, and not tried: a native engine that is there and broken has to fail the run.
    if has_native_engine():
        modules.append(importlib.import_module("tornado_ws.engine._native"))
    return [Engine(module.__name__, *(getattr(module, field) for field in Engine._fields[1:])) for module in modules]


ENGINES = _engines()


class Outcome(NamedTuple):
    """The events that a reader gave, and the code that the connection is to be failed with, if it is."""

    events: list[Event]
    close_code: int | None = None


class Peer:
    """One end of a connection: it makes the frames that this end sends, and readers for who receives them."""

    def __init__(self, engine: Engine, is_client: bool) -> None:
        self.engine = engine
        self.is_client = is_client
        self.mask = MASK if is_client else None

    def send(self, *sent: Frame) -> bytes:
        return b"".join(frame.encode(self.mask) for frame in sent)

    def header(self, frame: Frame, length: int, length_bytes: int | None = None) -> bytes:
        return frame.header(self.mask, length, length_bytes)

    def reader(self, limit: int = LIMIT, inflater: Inflater | None = None) -> FrameReader:
        return self.engine.FrameReader(self.is_client, limit, inflater)

    def outcome(self, *chunks: bytes, limit: int = LIMIT, inflater: Inflater | None = None) -> Outcome:
        return read(self.reader(limit, inflater), chunks)


def events_now(reader: FrameReader) -> list[Event]:
    """The events up to where the reader wants another chunk."""
    events: list[Event] = []
    for event in reader:
        if event is None:
            return events
        events.append(event)
    raise AssertionError("the reader ended, and no violation was raised")


def join_parts(events: Iterable[Event], part_size: int) -> list[Event]:
    """Return ``events``, the parts of each message joined; an unfinished message is left out."""
    joined: list[Event] = []
    parts: list[Event] = []
    for event in events:
        opcode, part, size = event
        # Each part is one that an application may be given.
        assert (len(part.encode()) if isinstance(part, str) else len(part)) == size
        if opcode < PART:
            if opcode in (TEXT, BINARY):
                assert size <= part_size
                assert not parts, "a message inside another one"
            joined.append(event)
            continue
        assert size <= part_size
        assert size or opcode & LAST
        parts.append((opcode & ~LAST, part, size))
        assert parts[-1][0] == parts[0][0]
        if opcode & LAST:
            message = parts[0][1][:0].join(part for _, part, _ in parts)
            joined.append((opcode & 0xF, message, sum(size for _, _, size in parts)))
            parts = []
    return joined


def read(reader: FrameReader, chunks: Iterable[bytes]) -> Outcome:
    """Feed ``chunks`` one at a time and take what the reader gives after each, to the end or to a violation."""
    events: list[Event] = []
    violation: ProtocolError | None = None
    try:
        for chunk in chunks:
            reader.feed(chunk)
            for event in reader:
                if event is None:
                    break
                events.append(event)
            else:
                raise AssertionError("the reader ended, and no violation was raised")
    except ProtocolError as error:
        violation = error
    if violation is None:
        return Outcome(events)
    # True of each violation, so looked at here for all: it can go into a close frame, and it is the end.
    assert violation.reason
    encode_close(violation.close_code, violation.reason)
    assert is_finished(reader)
    return Outcome(events, violation.close_code)


def is_finished(reader: FrameReader) -> bool:
    finished = object()
    if next(iter(reader), finished) is not finished:
        return False
    reader.feed(Frame(PING).encode(None) + Frame(PING).encode(MASK))
    return next(iter(reader), finished) is finished


class _OtherFuture(asyncio.Future[None]):
    """One that may do something when it is asked."""


def future_that(state: str) -> asyncio.Future[None]:
    """Return a Future that "is done", "has failed", "was cancelled", "is pending" or "is of another class"."""
    loop = asyncio.new_event_loop()
    future = _OtherFuture(loop=loop) if state == "is of another class" else loop.create_future()
    if state in ("is done", "is of another class"):
        future.set_result(None)
    elif state == "has failed":
        future.set_exception(ValueError())
        assert future.exception() is not None
    elif state == "was cancelled":
        future.cancel()
    loop.close()
    return future
