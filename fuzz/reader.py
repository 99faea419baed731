"""What one peer sends, read by both engines: by steps and by `deliver`, whole and in pieces."""

from __future__ import annotations

from typing import Any

from tests.engine.reading import ENGINES, Engine
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.engine.contract import BUDGET_SPENT, VIOLATION
from tornado_ws.errors import ProtocolError

_LIMITS = (0, 10, 130, 70_000)
_MESSAGES_AT_ONCE = 2


class _Kept:
    def __init__(self, kept: list[Any]) -> None:
        self._kept = kept

    def on_message(self, message: str | bytes) -> None:
        self._kept.append(message)


def _read(engine: Engine, options: int, wire: bytes, piece: int, hands_out: bool) -> tuple[Any, ...]:
    limit = _LIMITS[options >> 3 & 3]
    inflater = PerMessageDeflateDecompressor(bool(options & 4), None, limit) if options & 2 else None
    reader = engine.FrameReader(bool(options & 1), limit, inflater)
    kept: list[Any] = []
    violation: ProtocolError | None = None
    for at in range(0, len(wire), piece):
        reader.feed(wire[at : at + piece])
        if hands_out:
            while (outcome := reader.deliver(_Kept(kept), _MESSAGES_AT_ONCE)) is not None:
                if outcome[0] == VIOLATION:
                    violation = outcome[1]
                    break
                if outcome[0] != BUDGET_SPENT:
                    kept.append(outcome[:2])
        else:
            try:
                for event in reader:
                    if event is None:
                        break
                    opcode, payload, size = event
                    assert size == len(payload.encode() if isinstance(payload, str) else payload)
                    kept.append(payload if opcode < 8 else (opcode, payload))
            except ProtocolError as error:
                violation = error
        if violation is not None:
            return kept, violation.close_code, violation.reason
    return kept, None, reader.in_message


def check(data: bytes) -> None:
    """The first byte is what the reader is made with, the second the size of the pieces; the rest is the wire."""
    if len(data) < 2:
        return
    options, piece, wire = data[0], data[1] or 1, data[2:]
    for size in (len(wire) or 1, piece, 1):
        first = _read(ENGINES[0], options, wire, size, hands_out=False)
        for engine in ENGINES:
            for hands_out in (False, True):
                other = _read(engine, options, wire, size, hands_out)
                assert other == first, f"{engine.name}, deliver {hands_out}, pieces of {size}: {other} != {first}"
