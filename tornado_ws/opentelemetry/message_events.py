"""Messages as events of a connection's span."""

from __future__ import annotations

from opentelemetry.trace import Span

from tornado_ws.engine.contract import BINARY, CLOSE, FIN, TEXT
from tornado_ws.transport.frame_log import FrameSplitter

_TYPES = {TEXT: "text", BINARY: "binary"}


class MessageEvents:
    """Shown all bytes of a connection, it notes the first messages, with their size on the wire."""

    def __init__(self, span: Span, most: int) -> None:
        self._notes = _Notes(span, most)
        self._received = FrameSplitter(_Direction(self._notes, "receive"))
        self._sent = _Direction(self._notes, "transmit")

    def received(self, chunk: bytes) -> None:
        if self._notes.left:
            self._received.feed(chunk)

    def sent(self, first_byte: int, payload: bytes) -> None:
        if self._notes.left:
            self._sent.begin(first_byte, len(payload))
            self._sent.end()


class _Notes:
    """Events of one span, and how many it may still have."""

    def __init__(self, span: Span, left: int) -> None:
        self._span = span
        self.left = left

    def add(self, direction: str, opcode: int, size: int) -> None:
        """A message of ``size`` bytes has come, or gone, to its end."""
        if self.left:
            self.left -= 1
            attributes: dict[str, str | int] = {
                "network.io.direction": direction,
                "websocket.message.type": _TYPES.get(opcode, "other"),
                "websocket.message.size": size,
            }
            self._span.add_event("websocket.message", attributes)


class _Direction:
    """The frames of one direction, put together to messages."""

    def __init__(self, notes: _Notes, name: str) -> None:
        self._notes = notes
        self._name = name
        self._first_byte = self._opcode = self._size = 0

    def begin(self, first_byte: int, size: int) -> None:
        self._first_byte = first_byte
        opcode = first_byte & 0xF
        if opcode in _TYPES:
            self._opcode, self._size = opcode, 0
        if opcode < CLOSE:
            self._size += size

    def take(self, piece: bytes) -> None:
        """A payload is counted, not read."""

    def end(self) -> None:
        if self._first_byte & FIN and self._first_byte & 0xF < CLOSE:
            self._notes.add(self._name, self._opcode, self._size)
