"""Frames as RFC 6455 section 5.2 draws them: those of `tornado_ws.testing`, and more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tornado_ws.testing.frames import BINARY as BINARY
from tornado_ws.testing.frames import CLOSE as CLOSE
from tornado_ws.testing.frames import CONTINUATION as CONTINUATION
from tornado_ws.testing.frames import PING as PING
from tornado_ws.testing.frames import PONG as PONG
from tornado_ws.testing.frames import RSV1 as RSV1
from tornado_ws.testing.frames import RSV2 as RSV2
from tornado_ws.testing.frames import RSV3 as RSV3
from tornado_ws.testing.frames import TEXT as TEXT
from tornado_ws.testing.frames import Frame as Frame
from tornado_ws.testing.frames import close_payload as close_payload
from tornado_ws.testing.frames import deflated as deflated
from tornado_ws.testing.frames import fewest as fewest
from tornado_ws.testing.frames import inflated as inflated
from tornado_ws.testing.frames import xor as xor

MESSAGES = (TEXT, BINARY)
CONTROLS = (CLOSE, PING, PONG)
RESERVED = (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)

#: The masking key of the RFC's examples.
MASK = b"\x37\xfa\x21\x3d"

_SINGLE_BYTES = [bytes((byte,)) for byte in range(256)]


def each_byte(wire: bytes) -> Iterator[bytes]:
    # Not a generator: a tracer would be called twice for each byte.
    return map(_SINGLE_BYTES.__getitem__, wire)


def cut_at(wire: bytes, *points: int) -> list[bytes]:
    edges = [0, *sorted(points), len(wire)]
    return [wire[start:stop] for start, stop in itertools.pairwise(edges)]
