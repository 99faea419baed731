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

import abc
import asyncio
import contextvars
import functools
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from tornado import gen, httputil
from tornado.concurrent import Future
from tornado.escape import json_encode, utf8
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError
from tornado.log import gen_log
from tornado.web import HTTPError

from tornado_ws import handshake
from tornado_ws.closing import ABNORMAL_CLOSURE, MESSAGE_TOO_BIG, NORMAL_CLOSURE, decode_close, encode_close
from tornado_ws.deflate import DeflateParams, _PerMessageDeflateCompressor, _PerMessageDeflateDecompressor
from tornado_ws.engine import FrameReader, encode_frame
from tornado_ws.errors import ProtocolError, WebSocketClosedError
from tornado_ws.frames import BINARY, CLOSE, FIN, PING, PONG, RSV1, RSV2, RSV3, TEXT, Event
from tornado_ws.transport import Transport, peer_has_closed, peer_name, take_read_bytes
from tornado_ws.turn import MessageQueue

if TYPE_CHECKING:
    from tornado_ws.handler import WebSocketHandler

_default_max_message_size = 10 * 1024 * 1024

#: Seconds for the peer to answer a close frame, as in Tornado.
_CLOSE_TIMEOUT = 5.0
#: Events handled before the rest of the loop gets its turn.
_EVENTS_PER_TURN = 256
#: Messages and bytes that may wait for a busy application before we stop reading.
_INBOX_MESSAGES = 64
_INBOX_BYTES = 1024 * 1024

de_dupe_gen_log = functools.lru_cache(gen_log.log)


class _WebSocketDelegate(Protocol):
    """What a protocol calls: `WebSocketHandler` on the server side, `WebSocketClientConnection` on the client side."""

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None: ...

    def on_message(self, message: str | bytes) -> Awaitable[None] | None: ...

    def on_ping(self, data: bytes) -> None: ...

    def on_pong(self, data: bytes) -> None: ...

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class _WebSocketParams:
    """Settings of one connection, under Tornado's names: seconds and bytes."""

    def __init__(
        self,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
        max_message_size: int = _default_max_message_size,
        compression_options: dict[str, Any] | None = None,
    ) -> None:
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.max_message_size = max_message_size
        self.compression_options = compression_options


class WebSocketProtocol(abc.ABC):
    """Base class for WebSocket protocol versions."""

    def __init__(self, handler: _WebSocketDelegate) -> None:
        self.handler = handler
        self.stream: IOStream | None = None
        self.client_terminated = False
        self.server_terminated = False

    def _run_callback(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call into the application; an exception is logged and aborts the connection.

        Returns None when the callback is done, else something with ``add_done_callback``.
        """
        try:
            result = callback(*args, **kwargs)
            if result is None or isinstance(result, MessageQueue):
                return result
            future = gen.convert_yielded(result)
            if not future.done():
                return future
            future.result()
        except (Exception, asyncio.CancelledError):
            self._log_and_abort()
        return None

    def _log_and_abort(self) -> None:
        self.handler.log_exception(*sys.exc_info())
        self._abort()

    def on_connection_close(self) -> None:
        self._abort()

    def _abort(self) -> None:
        """Close the socket at once, without a closing handshake."""
        self.client_terminated = True
        self.server_terminated = True
        if self.stream is not None:
            self.stream.close()
        self.close()

    @abc.abstractmethod
    def close(self, code: int | None = None, reason: str | None = None) -> None: ...

    @abc.abstractmethod
    def is_closing(self) -> bool: ...

    @abc.abstractmethod
    async def accept_connection(self, handler: WebSocketHandler) -> None: ...

    @abc.abstractmethod
    def write_message(self, message: str | bytes | dict[str, Any], binary: bool = False) -> Future[None]: ...

    @property
    @abc.abstractmethod
    def selected_subprotocol(self) -> str | None: ...

    @abc.abstractmethod
    def write_ping(self, data: bytes) -> None: ...

    @abc.abstractmethod
    def _process_server_headers(self, key: str | bytes, headers: httputil.HTTPHeaders) -> None: ...

    @abc.abstractmethod
    def start_pinging(self) -> None: ...

    @abc.abstractmethod
    async def _receive_frame_loop(self) -> None: ...

    @abc.abstractmethod
    def set_nodelay(self, x: bool) -> None: ...


class WebSocketProtocol13(WebSocketProtocol):
    """The protocol of RFC 6455, version 13, for one connection of either side.

    ``mask_outgoing`` is true on a client. The constructor and the methods without a docstring are Tornado's.
    """

    FIN = FIN
    RSV1 = RSV1
    RSV2 = RSV2
    RSV3 = RSV3
    RSV_MASK = RSV1 | RSV2 | RSV3
    OPCODE_MASK = 0x0F

    stream: IOStream

    def __init__(self, handler: _WebSocketDelegate, mask_outgoing: bool, params: _WebSocketParams) -> None:
        super().__init__(handler)
        self.mask_outgoing = mask_outgoing
        self.params = params
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._selected_subprotocol: str | None = None
        self._compressor: _PerMessageDeflateCompressor | None = None
        self._decompressor: _PerMessageDeflateDecompressor | None = None
        # Message bytes are before compression and in UTF-8; wire bytes are all that frames take.
        self._message_bytes_in = 0
        self._message_bytes_out = 0
        self._wire_bytes_in = 0
        self._wire_bytes_out = 0

        self._transport: Transport | None = None
        self._reader: FrameReader | None = None
        self._handling: object = None
        self._inbox: deque[Event] | None = None
        self._inbox_bytes = 0
        self._end: Callable[[], None] | None = None
        self._lost = False
        self._outcome: tuple[int | None, str | None] | None = None
        self._closed: Future[None] = Future()
        self._close_timeout: object = None

        self._ping_coroutine: asyncio.Task[None] | None = None
        self._heard = False
        self._pong_future: Future[None] | None = None
        self._pending_pong: bytes | None = None

    # Opening handshake, server

    @property
    def selected_subprotocol(self) -> str | None:
        return self._selected_subprotocol

    @selected_subprotocol.setter
    def selected_subprotocol(self, value: str | None) -> None:
        self._selected_subprotocol = value

    async def accept_connection(self, handler: WebSocketHandler) -> None:
        try:
            self._handle_websocket_headers(handler)
        except ValueError as error:
            handler.set_status(getattr(error, "status", 400))
            log_msg = f"Missing/Invalid WebSocket headers: {error}"
            handler.finish(log_msg)
            gen_log.debug(log_msg)
            return
        try:
            await self._accept_connection(handler)
        except asyncio.CancelledError:
            self._abort()

    def _handle_websocket_headers(self, handler: WebSocketHandler) -> None:
        """Raise ValueError unless the request is a valid opening handshake."""
        request = handler.request
        handshake.check_request(request.method, request.version, request.headers)

    @staticmethod
    def compute_accept_value(key: str | bytes) -> str:
        """Return the Sec-WebSocket-Accept header for a Sec-WebSocket-Key."""
        return handshake.compute_accept_value(key)

    def _challenge_response(self, handler: WebSocketHandler) -> str:
        return self.compute_accept_value(handler.request.headers["Sec-WebSocket-Key"])

    async def _accept_connection(self, handler: WebSocketHandler) -> None:
        headers = handler.request.headers
        offered = handshake.list_tokens(headers.get("Sec-WebSocket-Protocol", ""))
        selected = handler.select_subprotocol(offered)
        if selected:
            if selected not in offered:
                raise HTTPError(500, f"select_subprotocol returned {selected!r}; the client offered {offered!r}")
            handler.set_header("Sec-WebSocket-Protocol", selected)
        self.selected_subprotocol = selected

        if self.params.compression_options is not None:
            agreed = handshake.accept_deflate_offer(headers.get("Sec-WebSocket-Extensions", ""))
            if agreed is not None:
                self._create_compressors("server", agreed)
                handler.set_header("Sec-WebSocket-Extensions", handshake.encode_deflate_params(agreed))

        handler.clear_header("Content-Type")
        handler.set_status(101)
        handler.set_header("Upgrade", "websocket")
        handler.set_header("Connection", "Upgrade")
        handler.set_header("Sec-WebSocket-Accept", self._challenge_response(handler))
        handler.finish()

        self.stream = handler._detach_stream()
        try:
            if self.stream.writing():
                await self.stream.write(b"")
        except StreamClosedError:
            pass
        if peer_has_closed(self.stream):
            self._abort()
            return
        self.start_pinging()
        await self._open(handler)
        await self._receive_frame_loop()

    async def _open(self, handler: WebSocketHandler) -> None:
        """Call ``open`` while control frames are handled and messages wait."""
        self._handling = handler.open
        transport = self._start_receiving()
        handler._ws_opened = True
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
        transport.dispatch(self._advance)

    def _create_compressors(self, side: str, agreed: DeflateParams) -> None:
        options = self.params.compression_options
        server = (not agreed.server_no_context_takeover, agreed.server_max_window_bits)
        client = (not agreed.client_no_context_takeover, agreed.client_max_window_bits)
        ours, theirs = (server, client) if side == "server" else (client, server)
        self._compressor = _PerMessageDeflateCompressor(*ours, options)
        self._decompressor = _PerMessageDeflateDecompressor(*theirs, self.params.max_message_size, options)

    # Opening handshake, client

    def _process_server_headers(self, key: str | bytes, headers: httputil.HTTPHeaders) -> None:
        """Take the headers of the server's 101. Raises ValueError where they break RFC 6455 or RFC 7692."""
        handshake.check_response(headers, key)
        agreed = handshake.check_extensions_response(
            headers.get("Sec-WebSocket-Extensions", ""), self.params.compression_options is not None
        )
        if agreed is not None:
            self._create_compressors("client", agreed)
        self.selected_subprotocol = headers.get("Sec-WebSocket-Protocol")

    # Receiving

    async def _receive_frame_loop(self) -> None:
        """Receive until the connection is closed and ``on_close`` has been called."""
        try:
            self._start_receiving()
        except StreamClosedError:
            self._abort()
            self._notify_closed()
        await self._closed

    def _start_receiving(self) -> Transport:
        transport = self._attach()
        if self._reader is None:
            self._reader = FrameReader(not self.mask_outgoing, self.params.max_message_size, self._decompressor)
            early = take_read_bytes(self.stream)
            if early:
                IOLoop.current().add_callback(transport.dispatch, self.data_received, early)
            else:
                transport.resume_reading()
        return transport

    def _attach(self) -> Transport:
        if self._transport is None:
            if self.stream.closed():
                raise StreamClosedError(self.stream.error)
            self._transport = Transport(self.stream, self)
        return self._transport

    def data_received(self, chunk: bytes) -> None:
        assert self._reader is not None
        if self.client_terminated:
            # Set by the application, which as in Tornado wants no more.
            self._abort()
            return
        self._wire_bytes_in += len(chunk)
        self._reader.feed(chunk)
        self._heard = self._heard or self._reader.in_message
        self._advance()

    def eof_received(self, error: Exception | None) -> None:
        if self._end is None:
            self._end = functools.partial(self._lose, error)
        self._advance()

    def connection_lost(self) -> None:
        self._lost = True
        if self._reader is not None:
            self._advance()

    def _advance(self) -> None:
        """Handle what has arrived, as far as the application and the loop allow."""
        assert self._reader is not None
        assert self._transport is not None
        events = iter(self._reader)
        for _ in range(_EVENTS_PER_TURN):
            if self._handling is None:
                if self._inbox:
                    self._hand_out(*self._next_of_inbox())
                    continue
                if self._end is not None:
                    end, self._end = self._end, None
                    end()
                    continue
                if self._lost:
                    self._notify_closed()
                    return
            if self.client_terminated or self._end is not None or self._lost:
                self._transport.pause_reading()
                self._hurry()
                return
            if self._inbox is not None and self._inbox_is_full():
                self._transport.pause_reading()
                return
            try:
                event = next(events)
                if event is None:
                    self._transport.resume_reading()
                    return
                if event[0] >= CLOSE:
                    self._handle_message(event[0], event[1])  # type: ignore[arg-type]
                elif self._handling is None:
                    self._hand_out(*event)
                else:
                    self._put_into_inbox(event)
            except ProtocolError as error:
                self._end = functools.partial(self._fail, error)
        # The rest of a long chunk: whatever else is ready on this loop comes first.
        self._transport.pause_reading()
        IOLoop.current().add_callback(self._transport.dispatch, self._advance)

    def _put_into_inbox(self, event: Event) -> None:
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(event)
        self._inbox_bytes += event[2]

    def _next_of_inbox(self) -> Event:
        assert self._inbox is not None
        event = self._inbox.popleft()
        self._inbox_bytes -= event[2]
        return event

    def _inbox_is_full(self) -> bool:
        assert self._inbox is not None
        return len(self._inbox) >= _INBOX_MESSAGES or self._inbox_bytes >= _INBOX_BYTES

    def _hurry(self) -> None:
        """An end waits behind the turn of a client's application: for a moment, or not at all if that has closed."""
        if self._end is not None and isinstance(self._handling, MessageQueue):
            if self.server_terminated:
                IOLoop.current().add_callback(self._handling.end_turn)
            else:
                self._handling.hurry()

    def _hand_out(self, opcode: int, payload: str | bytes, size: int) -> None:
        self._message_bytes_in += size
        self._heard = True
        if self._handle_message_is_replaced():
            handled = self._handle_message(opcode, utf8(payload))
        else:
            handled = self._run_callback(self.handler.on_message, payload)
        if handled is not None:
            self._handling = handled
            handled.add_done_callback(self._on_handled)

    def _handle_message_is_replaced(self) -> bool:
        """Whether a subclass or a test put itself in the way of messages, to whom they go as in Tornado."""
        return (
            type(self)._handle_message is not WebSocketProtocol13._handle_message or "_handle_message" in self.__dict__
        )

    def _on_handled(self, handled: Any) -> None:
        if not isinstance(handled, MessageQueue):
            try:
                handled.result()
            except (Exception, asyncio.CancelledError):
                self._log_and_abort()
        self._handling = None
        assert self._transport is not None
        self._transport.dispatch(self._advance)

    def _handle_message(self, opcode: int, data: bytes) -> Any:
        """Handle one message or control frame; returns what is still busy with it, if anything is."""
        if self.client_terminated:
            return None
        if opcode == TEXT:
            return self._run_callback(self.handler.on_message, data.decode())
        if opcode == BINARY:
            return self._run_callback(self.handler.on_message, data)
        if opcode == CLOSE:
            decode_close(data)
            self._end = functools.partial(self._handle_close, data)
        elif opcode == PING:
            self._heard = True
            self._send_pong(data)
            self._run_callback(self.handler.on_ping, data)
        elif opcode == PONG:
            self._heard = True
            self._run_callback(self.handler.on_pong, data)
        return None

    # Sending

    def write_message(self, message: str | bytes | dict[str, Any], binary: bool = False) -> Future[None]:
        """Send a message; see `.WebSocketHandler.write_message`.

        Raises `WebSocketClosedError` when a close frame was sent or the connection is lost, and ValueError for bytes
        that are to go as text and are not UTF-8.
        """
        if isinstance(message, dict):
            message = json_encode(message)
        if isinstance(message, str):
            payload = message.encode()
        elif isinstance(message, bytes | bytearray | memoryview):
            payload = bytes(message)
            if not binary:
                payload.decode()
        else:
            raise TypeError(f"message is of type {type(message).__name__}; allowed are str, bytes and dict")
        if self.server_terminated:
            raise WebSocketClosedError()
        flags = 0
        self._message_bytes_out += len(payload)
        if self._compressor is not None:
            payload = self._compressor.compress(payload)
            flags = RSV1
        try:
            return self._write_frame(True, BINARY if binary else TEXT, payload, flags)
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

    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> Future[None]:
        if opcode & 0x8:
            if not fin:
                raise ValueError("control frames may not be fragmented")
            if len(data) > 125:
                raise ValueError(f"control frame payload has {len(data)} bytes; at most 125 are allowed")
        frame = encode_frame((FIN if fin else 0) | flags | opcode, data, self.mask_outgoing)
        self._wire_bytes_out += len(frame)
        return self._attach().write(frame)

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

        Raises ValueError, with nothing changed, for a code that may not be sent and for a reason of more than 123
        bytes (RFC 6455 sections 5.5 and 7.4).
        """
        if not self.server_terminated:
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
            self._close_timeout = IOLoop.current().call_later(_CLOSE_TIMEOUT, self._on_close_timeout)
            self._hurry()

    def _stop_waiting(self) -> None:
        if self._close_timeout is not None:
            IOLoop.current().remove_timeout(self._close_timeout)
            self._close_timeout = None

    def _on_close_timeout(self) -> None:
        if self.close_code is None:
            self._outcome = (ABNORMAL_CLOSURE, "closing handshake timed out")
        self._abort()

    def _handle_close(self, payload: bytes) -> None:
        self.close_code, self.close_reason = decode_close(payload)
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
        if not self._closed.done():
            self._closed.set_result(None)
            code, reason = self._outcome or (self.close_code, self.close_reason)
            try:
                self.handler.on_ws_connection_close(code, reason)
            except Exception:
                self.handler.log_exception(*sys.exc_info())

    def is_closing(self) -> bool:
        """Return True once either side has begun to close, or the stream is closed."""
        return self.server_terminated or self.client_terminated or self.stream.closed()

    def set_nodelay(self, x: bool) -> None:
        self.stream.set_nodelay(x)

    def _peer(self) -> str:
        request = getattr(self.handler, "request", None)
        return getattr(request, "remote_ip", None) or peer_name(self.stream)

    # Keepalive

    @property
    def ping_interval(self) -> float:
        return self.params.ping_interval or 0

    @property
    def ping_timeout(self) -> float:
        timeout = self.params.ping_timeout
        if timeout is None:
            return self.ping_interval
        if self.ping_interval and timeout > self.ping_interval:
            de_dupe_gen_log(
                logging.WARNING,
                f"The websocket_ping_timeout ({timeout}) cannot be longer than the websocket_ping_interval "
                f"({self.ping_interval}).\nSetting websocket_ping_timeout={self.ping_interval}",
            )
            return self.ping_interval
        return timeout

    def start_pinging(self) -> None:
        """Send pings every ``ping_interval`` seconds, unless it is zero."""
        if self._ping_coroutine is None and self.ping_interval > 0:
            self._ping_coroutine = asyncio.get_event_loop().create_task(self.periodic_ping())

    def _stop_pinging(self) -> None:
        if self._ping_coroutine is not None:
            self._ping_coroutine.cancel()
            self._ping_coroutine = None

    @staticmethod
    def ping_sleep_time(*, last_ping_time: float, interval: float, now: float) -> float:
        """Return the seconds until the next ping is due."""
        return max(0, last_ping_time + interval - now)

    async def periodic_ping(self) -> None:
        """Send a ping every interval; give the peer up when nothing was heard of it for the timeout after one."""
        interval = self.ping_interval
        timeout = self.ping_timeout
        await asyncio.sleep(interval)
        while not self.is_closing():
            self._heard = False
            ping_time = IOLoop.current().time()
            try:
                self.write_ping(b"")
            except WebSocketClosedError:
                return
            await asyncio.sleep(timeout)
            # A peer that we are not reading from is not to blame for silence.
            if timeout > 0 and not self._heard and self._attach().reading:
                self._ping_coroutine = None
                self._give_up("ping timed out")
                return
            await asyncio.sleep(
                self.ping_sleep_time(last_ping_time=ping_time, interval=interval, now=IOLoop.current().time())
            )

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
