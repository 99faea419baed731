"""The way in of one connection: events of the reader become calls of the application, in order.

Control frames are handled at once. Messages are delivered one at a time: while the application is busy with one (a
coroutine ``on_message``, or a client that has not read on) the next ones wait in a bounded queue. An end (close frame,
violation, loss of the connection) is handled when all the messages before it have been.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from tornado.escape import utf8
from tornado.ioloop import IOLoop

from tornado_ws.connection.closing import Closing, End, Event, State
from tornado_ws.connection.interfaces import Turn, WebSocketDelegate
from tornado_ws.connection.limited_reading import read_within
from tornado_ws.connection.rate_limit import RateLimit
from tornado_ws.connection.rest import Rest
from tornado_ws.connection.watched import Watched, check_handled
from tornado_ws.engine import FrameReader, ReadAhead
from tornado_ws.engine.contract import (
    BUDGET_SPENT,
    CLOCK_SIZE,
    CLOCK_STRIDE,
    CLOSE,
    DEFERRED,
    LAST,
    MESSAGES_PER_TURN,
    PART,
    PENDING,
    RAISED,
    SUSPENDED,
    TURN_TIME,
    VIOLATION,
    Outcome,
)
from tornado_ws.engine.validation import checked_text, decode_text
from tornado_ws.errors import ProtocolError
from tornado_ws.options import Options
from tornado_ws.transport.transport import Transport

if TYPE_CHECKING:
    from tornado_ws.connection.incoming import Incoming

#: Seconds that an end of the connection waits for the application to be done with a message before it.
_BUSY_TIMEOUT = 0.05


class Recipient(Protocol):
    """What messages are given to."""

    def on_message(self, message: Any) -> Any: ...


class Owner(Protocol):
    """The connection that a `Delivery` is a part of."""

    handler: WebSocketDelegate
    #: Whether every message and control frame goes to `_handle_message`, which somebody has replaced.
    _steps_replaced: bool
    #: What the peer may send in a second, None where that has no limit. Few connections have one.
    _rate_limit: RateLimit | None

    def _handle_message(self, opcode: int, data: bytes) -> Any:
        """Handle a message or a control frame; return what is still busy with it. Raises `ProtocolError`."""

    def _handle_end(self) -> None:
        """Handle the first end that waits."""

    def _run_callback(self, callback: Callable[..., Any], *args: Any) -> Any:
        """Call into the application; return what is still busy with it."""

    def _check_result(self, result: Any) -> Any:
        """Return what is still busy, of what a callback has returned."""

    def _go_on(self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, yielded: Any) -> Any:
        """Go on with a coroutine of a callback's, which waits for ``yielded``; return what is still busy."""

    def _log_and_abort(self, error: BaseException) -> None:
        """Log what a callback has raised, and abort."""

    def _abort(self) -> None:
        """Close the socket at once."""

    def _fail(self, error: ProtocolError) -> None:
        """Fail the connection."""

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Start the closing handshake."""


class Delivery:
    """Delivers what a reader makes of the bytes that its channel receives."""

    __slots__ = (
        "_closing",
        "_incoming",
        "_inflating",
        "_options",
        "_owner",
        "_read_ahead",
        "_rest",
        "_transport",
        "_watched",
        "busy_with",
        "close_when_drained",
        "handler",
        "reader",
    )

    def __init__(
        self,
        owner: Owner,
        closing: Closing,
        transport: Transport,
        reader: FrameReader,
        options: Options,
        recipient: Recipient,
        busy_with: object,
        incoming: Incoming | None = None,
    ) -> None:
        """Deliver no message while ``busy_with`` is not None. ``incoming`` takes messages that are read in parts."""
        self._owner = owner
        self._closing = closing
        self._transport = transport
        self._options = options
        #: What messages are given to: the handler or client, or what decodes them for it.
        self.handler = recipient
        self.reader = reader
        self.busy_with = busy_with
        self._incoming = incoming
        if incoming is not None:
            incoming.go_on = functools.partial(transport.go_on_later, self.advance)
        self._read_ahead: ReadAhead | None = None
        self._rest: Rest | None = None
        #: What a thread has to inflate before the application gets it; it is then what the connection is busy with.
        self._inflating: asyncio.Future[Any] | None = None
        #: Coroutines ``on_ping`` and ``on_pong``.
        self._watched: Watched | None = None
        #: Code and reason of the close frame that follows when all that was received is handled.
        self.close_when_drained: tuple[int | None, str | None] | None = None

    def is_direct(self) -> bool:
        """Whether messages may go straight from the reader to the application, without asking here."""
        return self.busy_with is None and self._owner._rate_limit is None and self._delivers_at_once()

    def _delivers_at_once(self) -> bool:
        """Whether messages have to wait for nothing but what the application is busy with."""
        return (
            not self._read_ahead
            and self._closing.state.receives
            and not self._owner._steps_replaced
            and self.close_when_drained is None
        )

    def begin(self) -> None:
        """The application is no longer busy with the opening: deliver what has come meanwhile. Most often nothing."""
        is_idle = self._closing.state is State.OPEN and not self._closing.pending and self.close_when_drained is None
        if is_idle and not self.reader.wire_bytes:
            self._transport.direct = self.is_direct()
        else:
            self._transport.dispatch(self.advance)

    def advance(self, outcome: Outcome | None = None) -> None:
        """Handle what has arrived, as far as the application and the loop allow."""
        self._transport.direct = self._transport.ahead = False
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
                if self.busy_with is None and self._handle_waiting():
                    continue
                outcome = self._next_outcome()
                if outcome is None:
                    return
            if outcome[0] == BUDGET_SPENT:
                break
            self._handle_outcome(*outcome)
            is_large = outcome[2] >= CLOCK_SIZE
            outcome = None
        # The rest of a long chunk: whatever else is ready on this loop comes first.
        self._transport.go_on_later(self.advance)

    def _handle_waiting(self) -> bool:
        """Handle a message that waits, or else the end; return whether there was one."""
        if self._read_ahead and self._closing.state.delivers:
            self._deliver_first(self._read_ahead)
            return True
        if self._closing.pending:
            # A client's application may have its turn with a message.
            queue = getattr(self._owner.handler, "read_queue", None)
            if isinstance(queue, Turn) and queue.is_open:
                self._wait_for(queue)
            if self.busy_with is None:
                self._owner._handle_end()
                return True
        return False

    def _next_outcome(self) -> Outcome | None:
        """Return what the reader has next; None where it has nothing, or is not asked since reading has to stop."""
        transport = self._transport
        if not self._closing.state.receives:
            if transport.reading:
                transport.pause_reading()
            if self._closing.pending or self._incoming is not None:
                self.hurry()
            return None
        if self._pauses_behind():
            return None
        limit = self._owner._rate_limit
        outcome = self.read(MESSAGES_PER_TURN) if limit is None else self._read_within(limit)
        if outcome is None:
            if self._pauses_behind():
                return None
            if self.close_when_drained is not None and self._closing.state.sends:
                transport.pause_reading()
                if self._incoming is not None:
                    self._incoming.lose(*self.close_when_drained)
                if self.busy_with is not None:
                    return None
                self._owner.close(*self.close_when_drained)
            transport.direct = self.is_direct()
            transport.ahead = self._is_ahead()
            if limit is not None and limit.pauses:
                transport.pause_reading()
            elif transport.ahead and self._has_enough():
                self._begin_rest()
            elif not transport.reading:
                transport.resume_reading()
        return outcome

    def _has_enough(self) -> bool:
        """Whether reading rests: from when enough messages wait until there is one."""
        assert self._read_ahead is not None
        return self._read_ahead.has_enough() or self._rests

    @property
    def _rests(self) -> bool:
        return self._rest is not None and self._read_ahead is not None and self._rest.goes_on(len(self._read_ahead))

    def _begin_rest(self) -> None:
        if self._rest is None:
            self._rest = Rest(self._transport, self._may_read)
        self._rest.begin()

    def end_rest(self) -> None:
        """Read what has come while reading rested."""
        if self._rest is not None:
            self._rest.end()

    def _may_read(self) -> bool:
        return self._closing.state.receives and not self._is_behind()

    def _pauses_behind(self) -> bool:
        """Stop reading if the application is behind; return whether it is."""
        if not self._is_behind() or self._drops_messages:
            return False
        self._transport.pause_reading()
        self._transport.ahead = self._is_ahead()
        return True

    def _is_behind(self) -> bool:
        """Whether the application has so much under way that reading stops."""
        return (
            (self._watched is not None and self._watched.are_too_many())
            or (self._read_ahead is not None and self._read_ahead.is_full())
            or (self._incoming is not None and self._incoming.holds_back())
        )

    def _read_within(self, limit: RateLimit) -> Outcome | None:
        is_closing = not self._closing.state.sends or self.close_when_drained is not None
        return read_within(limit, self, is_closing)

    def go_on(self) -> None:
        """A pause of the rate limit is over."""
        self._transport.dispatch(self.advance)

    def read(self, most: int) -> Outcome | None:
        """Deliver what has come, up to ``most`` messages where nothing has to wait; return what is next."""
        if self.busy_with is None and self._delivers_at_once():
            return self.reader.deliver(self.handler, most, True, self._transport.task is not None)
        if self._owner._rate_limit is None and self._reads_ahead():
            return self._fill_read_ahead(most)
        return self.read_event()

    def _reads_ahead(self) -> bool:
        """Whether all messages that come now have to wait as a whole, and none of them is dropped."""
        return (
            self.busy_with is not None
            and self.close_when_drained is None
            and self._incoming is None
            and not self._drops_messages
        )

    def _is_ahead(self) -> bool:
        """Whether messages may go straight from the reader to where they wait, without asking here."""
        transport = self._transport
        return (
            transport.read_ahead is not None
            and transport.task is not None
            and self._owner._rate_limit is None
            and not self._owner._steps_replaced
            and self._reads_ahead()
        )

    def _fill_read_ahead(self, most: int) -> Outcome | None:
        read_ahead = self._made_read_ahead()
        try:
            return read_ahead.fill(self.reader, most)
        except ProtocolError as error:
            return VIOLATION, error, 0
        finally:
            self._transport.more_waits = bool(read_ahead)

    def _made_read_ahead(self) -> ReadAhead:
        if self._read_ahead is None:
            self._read_ahead = ReadAhead(self._options.read_ahead_messages, self._options.read_ahead_bytes)
            if self._incoming is None:
                self._transport.read_ahead = self._read_ahead
        return self._read_ahead

    def read_event(self) -> Outcome | None:
        """Return what is next; deliver nothing."""
        try:
            return next(iter(self.reader))
        except ProtocolError as error:
            return VIOLATION, error, 0

    def _handle_outcome(self, opcode: int, payload: Any, size: int) -> None:
        if CLOSE <= opcode < DEFERRED:
            try:
                self._owner._handle_message(opcode, payload)
            except ProtocolError as error:
                self._end_by(error)
        elif opcode == PENDING:
            self._wait_for(self._owner._check_result(payload))
        elif opcode == SUSPENDED:
            self._wait_for(self._owner._go_on(*payload))
        elif opcode == RAISED:
            self._owner._log_and_abort(payload.pop())
        elif opcode == VIOLATION:
            self._end_by(payload)
        elif opcode > PART:
            self._take_part(opcode, payload, size)
        elif self.close_when_drained is not None and not self._closing.state.sends:
            # Nobody could answer it.
            pass
        elif self.busy_with is None:
            self._deliver(opcode, payload, size)
        else:
            read_ahead = self._made_read_ahead()
            if not read_ahead.is_full() or not self._drops_messages:
                read_ahead.put((opcode, payload, size))
                self._transport.more_waits = True

    def _end_by(self, violation: ProtocolError) -> None:
        # Frames of its traceback refer to the connection, and to it: a cycle.
        violation.__traceback__ = violation.__context__ = None
        self._closing.end_read(End.VIOLATION, violation)

    def _take_part(self, opcode: int, part: str | bytes, size: int) -> None:
        assert self._incoming is not None
        self.reader.message_bytes += size
        self.reader.messages += opcode & LAST != 0
        begun = self._incoming.take(opcode, part, size)
        if begun is None:
            return
        if not self._closing.state.sends and (self._incoming.is_client or self.close_when_drained is not None):
            # Nobody would read it, and the peer's close frame is behind it.
            begun.leave()
        else:
            # From here on it goes the way of a message.
            self._handle_outcome(PART, begun, size)

    @property
    def _drops_messages(self) -> bool:
        """Whether a client's application has closed: it need not take what is left, behind which the close frame is."""
        return not self._closing.state.sends and isinstance(self.busy_with, Turn)

    def _deliver_first(self, read_ahead: ReadAhead) -> None:
        """Deliver the message that waits first."""
        self._transport.more_waits = len(read_ahead) > 1
        if self._owner._steps_replaced:
            self._deliver(*read_ahead.get())
            return
        outcome = read_ahead.deliver(self.reader, self.handler, self._transport.task is not None)
        if outcome is None:
            return
        if outcome[0] >= DEFERRED:
            self._deliver(*outcome)
        else:
            self._handle_outcome(*outcome)

    def _deliver(self, opcode: int, payload: Any, size: int) -> None:
        if opcode >= DEFERRED:
            if self._incoming is not None:
                self._wait_for(self._owner._run_callback(self._incoming.begin, payload))
                return
            rest, begun = payload
            self._inflating = rest.inflate(
                opcode ^ DEFERRED, begun, decode_text if self._options.decode_text else checked_text
            )
            self._be_busy(self._inflating, functools.partial(self._on_inflated, opcode ^ DEFERRED))
            return
        self.reader.messages += 1
        self.reader.message_bytes += size
        if self._owner._steps_replaced:
            self._wait_for(self._owner._handle_message(opcode, utf8(payload)))
        else:
            self._wait_for(self._owner._run_callback(self.handler.on_message, payload))

    def _on_inflated(self, opcode: int, inflated: asyncio.Future[tuple[str | bytes, int]]) -> None:
        """A thread has inflated the message whose turn it is."""
        self.busy_with = self._inflating = None
        if self._closing.state.delivers:
            try:
                self._transport.dispatch(self._deliver, opcode, *inflated.result())
            except ProtocolError as error:
                # What came behind it does not count.
                self._closing.on(Event.GIVE_UP)
                self._owner._fail(error)
            except Exception as error:
                self._owner._log_and_abort(error)
        self._transport.dispatch(self.advance)

    # What the application is busy with

    def hurry(self) -> None:
        """An end waits for the application: for a moment, or not at all if a client's application has closed."""
        if self._incoming is not None:
            self._incoming.end(self._closing)
        if isinstance(self.busy_with, Turn):
            if self._closing.pending:
                if not self._closing.state.sends:
                    IOLoop.current().add_callback(self.busy_with.end_turn)
                else:
                    self.busy_with.hurry()
        elif self._closing.peer_end_waits and self._inflating is None:
            IOLoop.current().call_later(_BUSY_TIMEOUT, self._end_while_busy, self.busy_with)

    def _end_while_busy(self, handling: object) -> None:
        """Handle the end, which waits behind a message that the application is still busy with.

        The application goes on, what it writes fails, and ``on_close`` waits for it.
        """
        if self._closing.peer_end_waits and self.busy_with is handling:
            self._owner._handle_end()

    def hurry_cancelled(self) -> None:
        """The connection's task was cancelled: what runs elsewhere has a moment to end.

        It may never do so where the loop is about to end, and the loop waits for the task.
        """
        if self.busy_with is not None:
            IOLoop.current().call_later(_BUSY_TIMEOUT, self._leave, self.busy_with)

    def _leave(self, handling: object) -> None:
        if self.busy_with is handling:
            self.busy_with = None
            self._transport.dispatch(self.advance)

    def _wait_for(self, handled: Any) -> None:
        if handled is not None:
            self._be_busy(handled, self.on_handled)

    def _be_busy(self, handled: Any, on_done: Callable[[Any], object]) -> None:
        self.busy_with = handled
        # A loop that the callback has run may have left it so.
        self._transport.direct = False
        handled.add_done_callback(on_done)

    def on_handled(self, handled: Any) -> None:
        check_handled(self._owner, handled)
        self.busy_with = None
        self._transport.dispatch(self._deliver_next)

    def _deliver_next(self) -> None:
        """The application is done with a message: deliver what waits, and handle what has arrived."""
        read_ahead = self._read_ahead
        if read_ahead and self._closing.state.delivers:
            self._deliver_first(read_ahead)
            if self.busy_with is not None and (self._transport.reading or self._rests):
                # While we read the reader has nothing that was not asked for: it need not be asked again.
                return
        self.advance()

    def release(self) -> None:
        """Let go of what refers to this: the connection has ended."""
        if self._incoming is not None:
            self._incoming.release()
        if self._rest is not None:
            self._rest.stop()
        self._rest = self._watched = None

    def watch_over(self, handled: Any) -> None:
        """Let a callback that nothing waits for go on by itself."""
        if handled is not None:
            if self._watched is None:
                self._watched = Watched(self._owner, functools.partial(self._transport.dispatch, self.advance))
            self._watched.add(handled)
