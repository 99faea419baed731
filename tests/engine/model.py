"""A second reading of RFC 6455 section 5, to hold the engines against: slow, and all at once.

It looks at the whole stream and keeps no state between calls, so that it has nothing in common with a parser that
is fed by the chunk. Extensions are not in it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.wire import BINARY, CONTINUATION, CONTROLS, TEXT, fewest, xor
from tornado_ws.engine.contract import Event

#: The grammar of RFC 3629 section 4.
_CHARACTER = (
    rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]"
    rb"|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_BEGUN = (
    rb"[\xc2-\xf4]|\xe0[\xa0-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]|\xed[\x80-\x9f]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]?|[\xf1-\xf3][\x80-\xbf]{1,2}|\xf4[\x80-\x8f][\x80-\xbf]?"
)
_TEXT = re.compile(rb"(?:%b)*" % _CHARACTER)
_START = re.compile(rb"(?:%b)*(?:%b)?" % (_CHARACTER, _BEGUN))


def is_utf8(data: bytes) -> bool:
    return _TEXT.fullmatch(data) is not None


def is_start_of_utf8(data: bytes) -> bool:
    return _START.fullmatch(data) is not None


class Expected(NamedTuple):
    events: list[Event]
    #: What may be seen in the bytes so far: a violation inside a header may be raised before the header is whole.
    close_codes: set[int | None]


def expected(wire: bytes, masked: bool, limit: int) -> Expected:
    events: list[Event] = []
    begun: tuple[int, bytes] | None = None
    while wire:
        if len(wire) < 2:
            return Expected(events, {None, 1002})
        fin, opcode, length = wire[0] & 0x80, wire[0] & 0xF, wire[1] & 0x7F
        violation = (
            wire[0] & 0x70
            or opcode not in (CONTINUATION, TEXT, BINARY, *CONTROLS)
            or bool(wire[1] & 0x80) != masked
            or (opcode in CONTROLS and (not fin or length > 125))
            or (opcode == CONTINUATION and begun is None)
            or (opcode in (TEXT, BINARY) and begun is not None)
        )
        if violation:
            return Expected(events, {1002})
        size = {126: 2, 127: 8}.get(length, 0)
        header = 2 + size + (4 if masked else 0)
        if len(wire) < header:
            return Expected(events, {None, 1002, 1009})
        if size:
            length = int.from_bytes(wire[2 : 2 + size], "big")
            if length >= 1 << 63 or fewest(length) != size:
                return Expected(events, {1002})
        earlier = begun[1] if begun is not None else b""
        if opcode not in CONTROLS and len(earlier) + length > limit:
            return Expected(events, {1009})
        body = wire[header : header + length]
        payload = xor(body, wire[header - 4 : header]) if masked else body
        wire = wire[header + length :]
        whole = len(body) == length
        if opcode in CONTROLS:
            if whole:
                events.append((opcode, payload, length))
            continue
        kind = begun[0] if begun is not None else opcode
        data = earlier + payload
        if kind == TEXT and not (is_utf8 if fin and whole else is_start_of_utf8)(data):
            return Expected(events, {1007})
        begun = (kind, data)
        if fin and whole:
            events.append((kind, data.decode() if kind == TEXT else data, len(data)))
            begun = None
    return Expected(events, {None})
