"""One open connection (RFC 6455): messages in order, control frames, the closing handshake.

A `WebSocketProtocol13` stands between an end (`handler` or `client`: whoever has ``on_message`` and the rest of
`_WebSocketDelegate`) and a `Transport`. Its state is Tornado's two flags, which applications read and set:

=====================  =======================  =========================================================
``client_terminated``  ``server_terminated``    state
=====================  =======================  =========================================================
False                  False                    OPEN
False                  True                     CLOSING: our close frame is sent, the peer's is waited for
True                   True                     CLOSED, or about to be: nothing more is sent or handed out
=====================  =======================  =========================================================

"client" is the peer and "server" this side, on a client connection too, as they are in Tornado.

What arrives goes one way: the transport gives bytes to `data_received`, `_advance` takes events from the engine one
at a time. Control frames are handled at once. Messages are handed out in order, one at a time: while the application
is busy with one (a coroutine ``on_message``, or a client that has not read on) the next ones wait in a bounded inbox.
An end (close frame, violation, loss of the connection) is handled when all the messages before it have been.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tornado.concurrent import Future
from tornado.escape import json_encode, utf8
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.log import gen_log
from tornado.web import RequestHandler

from tornado_ws.channel import MESSAGES_PER_TURN
from tornado_ws.closing import (
    ABNORMAL_CLOSURE,
    MESSAGE_TOO_BIG,
    NORMAL_CLOSURE,
    POLICY_VIOLATION,
    decode_close,
    encode_close,
)
from tornado_ws.engine import FrameReader, Sender
from tornado_ws.errors import ProtocolError, WebSocketClosedError
from tornado_ws.frames import (
    BINARY,
    CLOSE,
    ENOUGH,
    FIN,
    NOT_DONE,
    PING,
    PONG,
    RAISED,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    VIOLATION,
    Outcome,
    encode_message,
)
from tornado_ws.inbox import Inbox
from tornado_ws.opening import Opening
from tornado_ws.protocol import _WebSocketDelegate, _WebSocketParams
from tornado_ws.shutdown import connections_of
from tornado_ws.station import Station, has_stations
from tornado_ws.transport import Transport, has_unread, peer_name
from tornado_ws.turn import MessageQueue

if TYPE_CHECKING:
    from tornado_ws.handler import WebSocketHandler

_SENDABLE = (str, bytes, bytearray, memoryview)


class WebSocketProtocol13(Sender, Opening):
    """The protocol of RFC 6455, version 13, for one connection of either side.

    ``mask_outgoing`` is true on a client. The constructor and the methods without a docstring are Tornado's.
    """

    FIN = FIN
    RSV1 = RSV1
    RSV2 = RSV2
    RSV3 = RSV3
    RSV_MASK = RSV1 | RSV2 | RSV3
    OPCODE_MASK = 0x0F

    #: Whether the peer has sent a close frame.
    was_clean = False
    _rerouted = False
    _control_frames = 0
    #: Code and reason of the close frame that follows when all that was received is handled.
    _farewell: tuple[int | None, str | None] | None = None
    _replacements: dict[str, Callable[..., Any]] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._rerouted = not has_stations(cls, "_handle_message", "_write_frame")

    def __init__(self, handler: _WebSocketDelegate, mask_outgoing: bool, params: _WebSocketParams) -> None:
        self._transport: Transport | None = None
        self._reader: FrameReader | None = None
        self._out = None
        super().__init__(handler, params)
        self.mask_outgoing = mask_outgoing
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._handling: object = None
        self._inbox: Inbox | None = None
        self._end: Callable[[], None] | None = None
        self._lost = False
        self._outcome: tuple[int | None, str | None] | None = None
        self._is_closed = False
        self._closed: Future[None] | None = None
        self._close_timeout: object = None

        self._pong_future: Future[None] | None = None
        self._pending_pong: bytes | None = None

    # State

    @property
    def client_terminated(self) -> bool:
        return self._client_terminated

    @client_terminated.setter
    def client_terminated(self, value: bool) -> None:
        self._client_terminated = value
        if value:
            self._out = None
            if self._reader is not None:
                self._reader.stop()

    @property
    def server_terminated(self) -> bool:
        return self._server_terminated

    @server_terminated.setter
    def server_terminated(self, value: bool) -> None:
        self._server_terminated = value
        if value:
            self._out = None

    def _is_closing(self) -> bool:
        return self.server_terminated or self._client_terminated or self.stream.closed()

    # Message bytes are before compression and in UTF-8; wire bytes are all that frames take.

    @property
    def _message_bytes_in(self) -> int:
        return self._reader.message_bytes if self._reader is not None else 0

    @property
    def _message_bytes_out(self) -> int:
        return self._transport.message_bytes if self._transport is not None else 0

    @property
    def _wire_bytes_in(self) -> int:
        return self._reader.wire_bytes if self._reader is not None else 0

    @property
    def _wire_bytes_out(self) -> int:
        return self._transport.wire_bytes if self._transport is not None else 0

    def _reroute(self) -> None:
        self._rerouted = True
        self._out = None
        if self._transport is not None:
            self._transport.direct = False

    # Opening

    async def _open(self, handler: WebSocketHandler) -> None:
        """Call ``open`` while control frames are handled and messages wait."""
        self._handling = handler.open
        transport = self._start_receiving()
        try:
            result = handler.open(*handler.open_args, **handler.open_kwargs)
            if result is not None:
                await result
        except Exception:
            self._log_and_abort()
        finally:
            self._handling = None
        # What prepare and open set is visible in on_message: in Tornado they all run in one task.
        transport.context = contextvars.copy_context()
        transport.dispatch(self.advance)

    # Receiving

    async def _receive_frame_loop(self) -> None:
        """Receive until the connection is closed and ``on_close`` has been called."""
        if self._reader is None:
            try:
                self._start_receiving()
            except StreamClosedError:
                self._abort()
                self._notify_closed()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        if not self._is_closed:
            if self._closed is None:
                self._closed = Future()
            # Whoever gives up waiting does so for nobody else.
            await asyncio.shield(self._closed)

    def _start_receiving(self) -> Transport:
        transport = self._attach()
        if self._reader is None:
            # Not by mask_outgoing: tunnels build servers that mask what they send.
            is_server = isinstance(self.handler, RequestHandler)
            if is_server:
                self.handler._ws_opened = True  # type: ignore[attr-defined]
                connections_of(self.handler.application).add(self)  # type: ignore[attr-defined]
            self._reader = FrameReader(is_server, self.params.max_message_size, self._decompressor)
            transport.direct = self._is_direct()
            transport.start(self._reader)
        return transport

    def _attach(self) -> Transport:
        if self._transport is None:
            if self.stream.closed():
                raise StreamClosedError(self.stream.error)
            self._transport = Transport(self.stream, self, self.mask_outgoing)
            if self._compressor is None and not self._rerouted and not self.is_closing():
                self._out = self._transport
        return self._transport

    def _is_direct(self) -> bool:
        """Whether messages may go straight from the reader to the application."""
        return (
            self._handling is None
            and not self._inbox
            and self._end is None
            and not self._client_terminated
            and not self._rerouted
            and self._farewell is None
        )

    def eof_received(self, error: Exception | None) -> None:
        if self._end is None:
            self._end = functools.partial(self._lose, error)
        self.advance()

    def connection_lost(self) -> None:
        self._lost = True
        if self._reader is not None:
            self.advance()

    def advance(self, outcome: Outcome | None = None) -> None:
        """Handle what has arrived, as far as the application and the loop allow."""
        assert self._transport is not None
        self._transport.direct = False
        for _ in range(MESSAGES_PER_TURN):
            if outcome is None:
                if self._handling is None:
                    if self._inbox and not self._client_terminated:
                        self._hand_out(*self._inbox.get())
                        continue
                    if self._end is not None:
                        end, self._end = self._end, None
                        end()
                        continue
                    if self._lost:
                        self._notify_closed()
                        return
                if self._client_terminated or self._end is not None or self._lost:
                    self._transport.pause_reading()
                    self._hurry()
                    return
                if self._inbox is not None and self._inbox.is_full() and not self.server_terminated:
                    self._transport.pause_reading()
                    return
                outcome = self._next_outcome()
                if outcome is None:
                    if self._farewell is not None and not self.server_terminated:
                        self._transport.pause_reading()
                        if self._handling is not None:
                            return
                        self.close(*self._farewell)
                    self._transport.direct = self._is_direct()
                    self._transport.resume_reading()
                    return
            if outcome[0] == ENOUGH:
                break
            self._handle_outcome(*outcome)
            outcome = None
        # The rest of a long chunk: whatever else is ready on this loop comes first.
        self._transport.pause_reading()
        IOLoop.current().add_callback(self._transport.dispatch, self.advance)

    def _next_outcome(self) -> Outcome | None:
        assert self._reader is not None
        if self._is_direct():
            return self._reader.hand_out(self.handler, MESSAGES_PER_TURN)
        try:
            return next(iter(self._reader))
        except ProtocolError as error:
            return VIOLATION, error, 0

    def _handle_outcome(self, opcode: int, payload: Any, size: int) -> None:
        if opcode >= CLOSE:
            try:
                self._handle_message(opcode, payload)
            except ProtocolError as error:
                self._end = functools.partial(self._fail, error)
        elif opcode == NOT_DONE:
            self._wait_for(self._check_result(payload))
        elif opcode == RAISED:
            self.handler.log_exception(*payload)
            self._abort()
        elif opcode == VIOLATION:
            self._end = functools.partial(self._fail, payload)
        elif self._farewell is not None and self.server_terminated:
            # Nobody could answer it.
            pass
        elif self._handling is None:
            self._hand_out(opcode, payload, size)
        else:
            if self._inbox is None:
                self._inbox = Inbox()
            # Once we have closed nobody stops reading, or the close frame behind it all would not be seen.
            if not self._inbox.is_full():
                self._inbox.put((opcode, payload, size))

    def _hurry(self) -> None:
        """An end waits behind the turn of a client's application: for a moment, or not at all if that has closed."""
        if (self._end is not None or self._lost) and isinstance(self._handling, MessageQueue):
            if self.server_terminated:
                IOLoop.current().add_callback(self._handling.end_turn)
            else:
                self._handling.hurry()

    def _hand_out(self, opcode: int, payload: str | bytes, size: int) -> None:
        assert self._reader is not None
        self._reader.messages += 1
        self._reader.message_bytes += size
        if self._rerouted:
            self._wait_for(self._handle_message(opcode, utf8(payload)))
        else:
            self._wait_for(self._run_callback(self.handler.on_message, payload))

    def _wait_for(self, handled: Any) -> None:
        if handled is not None:
            self._handling = handled
            handled.add_done_callback(self._on_handled)

    def _watch_over(self, handled: Any) -> None:
        """Let a callback that nothing waits for go on by itself."""
        if handled is not None:
            handled.add_done_callback(self._check_handled)

    def _check_handled(self, handled: Any) -> None:
        if not isinstance(handled, MessageQueue):
            try:
                handled.result()
            except (Exception, asyncio.CancelledError):
                self._log_and_abort()

    def _on_handled(self, handled: Any) -> None:
        self._check_handled(handled)
        self._handling = None
        assert self._transport is not None
        self._transport.dispatch(self.advance)

    @Station
    def _handle_message(self, opcode: int, data: bytes) -> Any:
        """Handle one message or control frame; returns what is still busy with it, if anything is."""
        if self._client_terminated:
            return None
        if opcode == TEXT:
            return self._run_callback(self.handler.on_message, data.decode())
        if opcode == BINARY:
            return self._run_callback(self.handler.on_message, data)
        if opcode == CLOSE:
            decode_close(data)
            self._end = functools.partial(self._handle_close, data)
        elif opcode == PING:
            self._control_frames += 1
            self._send_pong(data)
            self._watch_over(self._run_callback(self.handler.on_ping, data))
        elif opcode == PONG:
            self._control_frames += 1
            self._pong_received(data)
            self._watch_over(self._run_callback(self.handler.on_pong, data))
        return None

    # Sending

    def _write_message(self, message: str | bytes | dict[str, Any], binary: bool) -> Future[None]:
        if self.server_terminated:
            raise WebSocketClosedError()
        if isinstance(message, dict):
            message = json_encode(message)
        elif not isinstance(message, _SENDABLE):
            raise TypeError(f"message is of type {type(message).__name__}; allowed are str, bytes and dict")
        try:
            if self._compressor is None and not self._rerouted:
                return self._attach().write_message(message, binary)
            payload = encode_message(message, binary)
            opcode = BINARY if binary else TEXT
            self._attach().message_bytes += len(payload)
            flags = 0
            if self._compressor is not None:
                payload = self._compressor.compress(payload)
                flags = RSV1
            if not self._rerouted:
                return self._attach().write_frame(FIN | flags | opcode, payload)
            future: Future[None] = self._write_frame(True, opcode, payload, flags)
            return future
        except StreamClosedError:
            raise WebSocketClosedError() from None

    def write_ping(self, data: bytes) -> None:
        """Send a ping frame. Raises ValueError for more than 125 bytes and `WebSocketClosedError` after the end."""
        if self.server_terminated:
            raise WebSocketClosedError()
        try:
            self._write_frame(True, PING, data)
        except StreamClosedError:
            raise WebSocketClosedError() from None
        self._ping_sent(data)

    @Station
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

    # Closing

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Start the closing handshake, or finish it.

        Raises ValueError, with nothing changed, for a code below 5000 that may not be sent and for a reason of more
        than 123 bytes (RFC 6455 sections 5.5 and 7.4). Applications have codes of their own from 5000 on, in no
        range of the RFC: those are sent as 1008, with a warning in the log.
        """
        if not self.server_terminated:
            if code is not None and code >= 5000:
                gen_log.warning("close code %d, which RFC 6455 does not have, is sent as %d", code, POLICY_VIOLATION)
                code = POLICY_VIOLATION
            payload = encode_close(code, reason)
            self.server_terminated = True
            if self.stream is not None and not self.stream.closed():
                self._write_frame(True, CLOSE, payload)
        self._stop_pinging()
        if self.client_terminated:
            self._stop_waiting()
            if self._transport is not None:
                self._transport.close_gracefully()
        elif self._close_timeout is None:
            self._close_timeout = IOLoop.current().call_later(self.params.options.close_timeout, self._on_close_timeout)
            self._hurry()
            if self._transport is not None and not self._transport.reading:
                # The peer's close frame may be behind messages that we had stopped reading for.
                IOLoop.current().add_callback(self._transport.dispatch, self.advance)

    def _stop_waiting(self) -> None:
        if self._close_timeout is not None:
            IOLoop.current().remove_timeout(self._close_timeout)
            self._close_timeout = None

    def close_when_handled(self, code: int | None, reason: str | None) -> None:
        """Close when all that has been received is handled. What arrives after that is not handed out any more."""
        if self._transport is None or self._is_closed:
            return
        if self._farewell is None:
            # A last look at what has arrived and is not read.
            self._transport.handle_events()
        self._farewell = code, reason
        self._transport.dispatch(self.advance)

    def cut_off(self, code: int | None, reason: str | None) -> None:
        """Abort, after a close frame that nobody waits for."""
        if not self.stream.closed():
            self.close(code, reason)
            self._on_close_timeout()

    def _on_close_timeout(self) -> None:
        self._stop_waiting()
        if self._end is not None:
            # The peer has answered in time; it is our application that is busy.
            end, self._end = self._end, None
            end()
            return
        if self.close_code is None:
            self._outcome = (ABNORMAL_CLOSURE, "closing handshake timed out")
        self._abort()

    def _handle_close(self, payload: bytes) -> None:
        self.close_code, self.close_reason = decode_close(payload)
        self.was_clean = True
        self.client_terminated = True
        # Section 5.5.1: the answer echoes the code.
        self.close(self.close_code)

    def _fail(self, error: ProtocolError) -> None:
        """Fail the connection (section 7.1.7): the one place where a violation turns into a close frame."""
        # Going over a limit is legal, and Tornado's tests want no line above DEBUG for it.
        level = logging.DEBUG if error.close_code == MESSAGE_TOO_BIG else logging.INFO
        gen_log.log(level, "WebSocket from %s failed with %d: %s", self._peer(), error.close_code, error)
        self.close_code = error.close_code
        self.close_reason = error.reason
        self.client_terminated = True
        self.close(error.close_code, error.reason)

    def _lose(self, error: Exception | None) -> None:
        """The peer closed its side of the connection, or it broke: there is nobody left to shake hands with."""
        self.client_terminated = self.server_terminated = True
        if error is not None:
            self.stream.close(exc_info=error)
        self._abort()

    def _notify_closed(self) -> None:
        self.client_terminated = self.server_terminated = True
        self._stop_waiting()
        self._stop_pinging()
        if not self._is_closed:
            self._is_closed = True
            code, reason = self._outcome or (self.close_code, self.close_reason)
            try:
                self.handler.on_ws_connection_close(code, reason)
            except Exception:
                self.handler.log_exception(*sys.exc_info())
            if isinstance(self.handler, RequestHandler):
                connections_of(self.handler.application).remove(self)
            if self._closed is not None and not self._closed.done():
                self._closed.set_result(None)

    def set_nodelay(self, x: bool) -> None:
        self.stream.set_nodelay(x)

    def _peer(self) -> str:
        request = getattr(self.handler, "request", None)
        return getattr(request, "remote_ip", None) or peer_name(self.stream)

    # Keepalive

    def _read(self) -> object:
        reader = self._reader
        if reader is None or not self._rerouted:
            return self._wire_bytes_in
        # Whoever replaces `_handle_message` may keep from us what was read; a test of Tornado's does so with pongs.
        return self._control_frames, reader.messages, reader.wire_bytes if reader.in_message else 0

    def _unsent(self) -> int:
        return self._transport.buffered if self._transport is not None else 0

    def _is_reading(self) -> bool:
        return self._transport is not None and self._transport.reading

    def _has_unread(self) -> bool:
        return has_unread(self.stream)

    def _give_up(self, reason: str) -> None:
        """End the connection with a peer that is probably gone, without waiting for its close frame.

        The frame is sent all the same, with Tornado's code: the peer may hear us though we do not hear it.
        """
        gen_log.debug("WebSocket from %s given up: %s", self._peer(), reason)
        self._outcome = (ABNORMAL_CLOSURE, reason)
        self.close_code, self.close_reason = NORMAL_CLOSURE, reason
        self.client_terminated = True
        transport = self._attach()
        unsent = transport.buffered
        self.close(reason=reason)
        if unsent:
            transport.close()
