"""The state of one connection, and how it changes until the end (RFC 6455 section 7). Knows no socket and no loop.

Two sides close. "We" are this end of the connection, a client or a server; the peer is the other end.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from tornado_ws.close_codes import ABNORMAL_CLOSURE


class State(enum.Enum):
    """Where a connection stands, and what it still does there."""

    #: The columns are `sends`, `receives`, `delivers` and `peer_ended`.
    #: Messages go both ways.
    OPEN = 0, True, True, True, False
    #: The peer's end was read. Messages that came before it are still being handled.
    ENDING = 1, True, False, True, False
    #: Our close frame is sent. The peer's is awaited.
    CLOSING = 2, False, True, True, False
    #: Our close frame is sent, and the peer's end was read. Messages that came before it are still being handled.
    CLOSING_ENDING = 3, False, False, True, False
    #: The peer's end is handled. Our close frame is not sent yet.
    PEER_ENDED = 4, True, False, True, True
    #: As PEER_ENDED, but what was received is dropped.
    GIVEN_UP = 5, True, False, False, True
    #: Both ends are done. Messages that came before may still wait for the application.
    CLOSED = 6, False, False, True, True
    #: As CLOSED, but what was received is dropped.
    ABORTED = 7, False, False, False, True
    #: The socket is closed, and ``on_close`` has been called.
    ENDED = 8, False, False, False, True

    def __init__(self, number: int, sends: bool, receives: bool, delivers: bool, peer_ended: bool) -> None:
        #: Whether frames may be sent. Tornado's ``server_terminated`` is the opposite.
        self.sends = sends
        #: Whether bytes that arrive are parsed.
        self.receives = receives
        #: Whether parsed messages are delivered; otherwise they are dropped.
        self.delivers = delivers
        #: Whether the peer's end has been handled: Tornado's ``client_terminated``.
        self.peer_ended = peer_ended
        #: Whether either side has begun to close, as ``is_closing`` tells applications.
        self.is_closing = peer_ended or not sends

    # That of enum is a function in Python.
    __hash__ = object.__hash__


class Event(enum.Enum):
    """What changes the state."""

    #: We close, or answer the peer's close frame.
    CLOSE = enum.auto()
    #: An end was read; messages before it may not be handled yet.
    END_READ = enum.auto()
    #: The peer's close frame, or a violation, is handled.
    PEER_END = enum.auto()
    #: The peer is not listened to any more.
    GIVE_UP = enum.auto()
    #: ``on_close`` is about to be called.
    FINISH = enum.auto()

    __hash__ = object.__hash__


#: The states that an event changes, and to which. It does not change the others.
_NEXT: dict[Event, dict[State, State]] = {
    Event.CLOSE: {
        State.OPEN: State.CLOSING,
        State.ENDING: State.CLOSING_ENDING,
        State.PEER_ENDED: State.CLOSED,
        State.GIVEN_UP: State.ABORTED,
    },
    Event.END_READ: {
        State.OPEN: State.ENDING,
        State.CLOSING: State.CLOSING_ENDING,
    },
    Event.PEER_END: {
        State.OPEN: State.PEER_ENDED,
        State.ENDING: State.PEER_ENDED,
        State.CLOSING: State.CLOSED,
        State.CLOSING_ENDING: State.CLOSED,
    },
    Event.GIVE_UP: {
        State.OPEN: State.GIVEN_UP,
        State.ENDING: State.GIVEN_UP,
        State.PEER_ENDED: State.GIVEN_UP,
        State.CLOSING: State.ABORTED,
        State.CLOSING_ENDING: State.ABORTED,
        State.CLOSED: State.ABORTED,
    },
    Event.FINISH: dict.fromkeys(State, State.ENDED),
}


class End(enum.Enum):
    """How a connection may end. An end is handled when the messages before it are."""

    #: A close frame; with its code and reason.
    CLOSE_FRAME = enum.auto()
    #: The peer has broken a rule; with the `ProtocolError`.
    VIOLATION = enum.auto()
    #: The peer has closed its side of the stream, or the stream broke; with the error, or None.
    EOF = enum.auto()
    #: The socket is closed.
    SOCKET_CLOSED = enum.auto()


class PendingEnd(NamedTuple):
    """An end that waits for the messages before it. What ``detail`` is, `End` says."""

    end: End
    detail: Any = None


class Closing:
    """The state of one connection, the ends that wait, and what ``on_close`` is told."""

    __slots__ = ("code", "pending", "reason", "reported", "state", "was_clean")

    def __init__(self) -> None:
        self.state = State.OPEN
        #: Ends that were read and are not handled yet, in their order: what the peer ended with, then the socket.
        self.pending: tuple[PendingEnd, ...] = ()
        #: Code and reason of the peer's close frame, or of the violation that we have seen.
        self.code: int | None = None
        self.reason: str | None = None
        #: Code and reason for ``on_close`` where we ended the connection, whatever the peer answers.
        self.reported: tuple[int | None, str | None] | None = None
        #: Whether the peer has sent a close frame that was handled.
        self.was_clean = False

    def on(self, event: Event) -> None:
        """Change the state."""
        self.state = _NEXT[event].get(self.state, self.state)

    def close(self) -> State:
        """We close. Return what the state was.

        If that `sends`, a close frame is sent, behind all messages. If the peer has ended, the socket is closed when
        everything written is with the kernel; otherwise the peer's end is waited for, no longer than the close timeout.
        """
        before = self.state
        self.on(Event.CLOSE)
        return before

    # Ends that wait for the messages before them

    def end_read(self, end: End, detail: Any = None) -> None:
        """An end was read. The first one counts; the socket's own end comes behind it."""
        if end is not End.SOCKET_CLOSED and self.peer_end_waits:
            return
        pending = PendingEnd(end, detail)
        self.pending = (*self.pending, pending) if end is End.SOCKET_CLOSED else (pending, *self.pending)
        self.on(Event.END_READ)

    @property
    def peer_end_waits(self) -> bool:
        """Whether an end other than that of the socket waits: it may be handled while the application is busy."""
        return bool(self.pending) and self.pending[0].end is not End.SOCKET_CLOSED

    def next_end(self) -> PendingEnd:
        """Take the first end that waits: it is handled now."""
        end, *rest = self.pending
        self.pending = tuple(rest)
        return end

    def time_out(self) -> bool:
        """The close timeout has passed. Return whether the connection is to be aborted.

        Otherwise the peer has answered in time, and its end waits for our application.
        """
        if self.peer_end_waits:
            return False
        if self.code is None and self.reported is None:
            self.reported = ABNORMAL_CLOSURE, "closing handshake timed out"
        return True

    def end_in_message(self) -> tuple[int | None, str | None]:
        """Return the code and reason of the end that was read, or is handled, inside a message.

        The code is 1006 where there was no close frame, and None where this side has closed.
        """
        if self.state.receives:
            return None, None
        code, reason = self.for_on_close()
        if code is None and self.peer_end_waits:
            end, detail = self.pending[0]
            if end is End.CLOSE_FRAME:
                code, reason = detail
                return code, reason
            if end is End.VIOLATION:
                return detail.close_code, detail.reason
        return (ABNORMAL_CLOSURE if code is None and not self.was_clean else code), reason

    def for_on_close(self) -> tuple[int | None, str | None]:
        """Return the code and reason that ``on_close`` is told."""
        return self.reported or (self.code, self.reason)
