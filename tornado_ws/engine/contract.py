"""What both engines keep to: the pure one and the native one.

A `FrameReader` is fed chunks of bytes as they arrive and iterated. Each step parses as far as the next event and no
further. An event is ``(opcode, payload, size)``: a whole message, TEXT as str and BINARY as bytes, or a control frame
(CLOSE, PING, PONG) with its payload as bytes; ``size`` is the payload's length in bytes, after inflating. The reader
yields None when it wants another chunk. It raises `.ProtocolError` at the first violation, as early as the bytes
allow (inside an unfinished frame too), after all the events before it, and is finished then.

With a ``part_size`` a message that is larger, or does not come whole in one plain frame, is given in parts: an event
has the opcode with `PART`, the part as TEXT or BINARY says, and its bytes; the last one has `LAST` too. A part has
``part_size`` bytes at most, ends between two characters if it is text, and is empty only if it is the last.

`FrameReader.deliver` is the same for messages that are to be handled as they come: it takes the steps itself and
gives each message to ``on_message``, until one of them is not done with at once, or something else turns up.

What a violation is, and how the peer and the log are told, is said once, in `validation`. An engine implements the
common, valid cases, and calls `validation` for everything else.
"""

from __future__ import annotations

import socket
from typing import Any, Protocol, TypeAlias

from tornado.iostream import IOStream

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
RSV = RSV1 | RSV2 | RSV3
MASKED = 0x80
CONTROL = 0x8
WHOLE_MESSAGE = (FIN | TEXT, FIN | BINARY)
OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))

#: Marks the opcode of a message that is inflated in part only.
DEFERRED = 0x100
#: Marks the opcode of a part of a message, and the one that the message ends with.
PART, LAST = 0x200, 0x400

Event: TypeAlias = tuple[int, Any, int]

#: Seconds that messages of one connection, or of all that are ready, are delivered before the loop gets its turn.
TURN_TIME = 0.002
#: The clock is read for every fourth message: with each it would cost more than it tells.
CLOCK_STRIDE = 3
#: And for each of so many bytes: a few hundred on the wire may inflate to megabytes.
CLOCK_SIZE = 64 * 1024
#: What `FrameReader.deliver` returns in the place of an opcode, apart from control frames.
PENDING, RAISED, VIOLATION, BUDGET_SPENT, SUSPENDED = -1, -2, -3, -4, -5
Outcome: TypeAlias = tuple[int, Any, int]

#: Whether the task of a connection takes a step now, and has written in it.
NO_STEP, IN_STEP, WRITTEN_IN_STEP = 0, 1, 2

#: Messages delivered before the rest of the loop gets its turn.
MESSAGES_PER_TURN = 256
#: Messages that wait for a busy application, behind which reading rests: one read then brings many.
ENOUGH_AHEAD = 8
#: Sockets served before the rest of the loop gets its turn.
SOCKETS_PER_TURN = 256
#: Sockets ready at once that make a loop a busy one.
BUSY = 8
#: Bytes read from one socket before the others get their turn.
READ_SIZE = 64 * 1024
#: Bytes sent to one socket before the others get their turn.
SEND_SIZE = 1024 * 1024
#: Bytes held back inside `Channel.dispatch`.
CORK_SIZE = 64 * 1024
#: A payload of so many bytes is sent from where it lies.
LARGE = 16 * 1024
#: Most bytes that `Inflater.inflate` returns.
INFLATED_AT_ONCE = 128 * 1024


class Inflater(Protocol):
    """What a reader needs of RFC 7692: the payload of one message, piece by piece."""

    def inflate(self, data: bytes, limit: int) -> bytes:
        """Return what ``data`` inflates to, one byte more than ``limit`` standing for all that are too many.

        What has `INFLATED_AT_ONCE` bytes may go on: no data then gives what follows.
        Raises `.ProtocolError` for what does not inflate.
        """

    def end_message(self) -> Any:
        """Raise `.ProtocolError` when the message's stream is cut short.

        Returns None, or what there is of the message beside that which was inflated, with its ``size`` in bytes: then
        the event is ``(opcode | DEFERRED, (that, the message's beginning as bytes), size of both)``.
        """


class Receiver(Protocol):
    """What a channel delivers to."""

    #: Whose ``on_message`` gets messages.
    handler: Any
    #: What the application is busy with, None where it is with nothing.
    busy_with: Any

    def advance(self, outcome: Outcome | None = None) -> None:
        """Go on with ``outcome`` of the reader's `FrameReader.deliver`, or with what it has unread."""

    def on_handled(self, handled: Any) -> None:
        """The application is no longer busy with ``handled``."""


class Tap(Protocol):
    """What a channel shows its bytes to. It changes nothing and raises nothing."""

    def received(self, chunk: bytes) -> None:
        """``chunk`` was read and is about to be parsed."""

    def sent(self, first_byte: int, payload: bytes) -> None:
        """A frame was given to the channel; ``payload`` is not masked."""


class Compressor(Protocol):
    """What a channel needs of permessage-deflate."""

    #: Bytes that a message has to have to be worth compressing.
    threshold: int

    def compress(self, data: bytes) -> bytes:
        """Return the payload of a compressed message."""

    def forget(self) -> None:
        """The last one did not go to the peer: let the next refer to nothing before it."""


class Servable(Protocol):
    """What `serve_ready` calls."""

    def handle_events(self) -> None:
        """Called when the socket may be ready."""


def is_plain(stream: IOStream) -> bool:
    """Whether ``stream`` does nothing to the bytes on their way from and to its socket."""
    return (
        type(stream.socket) is socket.socket
        and type(stream).read_from_fd is IOStream.read_from_fd
        and type(stream).write_to_fd is IOStream.write_to_fd
    )
