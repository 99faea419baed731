"""Frames in a log, one line each, for debugging: the logger ``tornado_ws.frames`` at DEBUG.

Whether it is on is decided when a connection opens. One for which it is off knows nothing of this module's work.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from tornado.iostream import IOStream

from tornado_ws import channel
from tornado_ws.channel import Receiver, plain_socket
from tornado_ws.closing import decode_close
from tornado_ws.counting import watch
from tornado_ws.errors import ProtocolError
from tornado_ws.frames import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, TEXT, apply_mask
from tornado_ws.logs import Named, extra_of
from tornado_ws.options import Options
from tornado_ws.poller import LoopPoller, Poller
from tornado_ws.transport import Transport

logger = logging.getLogger("tornado_ws.frames")

_NAMES = {CONTINUATION: "CONT", TEXT: "TEXT", BINARY: "BINARY", CLOSE: "CLOSE", PING: "PING", PONG: "PONG"}
#: Of a payload, what is shown: characters of text, bytes of anything else.
_MOST_TEXT = 64
_MOST_BYTES = 24
#: Bytes inflated at a time. Of the first ones something is shown, the others only keep the window going.
_STEP = 65536
#: Steps for one frame; a larger one is not inflated, nor is what comes behind it.
_MOST_STEPS = 256


def is_on() -> bool:
    return logger.isEnabledFor(logging.DEBUG)


class FrameLog:
    """Logs the frames of one direction of a connection, "<" for what comes in or ">" for what goes out."""

    def __init__(self, connection: Named, arrow: str) -> None:
        self._connection = connection
        self._arrow = arrow
        self._inflater: Any = zlib.decompressobj(-zlib.MAX_WBITS)
        # The message that is not at its end yet
        self._opcode = 0
        self._compressed = False

    def log(self, first_byte: int, payload: bytes) -> None:
        """Log a frame; ``first_byte`` is FIN, the reserved bits and the opcode."""
        opcode = first_byte & 0xF
        notes = [f"{len(payload)} bytes"]
        if opcode in (TEXT, BINARY):
            self._opcode, self._compressed = opcode, bool(first_byte & RSV1)
        if opcode >= CLOSE:
            kind = opcode
        else:
            kind = self._opcode
            if self._compressed:
                if self._inflater is not None:
                    payload = self._inflate(payload, bool(first_byte & FIN))
                notes.append("deflated")
            if not first_byte & FIN:
                notes.append("to be continued")
        logger.debug(
            "%s %s %s [%s]",
            self._arrow,
            _NAMES.get(opcode, f"opcode {opcode:#x}"),
            _readable(kind, payload),
            ", ".join(notes),
            extra=extra_of(self._connection),
        )

    def _inflate(self, payload: bytes, is_last: bool) -> bytes:
        """Return the beginning of what ``payload`` inflates to, and take the rest in."""
        if is_last:
            payload += b"\x00\x00\xff\xff"
        try:
            beginning: bytes = self._inflater.decompress(payload, _STEP)
            for _ in range(_MOST_STEPS):
                if not self._inflater.unconsumed_tail:
                    return beginning
                self._inflater.decompress(self._inflater.unconsumed_tail, _STEP)
        except zlib.error:
            pass
        self._inflater = None
        return payload


def _readable(kind: int, payload: bytes) -> str:
    if kind == CLOSE:
        try:
            code, reason = decode_close(payload)
        except ProtocolError:
            return payload[:_MOST_BYTES].hex(" ")
        return "" if code is None else f"{code} {reason or ''}".rstrip()
    if kind == TEXT:
        # Four bytes are the longest character; one that is cut in two is not shown.
        text = payload[: 4 * _MOST_TEXT].decode(errors="ignore")
        return repr(text[:_MOST_TEXT]) + ("…" if len(text) > _MOST_TEXT or len(payload) > 4 * _MOST_TEXT else "")
    return payload[:_MOST_BYTES].hex(" ") + ("…" if len(payload) > _MOST_BYTES else "")


class FrameSplitter:
    """Gives each frame of a stream of bytes to ``log``, right or wrong as it may be."""

    def __init__(self, log: Callable[[int, bytes], None]) -> None:
        self._log = log
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> None:
        buffer = self._buffer
        buffer += chunk
        while len(buffer) >= 2:
            length = buffer[1] & 0x7F
            header = 2 + {126: 2, 127: 8}.get(length, 0)
            begin = header + (4 if buffer[1] & 0x80 else 0)
            if len(buffer) < begin:
                return
            end = begin + (length if header == 2 else int.from_bytes(buffer[2:header], "big"))
            if len(buffer) < end:
                return
            payload = bytes(buffer[begin:end])
            if begin > header:
                payload = apply_mask(bytes(buffer[header:begin]), payload)
            self._log(buffer[0], payload)
            del buffer[:end]


class Loggable(Receiver, Named, Protocol):
    """Whose frames are logged."""


class LoggedTransport(Transport):
    """A transport that shows in the log what passes, by a slower way. It knows of frames, so none may pass another."""

    __slots__ = ("_in", "_out", "_socket")

    def __init__(self, stream: IOStream, receiver: Loggable, masked: bool, options: Options) -> None:
        super().__init__(stream, receiver, masked, options)
        self._socket = plain_socket(stream)
        self._in = FrameSplitter(FrameLog(receiver, "<").log)
        self._out = FrameLog(receiver, ">")

    # With either engine what comes in goes the way of the pure one, which ends in `_take`. The native one is not asked
    # for events either: its poller would take the way that it knows.

    def _find_poller(self) -> Poller:
        poller = LoopPoller(self._io_loop)
        watch(poller)
        return poller

    handle_events = channel.Channel.handle_events
    _receive = channel.Channel._receive
    _read_from_stream = channel.Channel._read_from_stream

    def _take(self, chunk: bytes) -> None:
        self._in.feed(chunk)
        super()._take(chunk)

    def write_frame(self, first_byte: int, payload: bytes) -> asyncio.Future[None]:
        future = super().write_frame(first_byte, payload)
        self._out.log(first_byte, payload)
        return future
