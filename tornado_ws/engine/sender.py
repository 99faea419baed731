"""What an application writes to, and one message to many of those, in pure Python."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from tornado_ws.engine.channel import Channel
from tornado_ws.engine.encoding import SENDABLE, Sendable


class Sender:
    """What an application writes to: the channel itself, while nothing stands between the two.

    ``_out`` is the channel as long as neither side has begun to close, no thread is to compress messages and nobody has
    put anything in the place of the steps that Tornado's protocol has. A subclass says what happens otherwise.
    """

    __slots__ = ("_out",)

    _out: Channel | None

    def is_closing(self) -> bool:
        """Return True once either side has begun to close, or the stream is closed."""
        return (self._out is None or self._out.fd < 0) and self._is_closing()

    def write_message(self, message: Sendable, binary: bool = False, *, compress: bool = True) -> asyncio.Future[None]:
        """Send a message; see `.WebSocketHandler.write_message`.

        Raises `WebSocketClosedError` when a close frame was sent or the connection is lost, and ValueError for bytes
        that are to go as text and are not UTF-8.
        """
        out = self._out
        if out is not None and out.fd >= 0 and isinstance(message, SENDABLE):
            return out.write_message(message, binary, compress)
        return self._write_message(message, binary, compress)

    def _is_closing(self) -> bool:
        raise NotImplementedError

    def _write_message(self, message: Sendable, binary: bool, compress: bool) -> asyncio.Future[None]:
        raise NotImplementedError


def send_to_all(senders: Iterable[Any], frames: bytes, size: int, messages: int = 1) -> tuple[int, list[Any]]:
    """Send the ``frames`` of some ``messages``, of ``size`` bytes together, to those of ``senders`` that need no more.

    Returns to how many it went, and the others, which may be anything.
    """
    count = 0
    others = []
    for sender in senders:
        is_ours = isinstance(sender, Sender) and type(sender).write_message is Sender.write_message
        out = sender._out if is_ours else None
        if (
            out is None
            or out.fd < 0
            or out.masked
            or out.compressor is not None
            or out._write_queue is not None
            or out.tap is not None
        ):
            others.append(sender)
            continue
        out.check_thread()
        out.write_unawaited(frames)
        out.messages += messages
        out.message_bytes += size
        out.wire_bytes += len(frames)
        count += 1
    return count, others
