"""Messages on their way out that are more than one call into the channel."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tornado.escape import json_encode
from tornado.iostream import IOStream, StreamClosedError

from tornado_ws.connection.write_order import OrderedWrites
from tornado_ws.deflate.codec import PerMessageDeflateCompressor
from tornado_ws.engine import encode_frame
from tornado_ws.engine.contract import BINARY, FIN, RSV1, TEXT
from tornado_ws.engine.encoding import SENDABLE, encode_message
from tornado_ws.transport.transport import Transport

if TYPE_CHECKING:
    from tornado_ws.connection.write_stream import WriteStream


def sendable(message: Any) -> Any:
    """Return ``message``, a dict as JSON. Raises TypeError for what cannot be sent."""
    if isinstance(message, dict):
        return json_encode(message)
    if not isinstance(message, SENDABLE):
        raise TypeError(f"message is of type {type(message).__name__}; allowed are str, bytes and dict")
    return message


class DeliveryCounter(Protocol):
    """What counts to how many connections messages were given."""

    delivered: int


class SharedMessage:
    """A message for many: encoded once, and compressed once for all connections that have the same options."""

    __slots__ = ("_frames", "binary", "counter", "deflated", "message", "payload", "topic")

    def __init__(self, message: str | bytes | bytearray | memoryview, binary: bool) -> None:
        self.payload = encode_message(message, binary)
        self.message = message if isinstance(message, str) else self.payload
        self.binary = binary
        #: What it was published to, where it was.
        self.topic: str | None = None
        #: What its deliveries count for, beside all others.
        self.counter: DeliveryCounter | None = None
        self.deflated: dict[Any, bytes] = {}
        self._frames: dict[int, bytes] = {}

    @property
    def opcode(self) -> int:
        return BINARY if self.binary else TEXT

    def frame(self, deflated: bytes | None = None) -> bytes:
        """Return the frame of it, or of one of its ``deflated`` payloads: not masked, and always the same object."""
        payload, flags = (self.payload, 0) if deflated is None else (deflated, RSV1)
        frame = self._frames.get(id(payload))
        if frame is None:
            frame = self._frames[id(payload)] = encode_frame(FIN | flags | self.opcode, payload, False)
        return frame


class SharedMessages:
    """Messages that leave together, for many connections: joined once for all that compress with the same options."""

    __slots__ = ("_joined", "_messages", "count", "size")

    def __init__(self, messages: Sequence[SharedMessage]) -> None:
        self._messages = messages
        self._joined: dict[Any, tuple[bytes, bytes]] = {}
        self.count = len(messages)
        #: Bytes of the messages together, before compression.
        self.size = sum(len(message.payload) for message in messages)

    def plain_frames(self) -> bytes:
        """Return the frames of all messages, uncompressed; of one message always the same object."""
        frames = [message.frame() for message in self._messages]
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def frames_for(self, compressor: PerMessageDeflateCompressor) -> tuple[bytes, bytes]:
        """Return the frames of all messages, and the payloads together of which ``compressor`` has to be told."""
        found = self._joined.get(compressor.sharing_key)
        if found is None:
            frames, told = [], []
            for message in self._messages:
                if len(message.payload) < compressor.threshold:
                    frames.append(message.frame())
                else:
                    frames.append(message.frame(compressor.deflate_shared(message.payload, message.deflated)))
                    told.append(message.payload)
            found = frames[0] if len(frames) == 1 else b"".join(frames), b"".join(told)
            self._joined[compressor.sharing_key] = found
        return found


class Owner(Protocol):
    """The connection that a `Writing` is a part of."""

    stream: IOStream
    #: What compresses messages, None where that was not agreed on.
    _compressor: PerMessageDeflateCompressor | None
    #: Whether every frame goes to `_write_frame`, which somebody has replaced.
    _steps_replaced: bool

    def _attach(self) -> Transport:
        """Return the transport. Raises `.StreamClosedError`."""

    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> asyncio.Future[None]:
        """Send a frame."""

    def handling_failed(self, error: BaseException) -> None:
        """Log the error, and abort."""

    def _write_in_steps(self, in_steps: bool) -> None:
        """From now on every message goes through here, or none that is one call into the channel."""


class Writing:
    """Writes messages: compressed by a thread, in parts, by steps that somebody has replaced, or shared with others.

    What it is asked to write raises `.StreamClosedError` on a closed stream.
    """

    __slots__ = ("_is_cut", "_ordered_writes", "_owner", "_streams")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        #: What is written while a message before it takes its time.
        self._ordered_writes: OrderedWrites | None = None
        #: Messages that are sent in parts, the one that has begun first.
        self._streams: tuple[WriteStream, ...] = ()
        #: Whether one of them was begun and not ended: no message may follow.
        self._is_cut = False

    @property
    def holds_back(self) -> bool:
        """Whether a message has to wait for those before it."""
        return self._ordered_writes is not None

    def held_back(self) -> tuple[int, int]:
        """Return how many bytes, of how many writes, wait for a message before them."""
        return (self._ordered_writes.size, len(self._ordered_writes)) if self._ordered_writes is not None else (0, 0)

    def room(self) -> asyncio.Future[None]:
        """Return a Future that is done when no message waits for one before it, and the kernel has what waits now."""
        return self._ordered_writes.room() if self._ordered_writes is not None else self._owner._attach().room()

    def after_messages(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call ``callback`` when every message before is written: at once, if none waits.

        It closes the connection. A message that is sent in parts is not waited for, and those behind it are lost.
        """
        if self._ordered_writes is None:
            callback(*args)
        else:
            self._ordered_writes.put(lambda _: callback(*args))
            self.give_up_streams()

    def put_stream(self, stream: WriteStream) -> None:
        """Let a message that is sent in parts begin when it is its turn; see `write_stream.Order`."""
        self._owner._attach()
        self._streams += (stream,)
        self._in_order().put(functools.partial(self._on_stream_done, stream), stream.begin)

    def _on_stream_done(self, stream: WriteStream, done: object) -> None:
        self._streams = tuple(other for other in self._streams if other is not stream)

    def give_up_streams(self) -> None:
        """The connection ends: messages that are sent in parts are not."""
        for stream in self._streams:
            self._is_cut = stream.give_up() or self._is_cut

    def _in_order(self) -> OrderedWrites:
        if self._ordered_writes is None:
            loop: asyncio.AbstractEventLoop = self._owner.stream.io_loop.asyncio_loop  # type: ignore[attr-defined]
            self._ordered_writes = OrderedWrites(loop, self._on_empty, self._owner.handling_failed)
            self._owner._write_in_steps(True)
        return self._ordered_writes

    def _on_empty(self) -> None:
        self._ordered_writes = None
        self._owner._write_in_steps(False)

    def write_message(self, message: Any, binary: bool, compress: bool) -> asyncio.Future[None]:
        """Write what `sendable` has returned, step by step."""
        transport = self._owner._attach()
        refused = self._refuse(transport)
        if refused is not None:
            return refused
        payload = encode_message(message, binary)
        opcode = BINARY if binary else TEXT
        compressor = self._owner._compressor if compress else None
        if compressor is not None and (len(payload) < compressor.threshold or transport.compressing):
            compressor = None
        if self._ordered_writes is not None or (compressor is not None and compressor.is_offloaded(payload)):
            return self._in_order().put_message(functools.partial(self._write_payload, opcode), payload, compressor)
        if compressor is None:
            return self._write_payload(opcode, payload, False, len(payload))
        transport.compressing = True
        try:
            return self._write_payload(opcode, compressor.compress(payload), True, len(payload))
        finally:
            transport.compressing = False

    def write_shared(self, shared: SharedMessage) -> bool:
        """Write a message that others get too; returns False where the write limit refuses it. Nobody awaits it."""
        if self._refuse(self._owner._attach()) is not None:
            return False
        if self._ordered_writes is not None:
            self._ordered_writes.put_shared(functools.partial(self._put_shared, shared), len(shared.payload))
        else:
            self._put_shared(shared)
        return True

    def write_together(self, shared: SharedMessages) -> bool:
        """Write messages that others get too, compressed, in one piece.

        Returns False, and has done nothing, where they need `write_shared` one by one: when something waits, and where
        frames are masked, shown or handed to somebody.
        """
        transport = self._owner._attach()
        compressor = self._owner._compressor
        if (
            compressor is None
            or transport._write_queue is not None
            or self._ordered_writes is not None
            or transport.compressing
            or transport.masked
            or transport.tap is not None
            or self._owner._steps_replaced
        ):
            return False
        transport.check_thread()
        transport.compressing = True
        try:
            frames, told = shared.frames_for(compressor)
            if told:
                compressor.forget(told)
            transport.write_shared(frames)
        finally:
            transport.compressing = False
        transport.messages += shared.count
        transport.message_bytes += shared.size
        return True

    def _put_shared(self, shared: SharedMessage) -> None:
        transport = self._transport()
        compressor = self._owner._compressor
        if compressor is None or len(shared.payload) < compressor.threshold or transport.compressing:
            self._put_shared_payload(transport, shared, None)
            return
        transport.compressing = True
        try:
            deflated = compressor.compress_shared(shared.payload, shared.deflated)
            self._put_shared_payload(transport, shared, deflated)
        finally:
            transport.compressing = False

    def _put_shared_payload(self, transport: Transport, shared: SharedMessage, deflated: bytes | None) -> None:
        size = len(shared.payload)
        payload = shared.payload if deflated is None else deflated
        if self._owner._steps_replaced or transport.masked:
            self._write_payload(shared.opcode, payload, deflated is not None, size)
            return
        frame = shared.frame(deflated)
        transport.write_shared(frame)
        if transport.tap is not None:
            transport.tap.sent(frame[0], payload)
        transport.messages += 1
        transport.message_bytes += size

    def _transport(self) -> Transport:
        """Return what a message goes to. Raises `.StreamClosedError` where none can."""
        if self._is_cut:
            raise StreamClosedError
        return self._owner._attach()

    def _refuse(self, transport: Transport) -> asyncio.Future[None] | None:
        """Ask whether a message may be sent, before the compressor is touched: both ends share its state."""
        transport.check_thread()
        return transport.refuse() if transport._write_queue is not None or self._ordered_writes is not None else None

    def _write_payload(self, opcode: int, payload: bytes, deflated: bool, size: int) -> asyncio.Future[None]:
        """Send the ``payload`` of a message of ``size`` bytes."""
        transport = self._transport()
        flags = RSV1 if deflated else 0
        future: asyncio.Future[None]
        if self._owner._steps_replaced:
            future = self._owner._write_frame(True, opcode, payload, flags)
        else:
            future = transport.write_frame(FIN | flags | opcode, payload)
        transport.messages += 1
        transport.message_bytes += size
        return future
