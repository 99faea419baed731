"""What one peer sends, read by us and by two libraries of others: wsproto and websockets.

All have to find the same messages, control frames and violations, but for the rows of `DIFFERENCES`, where the RFC was
read and decided.
"""

from __future__ import annotations

import codecs
import logging
import zlib
from typing import Any

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate as WebsocketsDeflate
from websockets.frames import Frame as WebsocketsFrame
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from tests.engine.reading import ENGINES, LIMIT, Engine
from tests.wire import CLOSE, CONTINUATION, PING, PONG, TEXT
from tornado_ws.close_codes import decode_close
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.errors import ProtocolError

PROTOCOL_ERROR, INVALID_PAYLOAD, MESSAGE_TOO_BIG = 1002, 1007, 1009
#: A final block that gives itself back, but only behind a whole block.
_PROBE = b"probe"
_FINAL_BLOCK = b"\x01\x05\x00\xfa\xff" + _PROBE
#: More than a header, and the payload of a control frame, may lack: who waits for them decides then.
_REST_OF_A_FRAME = bytes(14 + 125)

#: Parts of our reasons where a length is told wrongly.
_LENGTHS = ("not the fewest", "significant bit", "more than 125 bytes")

#: What an oracle does and we do not, and why. docs/fuzzing.md shows it.
DIFFERENCES = {
    "final block": (
        "Both read nothing behind a block of DEFLATE with BFINAL, neither of this message nor of a later one. "
        "RFC 7692 section 7.2.3.4 allows such blocks, so we go on behind it."
    ),
    "cut block": (
        "Both take a message that ends within a block of DEFLATE. By RFC 7692 section 7.2.2 the tail completes the "
        "last block, so this is 1007."
    ),
    "tail left on": (
        "Both take a message whose sender left on the tail that RFC 7692 section 7.2.1 has it take off, and read the "
        "next one as the rest of a block. We read that from behind the tail."
    ),
    "inflating fails": (
        "websockets says 1002 for a payload that cannot be inflated. RFC 6455 section 7.4.1 has 1007 for data that is "
        "not consistent with the type of the message."
    ),
    "close in a message": (
        "websockets takes a close frame between two fragments for a violation. RFC 6455 section 5.4 allows control "
        "frames there."
    ),
    "length": (
        "websockets takes a length in more bytes than it needs, and one with its most significant bit set is too big "
        "for it. RFC 6455 section 5.2 forbids both, so this is 1002."
    ),
    "first of two": (
        "A frame may break two rules. websockets looks at the length, and both inflate the payload, before they look "
        "at the other rules. We look at the header first, in its order; the RFC does not say."
    ),
    "whole frames": (
        "websockets waits for the whole frame before it looks at its payload and at its place in the message. We look "
        "at what is there."
    ),
    "control frame in a message": (
        "wsproto forgets at a control frame that the message around it is compressed. By RFC 7692 section 6.1 RSV1 of "
        "the first fragment counts for all."
    ),
    "1014": "wsproto does not know close code 1014, which the registry of RFC 6455 section 11.7 has by now.",
    "limit": "wsproto has no limit of the size of a message. RFC 6455 section 10.4 lets each end have its own.",
}


class Read:
    """What was found in the bytes of a peer."""

    def __init__(self) -> None:
        self.items: list[tuple[int, Any]] = []
        #: The code of a violation.
        self.code: int | None = None
        #: The row of `DIFFERENCES` from which on there is no answer.
        self.stopped: str | None = None
        self.reason = ""

    @property
    def has_ended(self) -> bool:
        return self.code is not None or self.stopped is not None or (bool(self.items) and self.items[-1][0] == CLOSE)

    def __repr__(self) -> str:
        return f"{self.items} {self.code} {self.stopped} {self.reason}"


def _gives(stream: Any, data: bytes, expected: bytes) -> bool:
    try:
        return bool(stream.copy().decompress(data) == expected)
    except zlib.error:
        return False


def _cut(stream: Any) -> str | None:
    """Return the row of `DIFFERENCES` for a decompressobj that had the tail and is within a block, None elsewhere."""
    if _gives(stream, _FINAL_BLOCK, _PROBE):
        return None
    # Two tails are the first four bytes of a stored block behind its header.
    stored = bytes(0xFF00)
    return "tail left on" if _gives(stream, b"\x00" + stored + _FINAL_BLOCK, stored + _PROBE) else "cut block"


def _close(code: int, reason: str | None) -> tuple[int | None, str | None]:
    """Return what we make of a close frame; the oracles have 1005 and no reason for one without payload."""
    return (None, None) if code == 1005 else (int(code), reason or None)


class _Ours(Read):
    def __init__(self, engine: Engine, masked: bool, deflate: bool, takeover: bool) -> None:
        super().__init__()
        inflater = PerMessageDeflateDecompressor(takeover, None, LIMIT) if deflate else None
        self._reader = engine.FrameReader(masked, LIMIT, inflater)

    def feed(self, data: bytes) -> None:
        if self.has_ended:
            return
        self._reader.feed(data)
        try:
            for event in self._reader:
                if event is None:
                    return
                opcode, payload, _ = event
                if opcode == CLOSE:
                    self.items.append((CLOSE, decode_close(payload)))
                    return
                self.items.append((opcode, payload))
        except ProtocolError as error:
            self.code, self.reason = error.close_code, str(error)


class _Deflate(WsprotoDeflate):
    """Finds where wsproto has no answer."""

    stopped: str | None = None

    def frame_inbound_complete(self, proto: Any, fin: bool) -> Any:
        if self._inbound_compressed and not self._inbound_is_compressible:
            self.stopped = "control frame in a message"
        stream = self._decompressor
        is_last = fin and self._inbound_compressed and self._inbound_is_compressible
        result = super().frame_inbound_complete(proto, fin)
        if is_last and stream is not None and isinstance(result, bytes):
            if stream.eof:
                self.stopped = "final block"
            else:
                self.stopped = _cut(stream) or self.stopped
        return result

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> Any:
        result = super().frame_inbound_payload_data(proto, data)
        if self._decompressor is not None and self._decompressor.eof:
            self.stopped = "final block"
        return result


class _Wsproto(Read):
    def __init__(self, masked: bool, deflate: bool, takeover: bool) -> None:
        super().__init__()
        self._deflate = _Deflate(
            client_no_context_takeover=masked and not takeover, server_no_context_takeover=not masked and not takeover
        )
        self._deflate._enabled = deflate
        self._protocol = FrameProtocol(client=not masked, extensions=[self._deflate])
        self._message: list[Any] = []

    def feed(self, data: bytes) -> None:
        if self.has_ended:
            return
        self._protocol.receive_bytes(data)
        try:
            frame: Any
            for frame in self._protocol.received_frames():
                if self._deflate.stopped is not None and frame.opcode < CLOSE:
                    self.stopped = self._deflate.stopped
                    return
                if frame.opcode >= CLOSE:
                    code, reason = frame.payload if frame.opcode == CLOSE else (None, None)
                    payload = _close(code, reason) if code else bytes(frame.payload)
                    self.items.append((int(frame.opcode), payload))
                    continue
                self._message.append(frame.payload)
                if frame.message_finished:
                    whole = frame.payload[:0].join(self._message)
                    self.items.append((int(frame.opcode), whole if isinstance(whole, str) else bytes(whole)))
                    self._message.clear()
        except ParseFailed as error:
            self.code, self.reason = int(error.code), str(error)
            if "unknown reserved code" in self.reason:
                self.stopped = "1014"
            elif self._deflate.stopped is not None:
                self.stopped = self._deflate.stopped


class _WebsocketsDeflate(WebsocketsDeflate):
    """Finds where websockets has no answer."""

    def __init__(self, takeover: bool) -> None:
        super().__init__(False, False, 15, 15)
        self._takeover = takeover
        #: By the number of the frame.
        self.stopped: tuple[int, str] | None = None
        self._frames = 0
        self._compressed = False

    def decode(self, frame: WebsocketsFrame, *, max_size: int | None = None) -> WebsocketsFrame:
        self._frames += 1
        if frame.opcode >= CLOSE:
            return super().decode(frame, max_size=max_size)
        if frame.opcode != CONTINUATION:
            self._compressed = frame.rsv1
            if self._compressed and not self._takeover:
                self.decoder = zlib.decompressobj(wbits=-15)
        result = super().decode(frame, max_size=max_size)
        if self._compressed and self.stopped is None:
            if self.decoder.eof:
                self.stopped = self._frames - 1, "final block"
            elif frame.fin and (cut := _cut(self.decoder)) is not None:
                self.stopped = self._frames - 1, cut
        return result


class _Websockets(Read):
    def __init__(self, masked: bool, deflate: bool, takeover: bool) -> None:
        super().__init__()
        options: dict[str, Any] = {"state": OPEN, "max_size": LIMIT, "logger": _SILENT}
        self._protocol: Any = (
            ServerProtocol(**options) if masked else ClientProtocol(parse_uri("ws://localhost/"), **options)
        )
        self._deflate = _WebsocketsDeflate(takeover)
        self._protocol.extensions = [self._deflate] if deflate else []
        self._kept: list[str | bytes] = []
        self._opcode = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._frames = 0

    def feed(self, data: bytes) -> None:
        if self.has_ended:
            return
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            if self._deflate.stopped is not None and self._frames == self._deflate.stopped[0]:
                self.stopped = self._deflate.stopped[1]
                return
            self._frames += 1
            self._take(frame)
            if self.code is not None:
                return
        error = self._protocol.parser_exc
        if error is None:
            return
        if "incomplete fragmented message" in str(error):
            close = self._protocol.close_rcvd
            self.items.append((CLOSE, _close(close.code, close.reason)))
            return
        self.reason = str(error)
        self.code = INVALID_PAYLOAD if isinstance(error.__cause__, zlib.error) else self._protocol.close_sent.code
        if self._deflate.stopped is not None:
            self.stopped = self._deflate.stopped[1]

    @property
    def is_waiting(self) -> bool:
        """Whether a frame is not whole."""
        return bool(self._protocol.reader.buffer)

    def _take(self, frame: WebsocketsFrame) -> None:
        data = bytes(frame.data)
        if frame.opcode == CLOSE:
            close = self._protocol.close_rcvd
            self.items.append((CLOSE, _close(close.code, close.reason)))
        elif frame.opcode in (PING, PONG):
            self.items.append((int(frame.opcode), data))
        else:
            if frame.opcode != CONTINUATION:
                self._opcode = int(frame.opcode)
            if self._opcode == TEXT:
                # Its layer above decodes.
                try:
                    self._kept.append(self._decoder.decode(data, frame.fin))
                except UnicodeDecodeError:
                    self.code = INVALID_PAYLOAD
                    return
            else:
                self._kept.append(data)
            if frame.fin:
                empty: Any = "" if self._opcode == TEXT else b""
                self.items.append((self._opcode, empty.join(self._kept)))
                self._kept.clear()


_SILENT = logging.getLogger("fuzz.oracles")
_SILENT.disabled = True


def _wrong(ours: Read, oracle: Read) -> str | None:
    """Return what is wrong, None if nothing is."""
    common = min(len(ours.items), len(oracle.items))
    if ours.items[:common] != oracle.items[:common]:
        return "items"
    same_items = len(ours.items) == len(oracle.items)
    if same_items and ours.code == oracle.code:
        return None
    if ours.code == MESSAGE_TOO_BIG and isinstance(oracle, _Wsproto):
        return None
    if isinstance(oracle, _Websockets) and any(what in ours.reason for what in _LENGTHS):
        # It goes on behind the frame, so nothing can be said of what it finds there.
        return None
    if oracle.stopped == "1014":
        return None if (ours.items[common:][:1] and ours.items[common][1][0] == 1014) or ours.code else "1014"
    if oracle.stopped in ("final block", "control frame in a message"):
        return None if same_items or ours.code is not None or common == len(oracle.items) else "fewer items"
    if oracle.stopped == "tail left on" and not same_items:
        return None if common == len(oracle.items) else "fewer items"
    # A message of nothing stands between two blocks, as one does whose tail was left on.
    if oracle.stopped in ("cut block", "tail left on") and oracle.code is None:
        return None if same_items and ours.code == INVALID_PAYLOAD else "cut block"
    if not same_items:
        return "end"
    if ours.code in (PROTOCOL_ERROR, INVALID_PAYLOAD) and oracle.code in (INVALID_PAYLOAD, MESSAGE_TOO_BIG):
        # The first of two.
        return None
    if isinstance(oracle, _Websockets) and oracle.code is None and oracle.is_waiting:
        return None
    return "code"


def check(data: bytes) -> None:
    """The first byte is the peer and what was agreed, the second the size of the pieces; the rest is the wire."""
    if len(data) < 2:
        return
    options, piece, wire = data[0], data[1] or 1, data[2:]
    masked, deflate, takeover = bool(options & 1), bool(options & 2), bool(options & 4)
    for engine in ENGINES:
        oracles: list[Any] = [_Wsproto(masked, deflate, takeover), _Websockets(masked, deflate, takeover)]
        ours = _Ours(engine, masked, deflate, takeover)
        for at in range(0, len(wire), piece):
            for reader in (ours, *oracles):
                reader.feed(wire[at : at + piece])
        if any(reader.code is not None for reader in (ours, *oracles)):
            for reader in (ours, *oracles):
                reader.feed(_REST_OF_A_FRAME)
        for oracle in oracles:
            wrong = _wrong(ours, oracle)
            assert wrong is None, f"{engine.name}, {type(oracle).__name__}: {wrong}\n{ours}\n{oracle}"
