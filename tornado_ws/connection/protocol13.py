"""One open connection (RFC 6455): messages in order, control frames, the closing handshake.

A `WebSocketProtocol13` stands between an end (`handler` or `client`, with ``on_message`` and the rest of
`WebSocketDelegate`) and a `Transport`. `closing.State` is its state. Tornado's two flags, which applications read and
set, are made of it: in ``client_terminated`` "client" is the peer, in ``server_terminated`` "server" is this side, on a
client connection too.

What arrives goes one way: the transport reads bytes, and a `Delivery` takes what the engine made of them. What goes out
is one call into the channel, or goes through `Writing`.

The file is long since applications override Tornado's names, which have to be methods of one class. What they do is in
the parts that it owns, each of which knows it by a narrow Protocol.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from tornado import httputil
from tornado.concurrent import Future
from tornado.iostream import IOStream, StreamClosedError
from tornado.log import gen_log
from tornado.web import RequestHandler

from tornado_ws import handshake
from tornado_ws.close_codes import (
    ABNORMAL_CLOSURE,
    MESSAGE_TOO_BIG,
    NORMAL_CLOSURE,
    POLICY_VIOLATION,
    TRY_AGAIN_LATER,
    decode_close,
    encode_close,
)
from tornado_ws.codecs import codec_of, encode_with
from tornado_ws.connection import keepalive, opening
from tornado_ws.connection.close_timeout import CloseTimeout
from tornado_ws.connection.closing import Closing, End, Event, State
from tornado_ws.connection.deadlines import deadlines_of
from tornado_ws.connection.decoding import Decoding
from tornado_ws.connection.delivery import Delivery
from tornado_ws.connection.interfaces import ServerEnd, WebSocketDelegate, WebSocketParams, WebSocketProtocol
from tornado_ws.connection.keepalive import Keepalive
from tornado_ws.connection.lifetime import Lifetime
from tornado_ws.connection.pongs import Pongs
from tornado_ws.connection.rate_limit import RateLimit
from tornado_ws.connection.registry import connections_of
from tornado_ws.connection.replaceable import ReplaceableMethod, all_replaceable
from tornado_ws.connection.writing import SharedMessage, SharedMessages, Writing, sendable
from tornado_ws.coroutines import log_error, nothing
from tornado_ws.deflate.codec import PerMessageDeflateCompressor, PerMessageDeflateDecompressor
from tornado_ws.deflate.negotiation import DeflateParams
from tornado_ws.engine import ConnectionTask, FrameReader, Sender
from tornado_ws.engine.contract import (
    BINARY,
    CLOSE,
    FIN,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Inflater,
)
from tornado_ws.engine.encoding import Sendable
from tornado_ws.engine.handling import run_in
from tornado_ws.engine.tasks import is_ended_by_loop
from tornado_ws.errors import ProtocolError, WebSocketClosedError, WriteLimitError
from tornado_ws.escaping import plain
from tornado_ws.observing.latency import UNKNOWN, Latency, RoundTrips
from tornado_ws.observing.logs import extra_of, mark_context, next_id
from tornado_ws.observing.sums import NO_SUMS, Sums
from tornado_ws.transport import frame_log
from tornado_ws.transport.futures import failed_future
from tornado_ws.transport.stream import peer_has_closed, peer_name, unread
from tornado_ws.transport.transport import Transport

if TYPE_CHECKING:
    from tornado_ws.connection.message_stream import MessageStream
    from tornado_ws.connection.write_stream import WriteStream
    from tornado_ws.observing.counters import Counters


class WebSocketProtocol13(Sender, WebSocketProtocol):
    """The protocol of RFC 6455, version 13, for one connection of either side.

    ``mask_outgoing`` is true on a client. The constructor and the methods without a docstring are Tornado's.
    """

    #: A slot: who sets an attribute later than the constructor has a dict that shares nothing with those of others.
    __slots__ = ("_when_ended",)

    FIN = FIN
    RSV1 = RSV1
    RSV2 = RSV2
    RSV3 = RSV3
    RSV_MASK = RSV1 | RSV2 | RSV3
    OPCODE_MASK = 0x0F

    stream: IOStream

    _control_frames = 0
    _steps_replaced = False
    _replacements: dict[str, Callable[..., Any]] | None = None
    _connection_id = 0
    _round_trips: RoundTrips | None = None
    #: What few connections have.
    _writing: Writing | None = None
    _pongs: Pongs | None = None
    _rate_limit: RateLimit | None = None
    #: What its transport had counted, when that is gone.
    _final_sums: Sums = NO_SUMS

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._steps_replaced = not all_replaceable(cls, "_handle_message", "_write_frame")

    def __init__(self, handler: WebSocketDelegate, mask_outgoing: bool, params: WebSocketParams) -> None:
        self._delivery: Delivery | None = None
        self._transport: Transport | None = None
        self._out = None
        self._closing = Closing()
        self._when_ended: tuple[Callable[[Any], object], ...] = ()
        super().__init__(handler)
        self.params = params
        self.mask_outgoing = mask_outgoing
        self._selected_subprotocol: str | None = None
        self._compressor: PerMessageDeflateCompressor | None = None
        self._decompressor: PerMessageDeflateDecompressor | None = None
        self._inflater: Inflater | None = None
        self._is_finished = False
        self._closed: Future[None] | None = None
        self._task: ConnectionTask | None = None
        self._close_timeout: CloseTimeout | None = None
        self._keepalive: Keepalive | None = None
        self._lifetime: Lifetime | None = None
        #: What a subclass has in its place.
        self._ping_coroutine: asyncio.Task[None] | None = None

    # State

    @property
    def client_terminated(self) -> bool:
        return self._closing.state.peer_ended

    @client_terminated.setter
    def client_terminated(self, value: bool) -> None:
        if value:
            self._closing.on(Event.GIVE_UP)
            self._stop_receiving()

    def _stop_receiving(self) -> None:
        """Parse no more; messages that are parsed already are still delivered."""
        self._closing.on(Event.PEER_END)
        self._out = None
        if self._delivery is not None:
            self._delivery.reader.stop()

    @property
    def server_terminated(self) -> bool:
        return not self._closing.state.sends

    @server_terminated.setter
    def server_terminated(self, value: bool) -> None:
        if value:
            self._closing.on(Event.CLOSE)
            self._out = None

    def _is_closing(self) -> bool:
        if self._closing.state.is_closing:
            return True
        # The same, but cheaper to ask: a compressed connection does so with each message.
        return self.stream.closed() if self._transport is None else self._transport.fd < 0

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
        if self._transport is None:
            from tornado_ws.observing.counters import Counters

            return Counters(*self._final_sums, latency=self.latency)
        return self._transport.counters()

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

    # Opening, on a server

    # Not a coroutine, and the next one has no more than it needs: each lives as long as the connection.
    def accept_connection(self, handler: Any) -> Awaitable[None]:
        try:
            self._handle_websocket_headers(handler)
        except ValueError as error:
            opening.refuse(handler, error)
            handler._ws_let_go()
            return nothing()
        return self._accept_connection(handler)

    async def _accept_connection(self, handler: ServerEnd) -> None:
        try:
            if self._answer(handler):
                self.start_pinging()
                await self._open(handler)
                await self._receive_frame_loop()
        except asyncio.CancelledError:
            self._abort()
        finally:
            if not handler._ws_opened:
                handler._ws_let_go()

    def _handle_websocket_headers(self, handler: ServerEnd) -> None:
        """Raise ValueError unless the request is a valid opening handshake."""
        request = handler.request
        handshake.check_request(request.method, request.version, request.headers)

    @staticmethod
    def compute_accept_value(key: str | bytes) -> str:
        """Return the Sec-WebSocket-Accept header for a Sec-WebSocket-Key."""
        return handshake.compute_accept_value(key)

    def _challenge_response(self, handler: ServerEnd) -> str:
        return self.compute_accept_value(handler.request.headers["Sec-WebSocket-Key"])

    def _answer(self, handler: ServerEnd) -> bool:
        """Send the 101, and take the stream from HTTP; return whether the peer is still there."""
        self.selected_subprotocol = opening.select_subprotocol(handler)
        agreed = opening.accept_compression(handler, self.params)
        if agreed is not None:
            self._create_compressors("server", agreed)
        self.stream = opening.accept(handler, self._challenge_response(handler))
        if peer_has_closed(self.stream):
            self._abort()
            return False
        return True

    def _create_compressors(self, side: str, agreed: DeflateParams) -> None:
        codecs = opening.make_codecs(side, agreed, self.params, self._on_stream is not None)
        self._compressor, self._decompressor, self._inflater = codecs

    @property
    def _on_stream(self) -> Callable[[MessageStream], Any] | None:
        """What gets messages in parts, None where they are given as a whole."""
        return getattr(self.handler, "on_message_stream", None)

    async def _open(self, handler: ServerEnd) -> None:
        """Call ``open`` while control frames are handled and messages wait."""
        mark_context(self)
        delivery = self._start_receiving(busy_with=handler.open)
        if delivery is None:
            return
        transport = self._attach()
        try:
            # In the context of all callbacks: a token of one is good in another.
            result = transport.context.run(handler.open, *handler.open_args, **handler.open_kwargs)
            if result is not None:
                await (run_in(transport.context, result) if type(result) is CoroutineType else result)
        except Exception as error:
            self._log_and_abort(error)
        except BaseException:
            self._abort()
            raise
        finally:
            delivery.busy_with = None

    def _begin(self) -> None:
        assert self._delivery is not None
        self._delivery.begin()

    def _cancelled(self) -> None:
        self._abort()
        if self._delivery is not None:
            self._delivery.hurry_cancelled()

    def _cancel_swallowed(self) -> None:
        # The coroutine has a task of its own in Tornado, and where the loop ends both are cancelled.
        task = asyncio.current_task()
        if task is not None and is_ended_by_loop(task):
            self._cancelled()

    # Opening, on a client

    def _process_server_headers(self, key: str | bytes, headers: httputil.HTTPHeaders) -> None:
        """Take the headers of the server's 101. Raises ValueError where they break RFC 6455 or RFC 7692."""
        agreed = opening.check_answer(key, headers, self.params)
        if agreed is not None:
            self._create_compressors("client", agreed)
        self.selected_subprotocol = headers.get("Sec-WebSocket-Protocol")

    @property
    def selected_subprotocol(self) -> str | None:
        return self._selected_subprotocol

    @selected_subprotocol.setter
    def selected_subprotocol(self, value: str | None) -> None:
        self._selected_subprotocol = value

    # Receiving

    def _receive_frame_loop(self) -> Awaitable[None]:
        """Receive until the connection is closed and ``on_close`` has been called."""
        if self._task is not None:
            return self._task
        if self._delivery is None and not self._is_finished and self._start_receiving() is None:
            self._notify_closed()
        return self.wait_closed()

    @property
    def has_ended(self) -> bool:
        """Whether ``on_close`` has been called; a coroutine may not have returned."""
        return self._closing.state is State.ENDED

    def when_ended(self, callback: Callable[[Any], object]) -> None:
        """Have ``callback`` called with this connection, once, when it has ended and before ``on_close`` is."""
        if callback not in self._when_ended:
            self._when_ended += (callback,)

    async def wait_closed(self) -> None:
        # A coroutine on_close that waits here would wait for itself.
        current = asyncio.current_task()
        is_ending = self.has_ended and self._task is not None and self._task.is_task(current)
        if not (self._is_finished or is_ending or current in self._endings):
            if self._closed is None:
                self._closed = Future()
            # Whoever gives up waiting does so for nobody else.
            await asyncio.shield(self._closed)

    def _start_receiving(self, busy_with: object = None) -> Delivery | None:
        """Begin to receive. Returns None where that cannot be, and aborts: HTTP has given the stream up already."""
        try:
            if self.stream.closed():
                raise StreamClosedError(self.stream.error)
            transport = self._attach()
            if self._delivery is None:
                self._make_delivery(transport, busy_with)
            return self._delivery
        except StreamClosedError:
            self._abort()
        except Exception as error:
            self.handling_failed(error)
        return None

    def _make_delivery(self, transport: Transport, busy_with: object) -> None:
        # Not by mask_outgoing: tunnels build servers that mask what they send.
        is_server = isinstance(self.handler, RequestHandler)
        options = self.params.options
        codec = codec_of(options.codec)
        on_stream = self._on_stream
        if on_stream is None:
            recipient = self.handler if codec is None else Decoding(self.handler, codec, self._fail)
            reader = FrameReader(is_server, self.params.max_message_size, self._inflater, options.decode_text)
            delivery = Delivery(self, self._closing, transport, reader, options, recipient, busy_with)
        else:
            # What few programs need is imported for those.
            from tornado_ws.connection.incoming import Incoming

            incoming = Incoming(self.handler, on_stream, self.params, self._fail)
            reader = incoming.make_reader(is_server, self._inflater)
            delivery = Delivery(self, self._closing, transport, reader, options, incoming, busy_with, incoming)
        if busy_with is not None:
            # The task that calls ``open``.
            self._task = ConnectionTask(self, transport)
        if is_server:
            connections_of(self.handler.application).add(self)  # type: ignore[attr-defined]
            self.handler._ws_opened = True  # type: ignore[attr-defined]
        self._delivery = delivery
        if options.max_lifetime is not None or options.idle_timeout is not None:
            self._lifetime = Lifetime(self, options, asyncio.get_running_loop().time())
            deadlines_of(self.stream.io_loop).add(self._lifetime)
        if options.message_rate_limit is not None or options.byte_rate_limit is not None:
            self._rate_limit = RateLimit(options, asyncio.get_running_loop())
        transport.direct = delivery.is_direct()
        transport.start(reader, delivery)

    def eof_received(self, error: Exception | None) -> None:
        assert self._delivery is not None
        self._closing.end_read(End.EOF, error)
        self._delivery.advance()

    def handling_failed(self, error: BaseException) -> None:
        try:
            if isinstance(error, Exception):
                # What the system lacks needs no traceback; anything else may be a fault of ours.
                is_lack = isinstance(error, MemoryError | OSError)
                text = "WebSocket from %s aborted: handling its events raised %r"
                self._log(logging.ERROR, text, error, exc_info=None if is_lack else error)
                if self._observation is not None:
                    self._observation.failed(error)
        finally:
            self._abort()

    def connection_lost(self) -> None:
        self._closing.end_read(End.SOCKET_CLOSED)
        if self._delivery is not None:
            self._delivery.advance()

    def _handle_end(self) -> None:
        """Handle the first end that waits."""
        end, detail = self._closing.next_end()
        if end is End.CLOSE_FRAME:
            self._handle_close(*detail)
        elif end is End.VIOLATION:
            self._fail(detail)
        elif end is End.EOF:
            self._on_eof(detail)
        else:
            self._notify_closed()

    @ReplaceableMethod
    def _handle_message(self, opcode: int, data: bytes) -> Any:
        """Handle one message or control frame; returns what is still busy with it, if anything is."""
        if opcode in (TEXT, BINARY):
            recipient = self._delivery.handler if self._delivery is not None else self.handler
            is_text = opcode == TEXT and self.params.options.decode_text
            return self._run_callback(recipient.on_message, data.decode() if is_text else data)
        if opcode == CLOSE:
            self._closing.end_read(End.CLOSE_FRAME, decode_close(data))
        elif opcode == PING:
            self._control_frames += 1
            if self._pongs is None:
                self._pongs = Pongs(self)
            self._pongs.send(data)
            self._watch_over(self.handler.on_ping, data)
        elif opcode == PONG:
            self._control_frames += 1
            if self._round_trips is not None:
                self._round_trips.answered(data, time.perf_counter())
            self._watch_over(self.handler.on_pong, data)
        return None

    def _begin_result(self, result: Any) -> Any:
        if type(result) is CoroutineType and self._task is not None and self._task.is_free:
            return self._task.run(result)
        return super()._begin_result(result)

    def _go_on(self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, yielded: Any) -> Any:
        assert self._task is not None
        return self._task.go_on(coroutine, context, yielded)

    def _run_to_end(self, hook: str, result: Any) -> asyncio.Future[Any] | None:
        if type(result) is CoroutineType and self._task is not None and self._task.is_free:
            result = self._task.run_to_end(result)
        return super()._run_to_end(hook, result)

    def _watch_over(self, callback: Callable[[bytes], Any], data: bytes) -> None:
        # The connection's own task is for messages: nothing waits for a coroutine on_ping.
        handled = self._run_callback(lambda: _begun(callback(data)))
        if self._delivery is not None:
            self._delivery.watch_over(handled)

    # Writing

    def held_back(self) -> tuple[int, int]:
        """Return how many bytes, of how many writes, wait for a message before them."""
        return self._writing.held_back() if self._writing is not None else (0, 0)

    def _after_messages(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call ``callback`` when every message before is written: at once, if none waits."""
        if self._writing is None:
            callback(*args)
        else:
            self._writing.after_messages(callback, *args)

    def _replace_steps(self) -> None:
        self._steps_replaced = True
        self._out = None
        if self._transport is not None:
            self._transport.direct = self._transport.ahead = False

    def _attach(self) -> Transport:
        if self._transport is None:
            if self.stream.closed():
                raise StreamClosedError(self.stream.error)
            self._transport = Transport(self.stream, self, self.mask_outgoing, self.params.options)
            if frame_log.is_on():
                self._transport.tap = frame_log.FrameTap(self)
            self._transport.context.run(mark_context, self)
            if self._observation is not None:
                tap = self._transport.context.run(self._observation.opened, self)
                if tap is not None:
                    others = self._transport.tap
                    self._transport.tap = tap if others is None else frame_log.Taps(others, tap)
            self._transport.compressor = self._compressor
            self._write_in_steps(False)
        return self._transport

    def _write_in_steps(self, in_steps: bool) -> None:
        if in_steps:
            self._out = None
        elif not self._takes_steps and not self.is_closing() and self.params.options.codec is None:
            self._out = self._transport

    @property
    def _takes_steps(self) -> bool:
        """Whether messages are more than one call into the channel."""
        return (
            self._steps_replaced
            or (self._compressor is not None and self._compressor.offload_size is not None)
            or (self._writing is not None and self._writing.holds_back)
        )

    def _make_writing(self) -> Writing:
        if self._writing is None:
            self._writing = Writing(self)
        return self._writing

    def _write_message(self, message: Sendable, binary: bool, compress: bool) -> Future[None]:
        if self.server_terminated:
            raise WebSocketClosedError()
        codec = codec_of(self.params.options.codec)
        if codec is not None:
            message, binary = encode_with(codec, message)
        ready = sendable(message)
        try:
            transport = self._attach()
            if not self._takes_steps:
                return transport.write_message(ready, binary, compress)
            return self._make_writing().write_message(ready, binary, compress)
        except StreamClosedError:
            raise WebSocketClosedError() from None

    def write_stream(self, binary: bool = False, *, compress: bool = True) -> WriteStream:
        """Send a message in parts; see `.WebSocketHandler.write_stream`."""
        from tornado_ws.connection.write_stream import WriteStream

        if self.is_closing():
            raise WebSocketClosedError()
        return WriteStream(self, self._make_writing(), binary, compress)

    def write_shared(self, shared: SharedMessage) -> bool:
        """Send a message that others get too; returns False where the write limit refuses it. Nobody awaits it.

        Raises what `write_message` does.
        """
        if self.server_terminated:
            raise WebSocketClosedError()
        try:
            return self._make_writing().write_shared(shared)
        except StreamClosedError:
            raise WebSocketClosedError() from None

    def write_together(self, shared: SharedMessages) -> bool:
        """Send messages that others get too in one piece; returns False where they need `write_shared` one by one."""
        try:
            return not self.is_closing() and self._make_writing().write_together(shared)
        except StreamClosedError:
            raise WebSocketClosedError() from None

    def is_behind(self, at_limit: bool = False) -> bool:
        """Whether more than ``write_high_watermark`` bytes wait, for the kernel or for a thread that compresses them.

        With ``at_limit``: whether so many wait that the write limits refuse another message.
        """
        return self._transport is not None and self._transport.is_behind(at_limit)

    def room(self) -> asyncio.Future[None]:
        """Return a Future that is done when what waits now is sent, or all but ``write_low_watermark`` bytes of it.

        It fails with `WebSocketClosedError` where the connection ends before. Only for a connection that `is_behind`.
        """
        return self._writing.room() if self._writing is not None else self._attach().room()

    def count_dropped(self, messages: int) -> None:
        """Count messages that are not sent, since newer ones have taken their place."""
        if self._transport is not None:
            self._transport.dropped += messages

    def write_refused(self, why: str) -> asyncio.Future[None]:
        """A message is not sent, since too many bytes wait already: do what the application has chosen."""
        assert self._transport is not None
        policy = self.params.options.write_limit_policy
        if policy == "raise":
            raise WriteLimitError(why)
        if policy == "drop":
            self._transport.dropped += 1
            return self.room()
        # "latest" is about messages of topics, which are not written while they have to wait. No other may be lost.
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

    # Closing

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Start the closing handshake, or finish it.

        Raises ValueError, with nothing changed, for a code below 5000 that may not be sent and for a reason of more
        than 123 bytes (RFC 6455 sections 5.5 and 7.4). Applications have codes of their own from 5000 on, in no
        range of the RFC: those are sent as 1008, with a warning in the log. Raises RuntimeError in another thread than
        the connection's.
        """
        if self._transport is not None:
            self._transport.check_thread()
        payload = b""
        if not self.server_terminated:
            if code is not None and code >= 5000:
                text = "WebSocket from %s: close code %d, which RFC 6455 does not have, is sent as %d"
                self._log(logging.WARNING, text, code, POLICY_VIOLATION)
                code = POLICY_VIOLATION
            payload = encode_close(code, reason)
        before = self._closing.close()
        self._out = None
        if before.sends:
            self._after_messages(self._write_close, payload)
        self._stop_pinging()
        if before.peer_ended:
            self._stop_waiting()
            if self._transport is not None:
                self._after_messages(self._transport.close_gracefully)
        elif self._close_timeout is None:
            seconds = self.params.options.close_timeout
            self._close_timeout = CloseTimeout(self.stream, self._taken, seconds, self._on_close_timeout)
            if self._delivery is not None:
                self._delivery.hurry()
                if not self._attach().reading:
                    # The peer's close frame may be behind messages that we had stopped reading for.
                    self.stream.io_loop.add_callback(self._attach().dispatch, self._delivery.advance)

    def _write_close(self, payload: bytes) -> None:
        if self.stream is not None and not self.stream.closed():
            self._write_frame(True, CLOSE, payload)

    def _taken(self) -> int:
        return self._transport.taken() if self._transport is not None else 0

    def _stop_waiting(self) -> None:
        if self._close_timeout is not None:
            self._close_timeout.stop()
            self._close_timeout = None

    def close_when_handled(self, code: int | None, reason: str | None) -> None:
        """Close when all that has been received is handled. What arrives after that is not delivered any more."""
        if self._delivery is None or self.has_ended:
            return
        transport = self._attach()
        if self._delivery.close_when_drained is None:
            # A last look at what has arrived and is not read.
            transport.begin()
            self._delivery.end_rest()
            transport.handle_events()
        self._delivery.close_when_drained = code, reason
        transport.dispatch(self._delivery.advance)

    def abort_with(self, code: int | None, reason: str | None) -> None:
        """Abort, after a close frame that nobody waits for."""
        if not self.stream.closed():
            self.close(code, reason)
            self._on_close_timeout()

    def _on_close_timeout(self) -> None:
        self._stop_waiting()
        if self._closing.time_out():
            self._abort()
        else:
            # The peer has answered in time; it is our application that is busy.
            self._handle_end()

    def _handle_close(self, code: int | None, reason: str | None) -> None:
        self.close_code, self.close_reason = code, reason
        self._closing.was_clean = True
        self._stop_receiving()
        # Section 5.5.1: the answer echoes the code.
        self.close(code)

    def _fail(self, error: ProtocolError) -> None:
        """Fail the connection (section 7.1.7): the one place where a violation turns into a close frame."""
        # Going over a limit is legal, and Tornado's tests want no line above DEBUG for it.
        level = logging.DEBUG if error.close_code == MESSAGE_TOO_BIG else logging.INFO
        self._log(level, "WebSocket from %s failed with %d: %s", error.close_code, error)
        self.close_code = error.close_code
        self.close_reason = error.reason
        self._stop_receiving()
        self.close(error.close_code, error.reason)

    def _log_and_abort(self, error: BaseException) -> None:
        code = self.params.options.error_close_code
        if code is None or self._transport is None or self.server_terminated:
            super()._log_and_abort(error)
            return
        log_error(self.handler, error)
        self._closing.reported = code, None
        # What was received behind it is not delivered.
        self.client_terminated = True
        self.close(code)

    def _on_eof(self, error: Exception | None) -> None:
        """The peer closed its side of the connection, or it broke: there is nobody left to shake hands with."""
        self._stop_receiving()
        self.server_terminated = True
        if error is not None:
            self.stream.close(exc_info=error)
        self.stream.close()
        self.close()

    def _notify_closed(self) -> None:
        self._stop_receiving()
        if self._delivery is not None:
            self._delivery.reader.close()
        if self._writing is not None:
            self._writing.give_up_streams()
        self._stop_waiting()
        self._stop_pinging()
        if self._lifetime is not None:
            deadlines_of(self.stream.io_loop).give_up(self._lifetime)
            self._lifetime = None
        if self._rate_limit is not None:
            self._rate_limit.stop()
        if self._transport is not None:
            self._transport.record_counts()
        if self._closing.state is not State.ENDED:
            self._closing.on(Event.FINISH)
            for callback in self._when_ended:
                try:
                    callback(self)
                except Exception as error:
                    log_error(self.handler, error)
            code, reason = self._closing.for_on_close()
            if self._observation is not None:
                self._observation.closed(code, reason)
            try:
                result = self.handler.on_ws_connection_close(code, reason)
                if result is not None:
                    self._run_to_end("on_ws_connection_close", result)
            except Exception as error:
                log_error(self.handler, error)
            finally:
                # The loop that an exit or an interrupt ends waits for the task.
                self._finish()

    def on_connection_close(self) -> None:
        # The handler calls it at every end. When this connection has told it of its own, nothing is left to abort.
        if self._closing.state is not State.ENDED or not self.stream.closed():
            super().on_connection_close()

    def _on_ending_done(self, ending: asyncio.Future[Any]) -> None:
        super()._on_ending_done(ending)
        self._finish()

    def _finish(self) -> None:
        """Tell those who wait for the end, once ``on_close`` was called and has returned."""
        if self._closing.state is not State.ENDED or self._is_finished or self._endings:
            return
        self._is_finished = True
        if isinstance(self.handler, RequestHandler):
            connections_of(self.handler.application).remove(self)
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        if self._task is not None:
            self._task.end()
        self._let_go()

    def _let_go(self) -> None:
        """Leave no reference cycle, so that what has ended is freed at once, the application's objects among it."""
        if self._transport is not None:
            self._final_sums = self._transport.release()
        if self._delivery is not None:
            self._delivery.release()
        self._transport = self._delivery = self._task = self._writing = self._pongs = self._rate_limit = None

    def set_nodelay(self, x: bool) -> None:
        self.stream.set_nodelay(x)

    # Keepalive

    @property
    def ping_interval(self) -> float:
        return self.params.ping_interval or 0

    @property
    def ping_timeout(self) -> float:
        return keepalive.ping_timeout(self.params)

    @staticmethod
    def ping_sleep_time(*, last_ping_time: float, interval: float, now: float) -> float:
        return keepalive.ping_sleep_time(last_ping_time=last_ping_time, interval=interval, now=now)

    def start_pinging(self) -> None:
        """Send pings every ``ping_interval`` seconds, unless it is zero."""
        if self._keepalive is not None or self._ping_coroutine is not None or not self.ping_interval > 0:
            return
        if type(self).periodic_ping is not _periodic_ping:
            self._ping_coroutine = asyncio.get_event_loop().create_task(self.periodic_ping())
        else:
            self._keepalive = self._make_keepalive()
            deadlines_of(self.stream.io_loop).add(self._keepalive)

    async def periodic_ping(self) -> None:
        """Do what `start_pinging` begins, in a task; called for who has overridden it."""
        clock = asyncio.get_running_loop().time
        pings = self._make_keepalive()
        goes_on = True
        while goes_on:
            await asyncio.sleep(max(0, pings.due - clock()))
            goes_on = pings.on_due(clock())

    def _make_keepalive(self) -> Keepalive:
        now = asyncio.get_running_loop().time()
        return Keepalive(self, self.ping_interval, self.ping_timeout, now)

    def _stop_pinging(self) -> None:
        if self._ping_coroutine is not None:
            self._ping_coroutine.cancel()
            self._ping_coroutine = None
        if self._keepalive is not None:
            deadlines_of(self.stream.io_loop).give_up(self._keepalive)
            self._keepalive = None

    def _signs_of_life(self) -> keepalive.Signs:
        transport = self._transport
        if transport is None:
            return keepalive.Signs(False, None, 0, 0, unread(self.stream))
        read: object = self._wire_bytes_in
        if self._delivery is not None and self._steps_replaced:
            reader = self._delivery.reader
            # Whoever replaces `_handle_message` may keep from us what was read; a test of Tornado's does so with pongs.
            read = self._control_frames, reader.messages, reader.wire_bytes if reader.in_message else 0
        unsent = transport.buffered
        return keepalive.Signs(transport.reading, read, self._wire_bytes_out - unsent, unsent, unread(self.stream))

    def _send_keepalive_ping(self) -> None:
        self.write_ping(self._round_trips.next_payload() if self._round_trips is not None else b"")

    def _give_up(self, reason: str) -> None:
        """End the connection with a peer that is probably gone, without waiting for its close frame.

        The frame is sent all the same, with Tornado's code: the peer may hear us though we do not hear it.
        """
        # It is what calls this, and ends by itself.
        self._ping_coroutine = self._keepalive = None
        self._log(logging.DEBUG, "WebSocket from %s given up: %s", reason)
        self._closing.reported = (ABNORMAL_CLOSURE, reason)
        self.close_code, self.close_reason = NORMAL_CLOSURE, reason
        self.client_terminated = True
        transport = self._attach()
        unsent = transport.buffered
        self.close(reason=reason)
        if unsent:
            transport.close()


#: Before anybody can have put another one in its place, for all connections.
_periodic_ping = WebSocketProtocol13.periodic_ping


def _begun(result: Any) -> Any:
    """Return what a callback has returned, a coroutine as a task of its own."""
    return asyncio.ensure_future(result) if type(result) is CoroutineType else result
