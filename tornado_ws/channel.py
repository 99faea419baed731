"""What every message passes, in pure Python: from the socket to ``on_message``, and from ``write_message`` back.

A `Channel` is the busy half of a `transport.Transport`, which subclasses it and does what happens once a connection.
The native engine has a class of the same name; this one says what both do.

The way in: `handle_events` reads a chunk, feeds it to the reader and, while ``direct`` is true, lets the reader hand
out its messages. Whatever that ends with goes to ``advance`` of the receiver, which is also asked for everything while
``direct`` is false. The way out: `write_message` and `write_frame` make a frame. Inside `dispatch` frames are held back
(corked) and go to the kernel together at its end.
"""

from __future__ import annotations

import asyncio
import contextvars
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from threading import get_ident
from typing import Any, Protocol

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError

from tornado_ws.backlog import Backlog
from tornado_ws.frames import (
    BINARY,
    FIN,
    RSV1,
    TEXT,
    FrameReader,
    Outcome,
    encode_frame,
    encode_frame_parts,
    encode_message,
)
from tornado_ws.latency import Latency

#: Messages handed out before the rest of the loop gets its turn.
MESSAGES_PER_TURN = 256
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


class Receiver(Protocol):
    """What a channel delivers to."""

    handler: Any
    #: Whether the peer has sent a close frame.
    was_clean: bool

    @property
    def latency(self) -> Latency:
        """The round trips of its pings."""

    def advance(self, outcome: Outcome | None = None) -> None:
        """Go on with ``outcome`` of the reader's `FrameReader.hand_out`, or with what it has unread."""

    def eof_received(self, error: Exception | None) -> None:
        """Nothing more will be read; ``error`` is None when the peer closed its side in good order."""

    def held_back(self) -> tuple[int, int]:
        """Return how many bytes, of how many writes, wait to be given to the channel."""

    def write_refused(self, unsent: int) -> asyncio.Future[None]:
        """A message is not to be sent, since ``unsent`` bytes wait already; returns what ``write_message`` does."""

    def writes_lost(self, unsent: int, writes: int) -> None:
        """The stream is about to be closed with ``unsent`` bytes, and ``writes`` whose Futures are not done."""

    def connection_lost(self) -> None:
        """The stream is closed. Called once, never from inside the call that closed it."""


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


def serve_ready(epoll: select.epoll, channels: Mapping[int, Servable]) -> None:
    """Call ``handle_events`` of the channels whose descriptors are ready, of a good many at most."""
    left = SOCKETS_PER_TURN
    if len(channels) == 1:
        # It is this one: the epoll has nothing else to tell of.
        for only in list(channels.values()):
            only.handle_events()
        return
    # Where many are ready others will be by then, and another look costs less than another turn of the loop.
    count = BUSY
    while count >= BUSY and left > 0 and not epoll.closed:
        ready = epoll.poll(0, left)
        count = len(ready)
        left -= count
        for fd, _ in ready:
            # One that was closed by another's callback is no longer there.
            channel = channels.get(fd)
            if channel is not None:
                channel.handle_events()


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

    def write_message(
        self, message: str | bytes | dict[str, Any], binary: bool = False, *, compress: bool = True
    ) -> asyncio.Future[None]:
        """Send a message; see `.WebSocketHandler.write_message`.

        Raises `WebSocketClosedError` when a close frame was sent or the connection is lost, and ValueError for bytes
        that are to go as text and are not UTF-8.
        """
        out = self._out
        if out is not None and out.fd >= 0 and isinstance(message, (str, bytes)):
            return out.write_message(message, binary, compress)
        return self._write_message(message, binary, compress)

    def _is_closing(self) -> bool:
        raise NotImplementedError

    def _write_message(
        self, message: str | bytes | dict[str, Any], binary: bool, compress: bool
    ) -> asyncio.Future[None]:
        raise NotImplementedError


def send_to_all(senders: Iterable[Any], payload: bytes, binary: bool) -> tuple[int, list[Any]]:
    """Send a message to those of ``senders`` that need no more than its frame, which is made once.

    Returns to how many it went, and the others, which may be anything.
    """
    frame = encode_frame(FIN | BINARY if binary else FIN | TEXT, payload, False)
    count = 0
    others = []
    for sender in senders:
        is_ours = isinstance(sender, Sender) and type(sender).write_message is Sender.write_message
        out = sender._out if is_ours else None
        if out is None or out.fd < 0 or out.masked or out.compressor is not None or out._backlog is not None:
            others.append(sender)
            continue
        out.check_thread()
        out.write(frame)
        out.messages += 1
        out.message_bytes += len(payload)
        out.wire_bytes += len(frame)
        count += 1
    return count, others


class Channel:
    """The hot half of a transport."""

    __slots__ = (
        "_backlog",
        "_corked",
        "_corked_size",
        "_done",
        "_io_loop",
        "_receiver",
        "_socket",
        "_stream",
        "compressor",
        "context",
        "direct",
        "fd",
        "masked",
        "message_bytes",
        "messages",
        "reader",
        "reading",
        "thread",
        "wire_bytes",
    )

    def __init__(self, stream: IOStream, receiver: Receiver, masked: bool, done: asyncio.Future[None]) -> None:
        self._stream = stream
        self._socket = plain_socket(stream)
        self._receiver = receiver
        self._io_loop: IOLoop = stream.io_loop
        #: A Future of this loop that is done: what most writes return.
        self._done = done
        self.masked = masked
        self.context: contextvars.Context = contextvars.copy_context()
        self.fd: int = stream.socket.fileno()
        self.reader: FrameReader | None = None
        self.reading = False
        #: Whether messages may go from the reader to the application without asking the receiver.
        self.direct = False
        #: What compresses messages, None where that was not negotiated.
        self.compressor: Compressor | None = None
        #: What was sent: messages, their bytes before compression, and all that frames took.
        self.messages = self.message_bytes = self.wire_bytes = 0
        #: Ident of the thread that the connection belongs to.
        self.thread = get_ident()
        self._backlog: Backlog | None = None
        self._corked: list[bytes] | None = None
        self._corked_size = 0

    # In

    def handle_events(self) -> None:
        """Read and write what can be; called when the socket may be ready."""
        if self._backlog is not None:
            self._flush()
        if self.reading and self.fd >= 0:
            self._receive()

    def _receive(self) -> None:
        try:
            chunk = self._socket.recv(READ_SIZE) if self._socket is not None else self._read_from_stream()
        except BlockingIOError:
            return
        except OSError as error:
            self._end_reading(error)
            return
        if chunk:
            self.dispatch(self._take, chunk)
        elif chunk is not None:
            self._end_reading(None)

    def _read_from_stream(self) -> bytes | None:
        """Return what was read, b"" at the end and None if there was nothing."""
        buffer = _read_buffer(self._io_loop)
        size = self._stream.read_from_fd(buffer)
        if size and isinstance(self._stream.socket, ssl.SSLSocket) and self._stream.socket.pending():
            # What is left decrypted of a record that did not fit gives no readiness.
            self._io_loop.add_callback(self.handle_events)
        return bytes(buffer[:size]) if size is not None else None

    def _take(self, chunk: bytes) -> None:
        assert self.reader is not None
        self.reader.feed(chunk)
        outcome = None
        if self.direct:
            outcome = self.reader.hand_out(self._receiver.handler, MESSAGES_PER_TURN)
            if outcome is None:
                return
        self._receiver.advance(outcome)

    def dispatch(self, callback: Callable[..., None], *args: Any) -> None:
        """Call in the connection's context; what is written meanwhile goes to the socket together, at the end."""
        if self._corked is not None:
            callback(*args)
            return
        corked: list[bytes] = []
        self._corked = corked
        try:
            self.context.run(callback, *args)
        finally:
            self._corked = None
            if corked:
                self._corked_size = 0
                if self.fd >= 0:
                    self._offer(corked[0] if len(corked) == 1 else b"".join(corked))

    # Out

    def check_thread(self) -> None:
        """Raise RuntimeError in another thread than the connection's."""
        if get_ident() != self.thread:
            self._change_thread()

    def write_message(self, message: str | bytes, binary: bool, compress: bool) -> asyncio.Future[None]:
        """Send one message; see `write` for the Future. Raises ValueError for text that is not UTF-8."""
        compressor = self.compressor if compress else None
        if compressor is not None:
            # Before it takes the message: the peer's window has to be what it thinks.
            self.check_thread()
        if self._backlog is not None:
            refused = self.refuse()
            if refused is not None:
                return refused
        payload = encode_message(message, binary)
        size = len(payload)
        first_byte = FIN | BINARY if binary else FIN | TEXT
        if compressor is not None and size >= compressor.threshold:
            first_byte |= RSV1
            payload = compressor.compress(payload)
        future = self.write_frame(first_byte, payload)
        self.messages += 1
        self.message_bytes += size
        return future

    def write_frame(self, first_byte: int, payload: bytes) -> asyncio.Future[None]:
        """Send one frame; see `write`. Raises RuntimeError in another thread than the connection's."""
        if get_ident() != self.thread:
            self._change_thread()
        head, payload = encode_frame_parts(first_byte, payload, self.masked)
        if len(payload) < LARGE or self._socket is None:
            future = self.write(head + payload)
        else:
            future = self._write_large(head, payload)
        self.wire_bytes += len(head) + len(payload)
        return future

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Send ``data``. The Future is done when the kernel has taken it, or when it is sure to be offered to it next.

        With watermarks it may be done before, while no more bytes wait than they allow.

        Raises `.StreamClosedError` on a closed stream. The Future fails with `.WebSocketClosedError` when the
        connection is lost before, which nobody has to retrieve.
        """
        if self.fd < 0:
            raise StreamClosedError(self._stream.error)
        if self._backlog is None and self._corked is not None:
            self._corked.append(data)
            self._corked_size += len(data)
            if self._corked_size < CORK_SIZE:
                return self._done
            data = self._take_corked()
        return self._offer(data)

    def _offer(self, data: bytes) -> asyncio.Future[None]:
        if self._backlog is not None:
            self._check_room(len(data))
            return self._keep(data)
        count = self._send(data)
        if count == len(data):
            return self._done
        # A view: what is sent to many connections is not copied for each that is slow.
        return self._keep(memoryview(data)[count:])

    def _send(self, data: bytes | bytearray | memoryview, more: bytes = b"") -> int:
        """Offer ``data`` to the kernel, on a plain socket with ``more`` behind it; returns how many bytes it took.

        An error closes the stream.
        """
        try:
            if self._socket is None:
                return self._write_to_stream(data)
            return self._socket.sendmsg((data, more)) if more else self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._stream.close(exc_info=error)
            return 0

    def _write_to_stream(self, data: bytes | bytearray | memoryview) -> int:
        sent = 0
        # TLS takes one record at a time.
        with memoryview(data) as view:
            while sent < min(len(view), SEND_SIZE):
                try:
                    count = self._stream.write_to_fd(view[sent:])
                except BlockingIOError:
                    break
                if not count:
                    break
                sent += count
        return sent

    def _write_large(self, head: bytes, payload: bytes) -> asyncio.Future[None]:
        """As `write` of both, with the payload where it lies."""
        if self.fd < 0:
            raise StreamClosedError(self._stream.error)
        if self._backlog is not None:
            self._check_room(len(head) + len(payload))
            return self._keep(head, payload)
        if self._corked:
            head = self._take_corked() + head
        count = self._send(head, payload)
        if count == len(head) + len(payload):
            return self._done
        return self._keep(memoryview(head)[count:], memoryview(payload)[max(count - len(head), 0) :])

    def _take_corked(self) -> bytes:
        corked = self._corked or []
        data = corked[0] if len(corked) == 1 else b"".join(corked)
        corked.clear()
        self._corked_size = 0
        return data

    # The cold half

    def _change_thread(self) -> None:
        raise NotImplementedError

    def refuse(self) -> asyncio.Future[None] | None:
        raise NotImplementedError

    def _end_reading(self, error: Exception | None) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        raise NotImplementedError

    def _check_room(self, size: int) -> None:
        raise NotImplementedError

    def _keep(self, *pieces: bytes | memoryview) -> asyncio.Future[None]:
        raise NotImplementedError


def _read_buffer(io_loop: IOLoop) -> memoryview:
    buffer: memoryview | None = vars(io_loop).get("_ws_read_buffer")
    if buffer is None:
        buffer = vars(io_loop)["_ws_read_buffer"] = memoryview(bytearray(READ_SIZE))
    return buffer


def plain_socket(stream: IOStream) -> socket.socket | None:
    """Return the socket of ``stream`` where the stream does nothing to the bytes on their way, else None."""
    is_plain = (
        type(stream.socket) is socket.socket
        # Windows does not.
        and hasattr(stream.socket, "sendmsg")
        and type(stream).read_from_fd is IOStream.read_from_fd
        and type(stream).write_to_fd is IOStream.write_to_fd
    )
    return stream.socket if is_plain else None
