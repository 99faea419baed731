"""Frames in a log, one line each, for debugging: the logger ``tornado_ws.frames`` at DEBUG.

Whether it is on is decided when a connection opens, by the level of that logger itself: the level of the root logger,
or of any other above it, turns nothing on. A connection for which it is on has a `FrameTap` in its channel, which is
shown what was received and what was sent, and changes nothing about either.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import traceback
import zlib
from collections import deque
from typing import Any, Protocol

from tornado_ws.close_codes import decode_close
from tornado_ws.engine.contract import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, TEXT, Tap
from tornado_ws.engine.encoding import apply_mask
from tornado_ws.errors import ProtocolError
from tornado_ws.escaping import shown
from tornado_ws.observing.logs import Named, extra_of

logger = logging.getLogger("tornado_ws.frames")

_NAMES = {CONTINUATION: "CONT", TEXT: "TEXT", BINARY: "BINARY", CLOSE: "CLOSE", PING: "PING", PONG: "PONG"}
#: Of a payload, what is shown: characters of text, bytes of anything else.
_MOST_TEXT = 64
_MOST_BYTES = 24
#: Bytes kept to show that: the longest characters have four.
_MOST_KEPT = 4 * _MOST_TEXT
#: Bytes inflated at a time. Of the first ones something is shown, the others only keep the window going.
_STEP = 65536
#: Steps for one frame; a larger one is not inflated, nor is what comes behind it.
_MOST_STEPS = 256

#: Set while a line is handed to the log's handlers, and in whatever they schedule.
_in_handler: contextvars.ContextVar[bool] = contextvars.ContextVar("tornado_ws_frame_log", default=False)
#: Checksum and size of what handlers sent last: this process may receive it too, at the other end or as an echo.
_of_handlers: deque[tuple[int, int]] = deque(maxlen=256)


def is_on() -> bool:
    """Whether a connection that opens now is to be logged."""
    has_level = logging.NOTSET < logger.level <= logging.DEBUG
    return has_level and logger.isEnabledFor(logging.DEBUG) and not _in_handler.get()


class FrameLog:
    """Logs the frames of one direction of a connection, "<" for what comes in or ">" for what goes out.

    A frame is told by `begin`, any number of `take` and `end`; of its payload the beginning alone is kept.
    """

    def __init__(self, connection: Named, arrow: str) -> None:
        self._connection = connection
        self._arrow = arrow
        self._inflater: Any = zlib.decompressobj(-zlib.MAX_WBITS)
        # The message that is not at its end yet
        self._opcode = 0
        self._compressed = False
        # The frame
        self._first_byte = self._size = self._checksum = 0
        self._steps = 0
        self._beginning = b""
        self._is_cut = False

    def begin(self, first_byte: int, size: int) -> None:
        """Begin a frame of ``size`` bytes; ``first_byte`` is FIN, the reserved bits and the opcode."""
        self._first_byte, self._size, self._checksum = first_byte, size, 0
        self._steps, self._beginning, self._is_cut = 0, b"", False
        if self._kind in (TEXT, BINARY):
            self._opcode, self._compressed = self._kind, bool(first_byte & RSV1)

    @property
    def _kind(self) -> int:
        return self._first_byte & 0xF

    @property
    def _is_deflated(self) -> bool:
        return self._compressed and self._kind < CLOSE

    def take(self, piece: bytes) -> None:
        """Take in a part of the payload, unmasked."""
        self._checksum = zlib.crc32(piece, self._checksum)
        if self._is_deflated and self._inflater is not None:
            self._inflate(piece)
        else:
            self._show(piece)

    def end(self, from_handler: bool = False) -> None:
        """Log the frame, unless a handler of this log has caused it."""
        is_last = bool(self._first_byte & FIN)
        if self._is_deflated and is_last and self._inflater is not None:
            self._inflate(b"\x00\x00\xff\xff")
        mark = (self._checksum, self._size)
        if from_handler:
            _of_handlers.append(mark)
        elif self._arrow == ">" or mark not in _of_handlers:
            self._log(is_last)

    def _log(self, is_last: bool) -> None:
        notes = [f"{self._size} bytes"]
        if self._is_deflated:
            notes.append("deflated")
        if self._kind < CLOSE and not is_last:
            notes.append("to be continued")
        kind = self._kind if self._kind >= CLOSE else self._opcode
        token = _in_handler.set(True)
        try:
            logger.debug(
                "%s %s %s [%s]",
                self._arrow,
                _NAMES.get(self._kind, f"opcode {self._kind:#x}"),
                _readable(kind, self._beginning, self._is_cut),
                ", ".join(notes),
                extra=extra_of(self._connection),
            )
        finally:
            _in_handler.reset(token)

    def _show(self, data: bytes) -> None:
        room = _MOST_KEPT - len(self._beginning)
        self._beginning += data[:room]
        self._is_cut = self._is_cut or len(data) > room

    def _inflate(self, piece: bytes) -> None:
        """Show the beginning of what ``piece`` inflates to, and take the rest in."""
        rest = piece
        try:
            while rest:
                self._steps += 1
                if self._steps > _MOST_STEPS:
                    self._inflater = None
                    return
                self._show(self._inflater.decompress(rest, _STEP))
                rest = self._inflater.unconsumed_tail
        except zlib.error:
            self._inflater = None
            self._show(piece)


def _readable(kind: int, beginning: bytes, is_cut: bool) -> str:
    if kind == CLOSE and not is_cut:
        try:
            code, reason = decode_close(beginning)
        except ProtocolError:
            pass
        else:
            return "" if code is None else f"{code} {shown(reason)}" if reason else f"{code}"
    if kind == TEXT:
        # A character that is cut in two is not shown.
        text = beginning.decode(errors="ignore")
        return shown(text, _MOST_TEXT) + ("…" if is_cut and len(text) <= _MOST_TEXT else "")
    return beginning[:_MOST_BYTES].hex(" ") + ("…" if is_cut or len(beginning) > _MOST_BYTES else "")


class FrameSink(Protocol):
    """Who is told of the frames of one direction, as `FrameLog` is."""

    def begin(self, first_byte: int, size: int) -> None: ...

    def take(self, piece: bytes) -> None: ...

    def end(self) -> None: ...


class FrameSplitter:
    """Tells ``log`` of each frame in a stream of bytes, right or wrong as it may be. It keeps no more than a header."""

    def __init__(self, log: FrameSink) -> None:
        self._log = log
        self._header = bytearray()
        self._key = b""
        self._left = 0

    def feed(self, chunk: bytes) -> None:
        pos = 0
        while pos < len(chunk):
            if self._left:
                piece = chunk[pos : pos + self._left]
                self._left -= len(piece)
                pos += len(piece)
                self._log.take(self._unmasked(piece))
            else:
                count = _header_size(self._header) - len(self._header)
                self._header += chunk[pos : pos + count]
                pos += count
                if len(self._header) < _header_size(self._header):
                    continue
                self._begin()
            if not self._left:
                self._log.end()

    def _begin(self) -> None:
        header = bytes(self._header)
        self._header.clear()
        size = header[1] & 0x7F
        end = len(header)
        self._key = b""
        if header[1] & 0x80:
            end -= 4
            self._key = header[end:]
        if size >= 126:
            size = int.from_bytes(header[2:end], "big")
        self._left = size
        self._log.begin(header[0], size)

    def _unmasked(self, piece: bytes) -> bytes:
        key = self._key
        if not key:
            return piece
        turn = len(piece) % 4
        self._key = key[turn:] + key[:turn]
        return apply_mask(key, piece)


def _header_size(begun: bytearray) -> int:
    """Return how many bytes the header has of which ``begun`` has come, as far as that can be told."""
    if len(begun) < 2:
        return 2
    return 2 + {126: 2, 127: 8}.get(begun[1] & 0x7F, 0) + (4 if begun[1] & 0x80 else 0)


class FrameTap:
    """What a channel shows its bytes to, for the log."""

    def __init__(self, connection: Named) -> None:
        self._out: FrameLog | None = FrameLog(connection, ">")
        self._in: FrameSplitter | None = FrameSplitter(FrameLog(connection, "<"))

    def received(self, chunk: bytes) -> None:
        """``chunk`` was read and is about to be parsed."""
        if self._in is not None:
            try:
                self._in.feed(chunk)
            except Exception:
                self._give_up()

    def sent(self, first_byte: int, payload: bytes) -> None:
        """A frame was given to the channel; ``payload`` is not masked."""
        if self._out is not None:
            try:
                self._out.begin(first_byte, len(payload))
                self._out.take(payload)
                self._out.end(_in_handler.get())
            except Exception:
                self._give_up()

    def _give_up(self) -> None:
        """A handler or a filter of the log has raised: say so as `logging.Handler.handleError` does, and log no more.

        The connection knows nothing of it.
        """
        self._in = self._out = None
        if logging.raiseExceptions and sys.stderr is not None:
            traceback.print_exc()


class Taps:
    """Several taps in the place of one."""

    def __init__(self, *taps: Tap) -> None:
        self._taps = taps

    def received(self, chunk: bytes) -> None:
        for tap in self._taps:
            tap.received(chunk)

    def sent(self, first_byte: int, payload: bytes) -> None:
        for tap in self._taps:
            tap.sent(first_byte, payload)
