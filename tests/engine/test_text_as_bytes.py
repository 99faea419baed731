"""Text that comes as bytes (``decodes=False``): the same bytes, and the same violations, at every split."""

from __future__ import annotations

import pytest

from tests.engine.reading import LIMIT, Outcome, Peer, read
from tests.wire import BINARY, CONTINUATION, PING, RSV1, TEXT, Frame, cut_at, deflated, each_byte
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor

TEXTS = {
    "nothing": b"",
    "one frame": "Hällo".encode(),
    "more than is unmasked on the stack": "Wäre es länger ".encode() * 60,
    "large": "Grüße ".encode() * 30_000,
    "no UTF-8": b"Hello \xff, and more",
    "the last character cut": "Hellö".encode()[:-1],
    "a surrogate": b"Hello \xed\xa0\x80",
    "a large one that is no UTF-8": b"x" * 200_000 + b"\xc3",
}


def outcomes(peer: Peer, frames: list[Frame], cut: int, deflates: bool) -> tuple[Outcome, Outcome]:
    """Return what a reader of text, and one of bytes, make of the same."""
    wire = peer.send(*frames, Frame(BINARY, b"after"))
    chunks = list(each_byte(wire)) if cut < 0 else cut_at(wire, *([len(wire) // cut] if cut else []))
    found = []
    for decodes in (True, False):
        inflater = PerMessageDeflateDecompressor(True, None, LIMIT) if deflates else None
        found.append(read(peer.engine.FrameReader(peer.is_client, LIMIT, inflater, decodes), chunks))
    return found[0], found[1]


@pytest.mark.parametrize("cut", [0, 2, 3, -1])
@pytest.mark.parametrize("shape", ["one frame", "fragments", "deflated"])
@pytest.mark.parametrize("payload", TEXTS.values(), ids=TEXTS)
def test_the_bytes_of_a_text_are_those_that_it_has(peer: Peer, payload: bytes, shape: str, cut: int) -> None:
    if cut < 0 and len(payload) > 10_000:
        payload = payload[-1000:]
    half = len(payload) // 2
    frames = {
        "one frame": [Frame(TEXT, payload)],
        "fragments": [
            Frame(TEXT, payload[:half], fin=False),
            Frame(PING, b"between"),
            Frame(CONTINUATION, payload[half:]),
        ],
        "deflated": [Frame(TEXT, deflated(payload), rsv=RSV1)],
    }[shape]
    as_text, as_bytes = outcomes(peer, frames, cut, shape == "deflated")
    expected = [
        (opcode, what.encode() if isinstance(what, str) else what, size) for opcode, what, size in as_text.events
    ]
    assert as_bytes == Outcome(expected, as_text.close_code)
    texts = [what for opcode, what, _ in as_bytes.events if opcode == TEXT]
    assert texts == ([payload] if as_text.close_code is None else [])
