"""What one peer sends, read by both engines: in every way, whole and in pieces, as whole messages and in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from tests.engine.reading import ENGINES, Engine, join_parts
from tests.wire import BINARY, TEXT
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.engine.contract import BUDGET_SPENT, CLOSE, PART, VIOLATION, Event
from tornado_ws.engine.read_ahead import ReadAhead
from tornado_ws.engine.reader import FrameReader
from tornado_ws.errors import ProtocolError

_LIMITS = (0, 10, 130, 70_000)
_PART_SIZES = (4, 7, 126, 65536)
_MESSAGES_AT_ONCE = 2
#: Of messages that wait: how many, and bytes.
_AHEAD = (3, 20)


class _Kept:
    """The events so far, those of messages that were given to ``on_message`` too."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.events.append((TEXT, message, len(message.encode())))
        else:
            self.events.append((BINARY, message, len(message)))

    def take(self, reader: FrameReader, waiting: ReadAhead) -> None:
        """Have the message that ``waiting`` has first."""
        part = waiting.deliver(reader, self, True)
        if part is not None:
            assert part[0] >= PART, part
            self.events.append(part)


def _step(reader: FrameReader, kept: _Kept, waiting: ReadAhead) -> None:
    for event in reader:
        if event is None:
            break
        kept.events.append(event)


def _deliver(reader: FrameReader, kept: _Kept, waiting: ReadAhead) -> None:
    while (outcome := reader.deliver(kept, _MESSAGES_AT_ONCE)) is not None:
        if outcome[0] == VIOLATION:
            raise outcome[1]
        if outcome[0] != BUDGET_SPENT:
            kept.events.append(outcome)


def _read_ahead(reader: FrameReader, kept: _Kept, waiting: ReadAhead) -> None:
    while True:
        outcome = waiting.fill(reader, _MESSAGES_AT_ONCE)
        if outcome is not None and outcome[0] != BUDGET_SPENT:
            # A control frame, which overtakes what waits.
            assert CLOSE <= outcome[0] < PART, outcome
            while len(waiting):
                kept.take(reader, waiting)
            kept.events.append(outcome)
        elif waiting.is_full():
            kept.take(reader, waiting)
        elif outcome is None:
            break


_WAYS = (_step, _deliver, _read_ahead)
Way: TypeAlias = Callable[[FrameReader, _Kept, ReadAhead], None]


class _Read(NamedTuple):
    events: list[Event]
    close_code: int | None
    reason: str | None
    in_message: bool


def _read(
    engine: Engine, options: int, chunks: Sequence[bytes], way: Way, part_size: int = 0, decodes: bool = True
) -> _Read:
    limit = _LIMITS[options >> 3 & 3]
    inflater = PerMessageDeflateDecompressor(bool(options & 4), None, limit) if options & 2 else None
    reader = engine.FrameReader(bool(options & 1), limit, inflater, decodes, part_size)
    kept, waiting = _Kept(), engine.ReadAhead(*_AHEAD)
    close_code = reason = None
    try:
        for chunk in chunks:
            reader.feed(chunk)
            way(reader, kept, waiting)
    except ProtocolError as error:
        close_code, reason = error.close_code, error.reason
    while len(waiting):
        kept.take(reader, waiting)
    assert not waiting.is_full()
    return _Read(kept.events, close_code, reason, reader.in_message)


def _as_bytes(event: Event) -> Event:
    opcode, payload, size = event
    return opcode, payload.encode() if isinstance(payload, str) else payload, size


def _check(options: int, chunks: Sequence[bytes], part_size: int, decodes: bool) -> None:
    first = _read(ENGINES[0], options, chunks, _step)
    parts = _read(ENGINES[0], options, chunks, _step, part_size, decodes)
    # A chunk of text may break UTF-8 and then deflate. A whole message is inflated first, so the reason may be another.
    joined = parts._replace(events=join_parts(parts.events, part_size), reason=first.reason)
    whole = first if decodes else first._replace(events=[*map(_as_bytes, first.events)])
    assert joined == whole, f"in parts of {part_size}: {joined} != {whole}"
    for engine in ENGINES:
        for way in _WAYS:
            what = f"{engine.name}, {way.__name__}, pieces of {len(chunks[0])}"
            other = _read(engine, options, chunks, way)
            assert other == first, f"{what}: {other} != {first}"
            other = _read(engine, options, chunks, way, part_size, decodes)
            assert other == parts, f"{what}, in parts of {part_size}: {other} != {parts}"


def check(data: bytes) -> None:
    """The first byte is what readers are made with, the second the size of the pieces; the rest is the wire."""
    if len(data) < 2:
        return
    options, piece, wire = data[0], data[1] or 1, data[2:]
    for number, size in enumerate((len(wire) or 1, piece, 1), piece):
        chunks = [wire[at : at + size] for at in range(0, len(wire), size)]
        # Other parts with other pieces: all with all would take too long.
        _check(options, chunks or [b""], _PART_SIZES[number & 3], decodes=not number & 4)
