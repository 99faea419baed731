"""One open connection (RFC 6455): messages in order, control frames, the closing handshake.

A `WebSocketProtocol13` stands between an end (`handler` or `client`: whoever has ``on_message`` and the rest of
`_WebSocketDelegate`) and a `Transport`. `closing.State` is its state. Tornado's two flags, which applications read and
set, are made of it: in ``client_terminated`` "client" is the peer, in ``server_terminated`` "server" is this side, on a
client connection too.

What arrives goes one way: the transport reads bytes, and `WebSocketProtocol13.advance` takes what the engine made of
them, one event at a time. Control frames are handled at once. Messages are delivered in order, one at a time: while the
application is busy with one (a coroutine ``on_message``, or a client that has not read on) the next ones wait in a
bounded queue. An end (close frame, violation, loss of the connection) is handled when all the messages before it have
been.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import time
from collections.abc import Coroutine
from typing import Any

from tornado.concurrent import Future
from tornado.escape import utf8
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from tornado_ws.close_codes import (
    ABNORMAL_CLOSURE,
    MESSAGE_TOO_BIG,
    NORMAL_CLOSURE,
    POLICY_VIOLATION,
    decode_close,
    encode_close,
)
from tornado_ws.connection import keepalive
from tornado_ws.connection.closing import CloseAction, End, Event, State
from tornado_ws.connection.interfaces import ServerEnd, Turn, _WebSocketDelegate, _WebSocketParams
from tornado_ws.connection.read_ahead import ReadAhead
from tornado_ws.connection.registry import connections_of
from tornado_ws.connection.replaceable import ReplaceableMethod, all_replaceable
from tornado_ws.connection.writing import Writing
from tornado_ws.coroutines import log_error
from tornado_ws.engine import FrameReader
from tornado_ws.engine.contract import (
    BINARY,
    BUDGET_SPENT,
    CLOCK_SIZE,
    CLOCK_STRIDE,
    CLOSE,
    DEFERRED,
    FIN,
    MESSAGES_PER_TURN,
    PENDING,
    PING,
    PONG,
    RAISED,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    TURN_TIME,
    VIOLATION,
    Outcome,
)
from tornado_ws.errors import ProtocolError
from tornado_ws.observing.logs import mark_context
from tornado_ws.transport.stream import unread
from tornado_ws.transport.transport import Transport

#: Seconds that an end of the connection waits for the application to be done with a message before it.
_BUSY_TIMEOUT = 0.05
#: Coroutines ``on_ping`` and ``on_pong`` of one connection that may be under way; then reading stops.
_MOST_WATCHED = 1000
#: How often ``close_timeout`` is divided, to see whether the peer takes what waits.
_CLOSE_CHECKS = 4


class WebSocketProtocol13(Writing):
    """The protocol of RFC 6455, version 13, for one connection of either side.

    ``mask_outgoing`` is true on a client. The constructor and the methods without a docstring are Tornado's.
    """

    FIN = FIN
    RSV1 = RSV1
    RSV2 = RSV2
    RSV3 = RSV3
    RSV_MASK = RSV1 | RSV2 | RSV3
    OPCODE_MASK = 0x0F

    _control_frames = 0
    #: Callbacks that nothing waits for and that are not done.
    _watched = 0
    #: Code and reason of the close frame that follows when all that was received is handled.
    _close_when_drained: tuple[int | None, str | None] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._steps_replaced = not all_replaceable(cls, "_handle_message", "_write_frame")

    def __init__(self, handler: _WebSocketDelegate, mask_outgoing: bool, params: _WebSocketParams) -> None:
        self._reader: FrameReader | None = None
        super().__init__(handler, mask_outgoing, params)
        self._busy_with: object = None
        self._read_ahead: ReadAhead | None = None
        self._is_finished = False
        self._closed: Future[None] | None = None
        self._close_timeout: object = None
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
        if self._reader is not None:
            self._reader.stop()

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

    # Opening

    async def _open(self, handler: ServerEnd) -> None:
        """Call ``open`` while control frames are handled and messages wait."""
        self._busy_with = handler.open
        mark_context(self)
        transport = self._start_receiving()
        if transport is None:
            return
        try:
            result = handler.open(*handler.open_args, **handler.open_kwargs)
            if result is not None:
                await result
        except Exception as error:
            self._log_and_abort(error)
        except BaseException:
            self._abort()
            raise
        finally:
            self._busy_with = None
        # What prepare and open set is visible in on_message: in Tornado they all run in one task.
        transport.context = contextvars.copy_context()
        transport.dispatch(self.advance)

    # Receiving

    async def _receive_frame_loop(self) -> None:
        """Receive until the connection is closed and ``on_close`` has been called."""
        if self._reader is None and self._start_receiving() is None:
            self._notify_closed()
        await self.wait_closed()

    @property
    def has_ended(self) -> bool:
        """Whether ``on_close`` has been called; a coroutine may not have returned."""
        return self._closing.state is State.ENDED

    async def wait_closed(self) -> None:
        # A coroutine on_close that waits here would wait for itself.
        if not (self._is_finished or asyncio.current_task() in self._endings):
            if self._closed is None:
                self._closed = Future()
            # Whoever gives up waiting does so for nobody else.
            await asyncio.shield(self._closed)

    def _start_receiving(self) -> Transport | None:
        """Begin to receive. Returns None where that cannot be, and aborts: HTTP has given the stream up already."""
        try:
            if self.stream.closed():
                raise StreamClosedError(self.stream.error)
            transport = self._attach()
            if self._reader is None:
                self._make_reader(transport)
        except StreamClosedError:
            self._abort()
        except Exception as error:
            self.handling_failed(error)
        else:
            return transport
        return None

    def _make_reader(self, transport: Transport) -> None:
        # Not by mask_outgoing: tunnels build servers that mask what they send.
        is_server = isinstance(self.handler, RequestHandler)
        reader = FrameReader(is_server, self.params.max_message_size, self._inflater)
        if is_server:
            connections_of(self.handler.application).add(self)  # type: ignore[attr-defined]
            self.handler._ws_opened = True  # type: ignore[attr-defined]
        self._reader = reader
        transport.direct = self._is_direct()
        transport.start(reader)

    def _is_direct(self) -> bool:
        """Whether messages may go straight from the reader to the application."""
        return (
            self._busy_with is None
            and not self._read_ahead
            and self._closing.state.receives
            and not self._steps_replaced
            and self._close_when_drained is None
        )

    def eof_received(self, error: Exception | None) -> None:
        self._closing.end_read(End.EOF, error)
        self.advance()

    def handling_failed(self, error: BaseException) -> None:
        try:
            if isinstance(error, Exception):
                # What the system lacks needs no traceback; anything else may be a fault of ours.
                is_lack = isinstance(error, MemoryError | OSError)
                text = "WebSocket from %s aborted: handling its events raised %r"
                self._log(logging.ERROR, text, error, exc_info=None if is_lack else error)
        finally:
            self._abort()

    def connection_lost(self) -> None:
        self._closing.end_read(End.SOCKET_CLOSED)
        if self._reader is not None:
            self.advance()

    def advance(self, outcome: Outcome | None = None) -> None:
        """Handle what has arrived, as far as the application and the loop allow."""
        assert self._transport is not None
        self._transport.direct = False
        closing = self._closing
        until = 0.0
        is_large = False
        for count in range(MESSAGES_PER_TURN):
            if is_large or (count and not count & CLOCK_STRIDE):
                now = time.monotonic()
                if not until:
                    until = now + TURN_TIME
                elif now > until:
                    break
            if outcome is None:
                if self._busy_with is None:
                    if self._read_ahead and closing.state.delivers:
                        self._deliver(*self._read_ahead.get())
                        continue
                    if closing.end_waits:
                        self._wait_for(self._open_turn())
                        if self._busy_with is None:
                            self._handle_end()
                            continue
                if not closing.state.receives:
                    self._transport.pause_reading()
                    self._hurry()
                    return
                if self._is_behind() and not self._drops_messages:
                    self._transport.pause_reading()
                    return
                outcome = self._next_outcome()
                if outcome is None:
                    if self._close_when_drained is not None and not self.server_terminated:
                        self._transport.pause_reading()
                        if self._busy_with is not None:
                            return
                        self.close(*self._close_when_drained)
                    self._transport.direct = self._is_direct()
                    self._transport.resume_reading()
                    return
            if outcome[0] == BUDGET_SPENT:
                break
            self._handle_outcome(*outcome)
            is_large = outcome[2] >= CLOCK_SIZE
            outcome = None
        # The rest of a long chunk: whatever else is ready on this loop comes first.
        self._transport.go_on_later(self.advance)

    def _is_behind(self) -> bool:
        """Whether the application has so much under way that reading stops."""
        return self._watched >= _MOST_WATCHED or (self._read_ahead is not None and self._read_ahead.is_full())

    def _next_outcome(self) -> Outcome | None:
        assert self._reader is not None
        if self._is_direct():
            return self._reader.deliver(self.handler, MESSAGES_PER_TURN, True)
        try:
            return next(iter(self._reader))
        except ProtocolError as error:
            return VIOLATION, error, 0

    def _handle_outcome(self, opcode: int, payload: Any, size: int) -> None:
        if CLOSE <= opcode < DEFERRED:
            try:
                self._handle_message(opcode, payload)
            except ProtocolError as error:
                self._closing.end_read(End.VIOLATION, error)
        elif opcode == PENDING:
            self._wait_for(self._check_result(payload))
        elif opcode == RAISED:
            self._log_and_abort(payload[1])
        elif opcode == VIOLATION:
            self._closing.end_read(End.VIOLATION, payload)
        elif self._close_when_drained is not None and self.server_terminated:
            # Nobody could answer it.
            pass
        elif self._busy_with is None:
            self._deliver(opcode, payload, size)
        else:
            if self._read_ahead is None:
                self._read_ahead = ReadAhead(self.params.options)
            if not self._read_ahead.is_full() or not self._drops_messages:
                self._read_ahead.put((opcode, payload, size))

    @property
    def _drops_messages(self) -> bool:
        """Whether a client's application has closed: it need not take what is left, behind which the close frame is."""
        return self.server_terminated and isinstance(self._busy_with, Turn)

    def _open_turn(self) -> Turn | None:
        """Return what a client's application reads from, if it has its turn with a message."""
        queue = getattr(self.handler, "read_queue", None)
        return queue if isinstance(queue, Turn) and queue.is_open else None

    def _hurry(self) -> None:
        """An end waits for the application: for a moment, or not at all if a client's application has closed."""
        if isinstance(self._busy_with, Turn):
            if self._closing.end_waits:
                if self.server_terminated:
                    IOLoop.current().add_callback(self._busy_with.end_turn)
                else:
                    self._busy_with.hurry()
        elif self._closing.peer_end_waits:
            IOLoop.current().call_later(_BUSY_TIMEOUT, self._end_while_busy, self._busy_with)

    def _end_while_busy(self, handling: object) -> None:
        """Handle the end, which waits behind a message that the application is still busy with.

        The application goes on, what it writes fails, and ``on_close`` waits for it.
        """
        if self._closing.peer_end_waits and self._busy_with is handling:
            self._handle_end()

    def _handle_end(self) -> None:
        """Handle the first end that waits."""
        end, detail = self._closing.next_end()
        if end is End.CLOSE_FRAME:
            self._handle_close(detail)
        elif end is End.VIOLATION:
            self._fail(detail)
        elif end is End.EOF:
            self._on_eof(detail)
        else:
            self._notify_closed()

    def _deliver(self, opcode: int, payload: Any, size: int) -> None:
        assert self._reader is not None
        if opcode >= DEFERRED:
            rest, begun = payload
            self._busy_with = inflating = rest.inflate(opcode ^ DEFERRED, begun)
            inflating.add_done_callback(functools.partial(self._on_inflated, opcode ^ DEFERRED))
            return
        self._reader.messages += 1
        self._reader.message_bytes += size
        if self._steps_replaced:
            self._wait_for(self._handle_message(opcode, utf8(payload)))
        else:
            self._wait_for(self._run_callback(self.handler.on_message, payload))

    def _wait_for(self, handled: Any) -> None:
        if handled is not None:
            self._busy_with = handled
            handled.add_done_callback(self._on_handled)

    def _watch_over(self, handled: Any) -> None:
        """Let a callback that nothing waits for go on by itself."""
        if handled is not None:
            self._watched += 1
            handled.add_done_callback(self._on_watched)

    def _on_watched(self, handled: Any) -> None:
        self._check_handled(handled)
        self._watched -= 1
        if self._watched == _MOST_WATCHED - 1 and self._transport is not None:
            self._transport.dispatch(self.advance)

    def _check_handled(self, handled: Any) -> None:
        if not isinstance(handled, Turn):
            try:
                handled.result()
            except (Exception, asyncio.CancelledError) as error:
                self._log_and_abort(error)
            except BaseException:
                # Its task has raised it already.
                self._abort()

    def _on_handled(self, handled: Any) -> None:
        self._check_handled(handled)
        self._busy_with = None
        assert self._transport is not None
        self._transport.dispatch(self.advance)

    def _on_inflated(self, opcode: int, inflated: asyncio.Future[tuple[str | bytes, int]]) -> None:
        """A thread has inflated the message whose turn it is."""
        assert self._transport is not None
        self._busy_with = None
        if self._closing.state.delivers:
            try:
                self._transport.dispatch(self._deliver, opcode, *inflated.result())
            except ProtocolError as error:
                # What came behind it does not count.
                self._closing.on(Event.GIVE_UP)
                self._fail(error)
            except Exception as error:
                self._log_and_abort(error)
        self._transport.dispatch(self.advance)

    @ReplaceableMethod
    def _handle_message(self, opcode: int, data: bytes) -> Any:
        """Handle one message or control frame; returns what is still busy with it, if anything is."""
        if opcode == TEXT:
            return self._run_callback(self.handler.on_message, data.decode())
        if opcode == BINARY:
            return self._run_callback(self.handler.on_message, data)
        if opcode == CLOSE:
            decode_close(data)
            self._closing.end_read(End.CLOSE_FRAME, data)
        elif opcode == PING:
            self._control_frames += 1
            self._send_pong(data)
            self._watch_over(self._run_callback(self.handler.on_ping, data))
        elif opcode == PONG:
            self._control_frames += 1
            if self._round_trips is not None:
                self._round_trips.answered(data, time.perf_counter())
            self._watch_over(self._run_callback(self.handler.on_pong, data))
        return None

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
        action = self._closing.close()
        self._out = None
        if CloseAction.SEND_CLOSE_FRAME in action:
            self._after_messages(self._write_close, payload)
        self._stop_pinging()
        if CloseAction.CLOSE_SOCKET in action:
            self._stop_waiting()
            if self._transport is not None:
                self._after_messages(self._transport.close_gracefully)
        elif self._close_timeout is None:
            self._await_close_frame()
            self._hurry()
            if self._transport is not None and not self._transport.reading:
                # The peer's close frame may be behind messages that we had stopped reading for.
                IOLoop.current().add_callback(self._transport.dispatch, self.advance)

    def _write_close(self, payload: bytes) -> None:
        if self.stream is not None and not self.stream.closed():
            self._write_frame(True, CLOSE, payload)

    def _await_close_frame(self, taken: int | None = None, deadline: float = 0.0) -> None:
        """Give the peer up when it has neither closed nor taken anything of what waits for ``close_timeout`` seconds.

        It had taken ``taken`` bytes the last time; ``deadline`` is in the loop's time.
        """
        io_loop = IOLoop.current()
        timeout = self.params.options.close_timeout
        now = io_loop.asyncio_loop.time()  # type: ignore[attr-defined]
        before, taken = taken, self._transport.taken() if self._transport is not None else 0
        if taken != before:
            deadline = now + timeout
        # Its close frame may lie unread, if the loop stood still. One that sends without end is not waited for.
        elif now >= deadline and (now >= deadline + timeout or unread(self.stream) is None):
            self._on_close_timeout()
            return
        pause = timeout / _CLOSE_CHECKS
        if deadline > now:
            pause = min(pause, deadline - now)
        self._close_timeout = io_loop.call_later(pause, self._await_close_frame, taken, deadline)

    def _stop_waiting(self) -> None:
        if self._close_timeout is not None:
            IOLoop.current().remove_timeout(self._close_timeout)
            self._close_timeout = None

    def close_when_handled(self, code: int | None, reason: str | None) -> None:
        """Close when all that has been received is handled. What arrives after that is not delivered any more."""
        if self._transport is None or self.has_ended:
            return
        if self._close_when_drained is None:
            # A last look at what has arrived and is not read.
            self._transport.begin()
            self._transport.handle_events()
        self._close_when_drained = code, reason
        self._transport.dispatch(self.advance)

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

    def _handle_close(self, payload: bytes) -> None:
        self.close_code, self.close_reason = decode_close(payload)
        self._closing.was_clean = True
        self._stop_receiving()
        # Section 5.5.1: the answer echoes the code.
        self.close(self.close_code)

    def _fail(self, error: ProtocolError) -> None:
        """Fail the connection (section 7.1.7): the one place where a violation turns into a close frame."""
        # Going over a limit is legal, and Tornado's tests want no line above DEBUG for it.
        level = logging.DEBUG if error.close_code == MESSAGE_TOO_BIG else logging.INFO
        self._log(level, "WebSocket from %s failed with %d: %s", error.close_code, error)
        self.close_code = error.close_code
        self.close_reason = error.reason
        self._stop_receiving()
        self.close(error.close_code, error.reason)

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
        self._stop_waiting()
        self._stop_pinging()
        if self._transport is not None:
            # The application hears of the end also where there is no memory to count.
            with contextlib.suppress(MemoryError):
                self._transport.record_counts()
        if not self.has_ended:
            self._closing.on(Event.FINISH)
            code, reason = self._closing.for_on_close()
            try:
                self._run_to_end("on_ws_connection_close", self.handler.on_ws_connection_close(code, reason))
            except Exception as error:
                log_error(self.handler, error)
            self._finish()

    def _on_ending_done(self, ending: asyncio.Future[Any]) -> None:
        super()._on_ending_done(ending)
        self._finish()

    def _finish(self) -> None:
        """Tell those who wait for the end, once ``on_close`` was called and has returned."""
        if not self.has_ended or self._is_finished or self._endings:
            return
        self._is_finished = True
        if isinstance(self.handler, RequestHandler):
            connections_of(self.handler.application).remove(self)
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

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
        if self._ping_coroutine is None and self.ping_interval > 0:
            self._ping_coroutine = asyncio.get_event_loop().create_task(self.periodic_ping())

    def periodic_ping(self) -> Coroutine[Any, Any, None]:
        return keepalive.keep_alive(self, self.ping_interval, self.ping_timeout)

    def _stop_pinging(self) -> None:
        if self._ping_coroutine is not None:
            self._ping_coroutine.cancel()
            self._ping_coroutine = None

    def _signs_of_life(self) -> keepalive.Signs:
        transport = self._transport
        if transport is None:
            return keepalive.Signs(False, None, 0, 0, unread(self.stream))
        reader = self._reader
        read: object = self._wire_bytes_in
        if reader is not None and self._steps_replaced:
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
        self._ping_coroutine = None
        self._log(logging.DEBUG, "WebSocket from %s given up: %s", reason)
        self._closing.reported = (ABNORMAL_CLOSURE, reason)
        self.close_code, self.close_reason = NORMAL_CLOSURE, reason
        self.client_terminated = True
        transport = self._attach()
        unsent = transport.buffered
        self.close(reason=reason)
        if unsent:
            transport.close()
