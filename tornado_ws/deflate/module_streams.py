"""Streams of deflate (RFC 1951) made of objects of the zlib module, or of a module like it.

A stream is one direction of a connection with permessage-deflate. The native engine has classes of the same names and
contracts for libraries that it can call itself; only those know where a block ends, and what is in a window.

Between two messages a stream needs no more than the last bytes that went through it: a new object that gets them can go
on. So an inflater here begins a new object with each message, which gets the whole window of the peer. A deflater in
use is kept, since it compresses better the longer it lives: it is `live`, until `freeze`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

from tornado_ws.close_codes import POLICY_VIOLATION
from tornado_ws.deflate.interfaces import Live, ModuleCodec
from tornado_ws.engine.contract import INFLATED_AT_ONCE
from tornado_ws.errors import ProtocolError

#: What a sender leaves away at the end of a message and a receiver puts back (RFC 7692 section 7.2.1).
TAIL = b"\x00\x00\xff\xff"
#: An empty final block. A stream ends there at once, but only if it stands between two blocks.
_FINAL_BLOCK = b"\x01\x00\x00\xff\xff"
#: All streams of deflate that give nothing and have 2 or 5 bytes: one empty block, or four. What is behind the last bit
#: of a block does not count. zlib takes an object for each stream, so these are passed over together.
_EMPTY_STREAMS = re.compile(
    rb"(?:\x03[%b]|[%b]\x00\x00\xff\xff|\x02\x08\x20\xc0\x00)*"
    % (re.escape(bytes(range(0, 256, 4))), re.escape(bytes(range(1, 256, 8)))),
    re.DOTALL,
)
#: Bytes inflated at a time, and how many behind a block with BFINAL at first.
_MAX_STEP = 64 * 1024
_MIN_STEP = 1024
#: The most bytes that one byte of a stream inflates to, and that may still come from the bytes before it.
_MOST_OF_A_BYTE = 1032
_LONGEST_MATCH = 258
#: Blocks with BFINAL that any message may have, and bytes of its payload for one more.
MAX_FINALS = 4096
BYTES_A_FINAL = 16
#: Bytes sent before that a deflater begins on which takes the place of another. More cost more time than they save.
MAX_HISTORY = 2048
#: Bytes of them at which the oldest are dropped.
_TRIM_AT = 4 * 1024


def is_empty_stream(taken: int, given: int) -> bool:
    """Whether a stream that took and gave so many bytes is one that costs next to nothing."""
    return not given and taken in (2, 5)


def check_finals(finals: int, taken: int) -> None:
    """Raise `.ProtocolError` when a message has too many blocks with BFINAL in ``taken`` bytes.

    A receiver has to begin anew behind each one. The RFC sets no bound; any sender that has a use for them stays far
    below this one.
    """
    if finals > MAX_FINALS + taken // BYTES_A_FINAL:
        detail = f"compressed message with {finals} final blocks in its first {taken} bytes"
        raise ProtocolError(POLICY_VIOLATION, "compressed message with too many final blocks", detail)


class Deflater:
    """See `Deflating`. ``history`` is what the peer has in its window; ``admit`` is asked whether it may stay live."""

    __slots__ = ("__weakref__", "_admit", "_codec", "_history", "_stream", "_wbits", "memory", "used")

    def __init__(self, codec: ModuleCodec, wbits: int, history: bytes, admit: Callable[[Live], bool] | None) -> None:
        self._codec = codec
        self._wbits = wbits
        self._admit = admit
        self._history = bytearray(history) if history else None
        self._stream: Any = None
        self.memory = codec.memory(wbits)
        self.used = False

    @property
    def live(self) -> bool:
        return self._stream is not None

    @property
    def history(self) -> bytes:
        return bytes(self._history[-MAX_HISTORY:]) if self._history is not None else b""

    def deflate(self, data: bytes) -> bytes:
        self.used = True
        # Looked at once: another thread may freeze it.
        stream = self._stream
        if stream is None:
            stream = self._stream = self._codec.make_compressor(self._wbits, self.history[-(1 << self._wbits) :])
            if self._admit is not None and not self._admit(self):
                self._stream = None
        try:
            payload: bytes = (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
            self._remember(data)
        except BaseException:
            # The stream may have taken the data, which nobody will get.
            self.forget()
            raise
        return payload

    def deflate_alone(self, data: bytes) -> bytes:
        stream, self._stream = self._stream or self._codec.make_compressor(self._wbits), None
        # A full flush forgets what was before it.
        payload = stream.compress(data) + stream.flush(zlib.Z_FULL_FLUSH)
        self._stream = stream
        # Nor does what follows refer to anything before: by another stream neither, that begins with the history.
        self._history = None
        return payload[:-4]  # type: ignore[no-any-return]

    def _remember(self, data: bytes) -> None:
        history = self._history
        if len(data) >= MAX_HISTORY or history is None:
            self._history = bytearray(data[-MAX_HISTORY:])
        else:
            history += data
            if len(history) > _TRIM_AT:
                del history[:-MAX_HISTORY]

    def sent(self, data: bytes) -> None:
        self._stream = None
        self._remember(data)

    def forget(self) -> None:
        self._stream = self._history = None

    def freeze(self) -> bool:
        self._stream = None
        return True


class Inflater:
    """See `Inflating`. ``history`` is what the peer may refer back to. It is never live."""

    __slots__ = (
        "__weakref__",
        "_broken",
        "_codec",
        "_finals",
        "_history",
        "_is_final",
        "_last",
        "_pos",
        "_step",
        "_stream",
        "_stream_given",
        "_stream_taken",
        "_taken",
        "_unread",
        "_wbits",
        "error",
        "memory",
        "used",
    )

    def __init__(self, codec: ModuleCodec, wbits: int, history: bytes) -> None:
        self._codec = codec
        self._wbits = wbits
        self._history = bytearray(history) if history else None
        self._stream: Any = None
        #: What was given to `inflate` and did not fit into what it returned: `_unread` from `_pos` on.
        self._unread = b""
        self._pos = 0
        #: Bytes to inflate at a time.
        self._step = _MAX_STEP
        #: Bytes of the message that are inflated, how many streams ended in it, and whether one ended just there.
        self._taken = self._finals = 0
        self._is_final = False
        #: The last bytes of the payload so far, as many as the tail has.
        self._last = b""
        #: Whether it has failed inside a message: what follows would be inflated with a window that is not the peer's.
        self._broken = False
        #: Bytes that the stream has taken and given so far.
        self._stream_taken = self._stream_given = 0
        self.error = codec.error
        self.memory = 0
        self.used = False

    @property
    def live(self) -> bool:
        return False

    @property
    def history(self) -> bytes:
        return bytes(self._history) if self._history is not None else b""

    def inflate(self, data: bytes, room: int) -> bytes:
        if self._broken:
            raise self.error("stream that has failed before")
        try:
            self._last = data[-4:] if len(data) >= 4 else (self._last + data)[-4:]
            return self._inflate(data, room)
        except BaseException:
            self._broken = True
            self._stream = self._history = None
            self._unread = b""
            raise

    def _inflate(self, data: bytes, room: int) -> bytes:
        pos = 0
        if self._unread:
            # With nothing new only the place moves: a copy of all that is left at each call would be quadratic.
            data, pos = (self._unread[self._pos :] + data, 0) if data else (self._unread, self._pos)
        size = len(data)
        pieces = []
        while room > 0:
            stream = self._stream
            if stream is None:
                if pos < size:
                    check_finals(self._finals, self._taken)
                    pos = self._skip_empty_streams(data, pos)
                if pos == size:
                    break
                stream = self._begin()
            # zlib copies what it has not used, so it is given little at a time.
            chunk = data if size <= self._step and not pos else data[pos : pos + self._step]
            piece = self._decompress(stream, chunk, room)
            pieces.append(piece)
            room -= len(piece)
            taken = len(chunk) - len(stream.unused_data if stream.eof else stream.unconsumed_tail)
            pos += taken
            self._stream_taken += taken
            self._stream_given += len(piece)
            if stream.eof:
                self._end_stream()
            elif self._step < _MAX_STEP:
                self._step *= 2
            if pos == size:
                break
        self._unread, self._pos = (data, pos) if pos < size else (b"", 0)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _skip_empty_streams(self, data: bytes, pos: int) -> int:
        """Return where the first stream that is not an empty block begins."""
        found = _EMPTY_STREAMS.match(data, pos)
        assert found is not None
        if found.end() > pos:
            self._is_final = True
            self._taken += found.end() - pos
        return found.end()

    def _end_stream(self) -> None:
        # A block with BFINAL ends the stream of zlib but not the message (section 7.2.3.4).
        self._taken += self._stream_taken
        if not is_empty_stream(self._stream_taken, self._stream_given):
            self._finals += 1
        self._stream = None
        self._is_final = True
        self._step = _MIN_STEP

    def _decompress(self, stream: Any, data: bytes, room: int) -> bytes:
        spare = None
        if room < INFLATED_AT_ONCE and room <= _MOST_OF_A_BYTE * len(data) + _LONGEST_MATCH:
            # The room is the rest of a limit, and may be used up. ISA-L cannot copy.
            spare = stream.copy() if hasattr(stream, "copy") else None
        try:
            piece: bytes = stream.decompress(data, room)
        except self.error:
            piece = self._before_garbage(spare, data, room) if spare is not None else b""
            if len(piece) < room:
                raise
            # What fills the room came first. Whoever wants more gets the error.
        window = 1 << self._wbits
        history = self._history
        if history is None or len(piece) >= window:
            self._history = bytearray(piece[-window:])
        else:
            history += piece
            if len(history) > window + (window >> 2):
                del history[:-window]
        return piece

    def _before_garbage(self, spare: Any, data: bytes, room: int) -> bytes:
        """Return what ``data`` gives before the byte at which it does not inflate; zlib's objects do not tell."""
        good, bad = 0, len(data)
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                spare.copy().decompress(data[:middle], room)
            except self.error:
                bad = middle
            else:
                good = middle
        piece: bytes = spare.decompress(data[:good], room)
        return piece

    def _begin(self) -> Any:
        self._stream = self._codec.make_decompressor(self._wbits, self._history or b"")
        self._stream_taken = self._stream_given = 0
        self._is_final = False
        return self._stream

    def end(self) -> bool:
        is_final, unread, last = self._is_final, self._unread, self._last
        stream = self._stream
        self._stream = None
        self._unread, self._pos = b"", 0
        self._taken = self._finals = 0
        self._is_final = False
        self._last = b""
        self._step = _MAX_STEP
        if unread or is_final or self._broken:
            return not unread and not self._broken
        stream = stream or self._codec.make_decompressor(self._wbits)
        try:
            if last == TAIL:
                # The sender left it on, as some do. What a sender takes it from never ends so: its last bits are zeros.
                return not stream.decompress(_FINAL_BLOCK) and stream.eof and not stream.unused_data
            # It has to add nothing and to end a block; behind it is the end of the stream, or the next block.
            whole = not stream.decompress(TAIL + _FINAL_BLOCK) and stream.eof
        except self.error:
            return False
        return whole and stream.unused_data in (b"", _FINAL_BLOCK)

    def freeze(self) -> bool:
        return True
