"""What one connection sends: messages, pings and pongs."""

from __future__ import annotations

import abc
import asyncio
import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from tornado.concurrent import Future
from tornado.escape import json_encode
from tornado.iostream import StreamClosedError
from tornado.log import gen_log

from tornado_ws.close_codes import TRY_AGAIN_LATER
from tornado_ws.connection.closing import Closing
from tornado_ws.connection.interfaces import _WebSocketDelegate, _WebSocketParams
from tornado_ws.connection.opening import Opening
from tornado_ws.connection.replaceable import ReplaceableMethod
from tornado_ws.connection.write_order import OrderedWrites
from tornado_ws.engine import Sender, encode_frame
from tornado_ws.engine.contract import BINARY, FIN, PING, PONG, RSV1, TEXT
from tornado_ws.engine.encoding import encode_message
from tornado_ws.errors import WebSocketClosedError, WriteLimitError
from tornado_ws.escaping import plain
from tornado_ws.observing.counters import Counters
from tornado_ws.observing.latency import UNKNOWN, Latency, RoundTrips
from tornado_ws.observing.logs import extra_of, mark_context, next_id
from tornado_ws.transport import frame_log
from tornado_ws.transport.futures import failed_future
from tornado_ws.transport.stream import peer_name
from tornado_ws.transport.transport import Transport

_SENDABLE = (str, bytes, bytearray, memoryview)


def sendable(message: Any) -> Any:
    """Return ``message``, a dict as JSON. Raises TypeError for what cannot be sent."""
    if isinstance(message, dict):
        return json_encode(message)
    if not isinstance(message, _SENDABLE):
        raise TypeError(f"message is of type {type(message).__name__}; allowed are str, bytes and dict")
    return message


class SharedMessage:
    """A message for many: encoded once, and compressed once for all connections that have the same options."""

    __slots__ = ("_frames", "binary", "deflated", "message", "payload")

    def __init__(self, message: str | bytes | bytearray | memoryview, binary: bool) -> None:
        self.payload = encode_message(message, binary)
        self.message = message if isinstance(message, str) else self.payload
        self.binary = binary
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


class Writing(Sender, Opening):
    """A protocol that sends frames by way of a `Transport`, which is made when first needed."""

    _steps_replaced = False
    _replacements: dict[str, Callable[..., Any]] | None = None
    _connection_id = 0
    _round_trips: RoundTrips | None = None
    #: What is written while a thread deflates a message before it.
    _ordered_writes: OrderedWrites | None = None

    def __init__(self, handler: _WebSocketDelegate, mask_outgoing: bool, params: _WebSocketParams) -> None:
        self._transport: Transport | None = None
        self._out = None
        self._closing = Closing()
        super().__init__(handler, params)
        self.mask_outgoing = mask_outgoing
        self._pong_future: Future[None] | None = None
        self._pending_pong: bytes | None = None

    # What can be seen of the connection

    @property
    def close_code(self) -> int | None:
        """The code of the peer's close frame, or of the violation that we have seen; None before."""
        return self._closing.code

    @close_code.setter
    def close_code(self, code: int | None) -> None:
        self._closing.code = code

    @property
    def close_reason(self) -> str | None:
        """The reason that came with `close_code`."""
        return self._closing.reason

    @close_reason.setter
    def close_reason(self, reason: str | None) -> None:
        self._closing.reason = reason

    @property
    def was_clean(self) -> bool:
        """Whether the peer has sent a close frame, and it was handled."""
        return self._closing.was_clean

    @property
    def connection_id(self) -> int:
        """A number that no other connection of the process has, for the log."""
        if not self._connection_id:
            self._connection_id = next_id()
        return self._connection_id

    @property
    def peer_name(self) -> str:
        """The address of the other end, for the log."""
        request = getattr(self.handler, "request", None)
        # A handler may have set it to what a header says.
        return plain(getattr(request, "remote_ip", None) or peer_name(self.stream))

    @property
    def counters(self) -> Counters:
        """What went over the connection so far."""
        return self._transport.counters() if self._transport is not None else Counters()

    @property
    def latency(self) -> Latency:
        """The round trip from a ping of ours to its pong, the last one and the smoothed one in seconds."""
        return self._round_trips.latency if self._round_trips is not None else UNKNOWN

    # Tornado's own names for some of them
    _message_bytes_in = property(lambda self: self.counters.message_bytes_in)
    _message_bytes_out = property(lambda self: self.counters.message_bytes_out)
    _wire_bytes_in = property(lambda self: self.counters.wire_bytes_in)
    _wire_bytes_out = property(lambda self: self.counters.wire_bytes_out)

    @property
    def buffered_amount(self) -> int:
        """Bytes that wait for the kernel to take them, or for a thread to deflate them; 0 on a closed connection."""
        return self.held_back()[0] + (self._transport.buffered if self._transport is not None else 0)

    def _log(self, level: int, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log a line about the connection. The peer's name is the first argument, given here."""
        gen_log.log(level, message, self.peer_name, *args, extra=extra_of(self), exc_info=exc_info)

    # The way out

    @abc.abstractmethod
    def eof_received(self, error: Exception | None) -> None: ...

    @abc.abstractmethod
    def handling_failed(self, error: BaseException) -> None: ...

    @abc.abstractmethod
    def connection_lost(self) -> None: ...

    def held_back(self) -> tuple[int, int]:
        """Return how many bytes, of how many writes, wait for a thread."""
        return (self._ordered_writes.size, len(self._ordered_writes)) if self._ordered_writes is not None else (0, 0)

    def _after_messages(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call ``callback`` when every message before is written: at once, if none waits."""
        if self._ordered_writes is None:
            callback(*args)
        else:
            self._ordered_writes.put(lambda _: callback(*args))

    def _in_order(self) -> OrderedWrites:
        if self._ordered_writes is None:
            forget = functools.partial(setattr, self, "_ordered_writes", None)
            self._ordered_writes = OrderedWrites(forget, self.handling_failed)
        return self._ordered_writes

    def _replace_steps(self) -> None:
        self._steps_replaced = True
        self._out = None
        if self._transport is not None:
            self._transport.direct = False

    def _attach(self) -> Transport:
        if self._transport is None:
            if self.stream.closed():
                raise StreamClosedError(self.stream.error)
            self._transport = Transport(self.stream, self, self.mask_outgoing, self.params.options)
            if frame_log.is_on():
                self._transport.tap = frame_log.FrameTap(self)
            self._transport.context.run(mark_context, self)
            self._transport.compressor = self._compressor
            if not self._takes_steps and not self.is_closing():
                self._out = self._transport
        return self._transport

    @property
    def _takes_steps(self) -> bool:
        """Whether messages are more than one call into the channel."""
        return self._steps_replaced or (self._compressor is not None and self._compressor.offload_size is not None)

    def _write_message(self, message: str | bytes | dict[str, Any], binary: bool, compress: bool) -> Future[None]:
        if self.server_terminated:
            raise WebSocketClosedError()
        ready = sendable(message)
        try:
            transport = self._attach()
            if not self._takes_steps:
                return transport.write_message(ready, binary, compress)
            refused = self._refuse(transport)
            if refused is not None:
                return refused
            payload = encode_message(ready, binary)
            opcode = BINARY if binary else TEXT
            compressor = self._compressor if compress else None
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
        except StreamClosedError:
            raise WebSocketClosedError() from None

    def write_shared(self, shared: SharedMessage) -> bool:
        """Send a message that others get too; returns False where the write limit refuses it. Nobody awaits it.

        Raises what `write_message` does.
        """
        if self.server_terminated:
            raise WebSocketClosedError()
        try:
            if self._refuse(self._attach()) is not None:
                return False
            if self._ordered_writes is not None:
                self._ordered_writes.put_shared(functools.partial(self._put_shared, shared), len(shared.payload))
            else:
                self._put_shared(shared)
        except StreamClosedError:
            raise WebSocketClosedError() from None
        return True

    def _put_shared(self, shared: SharedMessage) -> None:
        transport = self._attach()
        compressor = self._compressor
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
        if self._steps_replaced or transport.masked:
            self._write_payload(shared.opcode, payload, deflated is not None, size)
            return
        frame = shared.frame(deflated)
        transport.write_shared(frame)
        if transport.tap is not None:
            transport.tap.sent(frame[0], payload)
        transport.messages += 1
        transport.message_bytes += size

    def _refuse(self, transport: Transport) -> Future[None] | None:
        """Ask whether a message may be sent, before the compressor is touched: both ends share its state."""
        transport.check_thread()
        return transport.refuse() if transport._write_queue is not None or self._ordered_writes is not None else None

    def _write_payload(self, opcode: int, payload: bytes, deflated: bool, size: int) -> Future[None]:
        """Send the ``payload`` of a message of ``size`` bytes."""
        transport = self._attach()
        flags = RSV1 if deflated else 0
        future: Future[None]
        if self._steps_replaced:
            future = self._write_frame(True, opcode, payload, flags)
        else:
            future = transport.write_frame(FIN | flags | opcode, payload)
        transport.messages += 1
        transport.message_bytes += size
        return future

    def write_refused(self, why: str) -> asyncio.Future[None]:
        """A message is not sent, since too many bytes wait already: do what the application has chosen."""
        assert self._transport is not None
        policy = self.params.options.write_limit_policy
        if policy == "raise":
            raise WriteLimitError(why)
        if policy == "drop":
            self._transport.dropped += 1
            return self._ordered_writes.room() if self._ordered_writes is not None else self._transport.room()
        self._log(logging.WARNING, "WebSocket from %s is too slow and closed: %s", why)
        self._closing.reported = TRY_AGAIN_LATER, "too slow"
        self.close(*self._closing.reported)
        return failed_future(self.stream.io_loop)

    def writes_lost(self, unsent: int, writes: int) -> None:
        self._log(logging.INFO, "WebSocket from %s closed with %d bytes unsent, %d writes waiting", unsent, writes)

    def flush(self) -> None:
        """Give the operating system all that was written and waits for more, or for the end of the callback.

        Only what an application writes behind its first write in a callback waits. On a closed connection this does
        nothing. Raises RuntimeError in another thread than the connection's.
        """
        if self._transport is not None:
            self._transport.check_thread()
            self._transport.flush()

    def write_ping(self, data: bytes) -> None:
        """Send a ping frame. Raises ValueError for more than 125 bytes and `WebSocketClosedError` after the end."""
        if self.server_terminated:
            raise WebSocketClosedError()
        try:
            self._write_frame(True, PING, data)
        except StreamClosedError:
            raise WebSocketClosedError() from None
        if self._round_trips is None:
            self._round_trips = RoundTrips()
        self._round_trips.sent(data, time.perf_counter())

    @ReplaceableMethod
    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> Future[None]:
        if opcode & 0x8:
            if not fin:
                raise ValueError("control frames may not be fragmented")
            if len(data) > 125:
                raise ValueError(f"control frame payload has {len(data)} bytes; at most 125 are allowed")
        return self._attach().write_frame((FIN if fin else 0) | flags | opcode, data)

    def _send_pong(self, data: bytes) -> None:
        # Section 5.5.3 lets us answer the latest of several pings only. While a pong is not with the kernel yet, so
        # that pongs of a peer that does not read them cannot pile up.
        if self._pong_future is not None and not self._pong_future.done():
            self._pending_pong = data
            return
        self._pending_pong = None
        if self.server_terminated:
            return
        try:
            future = self._write_frame(True, PONG, data)
        except StreamClosedError:
            self._abort()
            return
        if not future.done():
            self._pong_future = future
            future.add_done_callback(self._on_pong_sent)

    def _on_pong_sent(self, future: asyncio.Future[None]) -> None:
        self._pong_future = None
        data, self._pending_pong = self._pending_pong, None
        if data is not None and not future.cancelled() and future.exception() is None:
            self._send_pong(data)
