"""What every message passes, in pure Python: from the socket to ``on_message``, and from ``write_message`` back.

A `Channel` is the busy half of a `transport.Transport`, which subclasses it and does what happens once a connection.
The native engine has a class of the same name; this one says what both do.

The way in: `handle_events` reads a chunk, feeds it to the reader and, while ``direct`` is true, lets the reader
deliver its messages. What that ends with goes to ``advance`` of the receiver, which is also asked for everything while
``direct`` is false. While the application is busy with a coroutine, the native engine lets messages wait in
``read_ahead``, and the connection's task take the next one from there, as long as ``ahead`` is true. The way out:
`write_message` and `write_frame` make a frame. Inside `dispatch` frames are held back (corked) while more messages were
read than are delivered, and go to the kernel together. Outside they are gathered from the second one of a turn of the
loop on (`engine.turn`).

One class, and a long one: a call from one to another costs what the hot path is to save.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import ssl
from collections.abc import Callable
from threading import get_ident
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError

from tornado_ws.engine import openssl_errors
from tornado_ws.engine.contract import (
    BINARY,
    CONTROL,
    CORK_SIZE,
    FIN,
    LARGE,
    MESSAGES_PER_TURN,
    NO_STEP,
    READ_SIZE,
    RSV1,
    SEND_SIZE,
    TEXT,
    Compressor,
    Receiver,
    Tap,
    is_plain,
)
from tornado_ws.engine.encoding import encode_frame_parts, encode_message
from tornado_ws.engine.read_ahead import ReadAhead
from tornado_ws.engine.reader import FrameReader
from tornado_ws.engine.tasks import enter_task, leave_task
from tornado_ws.engine.turn import GatheredWrite, TurnWrites, turn_of
from tornado_ws.engine.write_queue import WriteQueue


class Channel:
    """The hot half of a transport."""

    __slots__ = (
        "_corked",
        "_corked_size",
        "_done",
        "_first_sent",
        "_io_loop",
        "_socket",
        "_stream",
        "_turn",
        "_turn_writes",
        "_write_queue",
        "ahead",
        "compressing",
        "compressor",
        "context",
        "direct",
        "fd",
        "high_watermark",
        "masked",
        "message_bytes",
        "messages",
        "more_waits",
        "read_ahead",
        "reader",
        "reading",
        "receiver",
        "step",
        "tap",
        "task",
        "thread",
        "turn",
        "wire_bytes",
    )

    # Long by its fields, each with what it is.
    def __init__(self, stream: IOStream, masked: bool, done: asyncio.Future[None]) -> None:
        self._stream = stream
        self._socket = plain_socket(stream)
        #: There is one where there is a reader.
        self.receiver: Receiver | None = None
        self._io_loop: IOLoop = stream.io_loop
        #: A Future of this loop that is done: what most writes return.
        self._done = done
        self.masked = masked
        self.context: contextvars.Context = contextvars.copy_context()
        #: What `asyncio.current_task` is to be in callbacks; None on a client.
        self.task: asyncio.Task[Any] | None = None
        #: `IN_STEP` while that task itself is at work, so that it is entered already; `WRITTEN_IN_STEP` once it has
        #: written.
        self.step = NO_STEP
        self.fd: int = stream.socket.fileno()
        self.reader: FrameReader | None = None
        self.reading = False
        #: Whether messages may go from the reader to the application without asking the receiver.
        self.direct = False
        #: Whether messages may go from the reader to ``read_ahead``, and from there to the application, without asking
        #: the receiver. The native engine does so; this one asks.
        self.ahead = False
        self.read_ahead: ReadAhead | None = None
        #: What compresses messages, None where that was not negotiated.
        self.compressor: Compressor | None = None
        #: Whether it is at work on a message whose frame is not written yet. Another one, which a finalizer writes
        #: meanwhile, comes before it, and goes uncompressed: the peer's window is then as the compressor thinks.
        self.compressing = False
        #: What is shown all bytes read and all frames sent, for the log; None where that is off.
        self.tap: Tap | None = None
        #: What was sent: messages, their bytes before compression, and all that frames took.
        self.messages = self.message_bytes = self.wire_bytes = 0
        #: Ident of the thread that the connection belongs to.
        self.thread = get_ident()
        self._write_queue: WriteQueue | None = None
        #: Of so many bytes that wait no write needs to be awaited.
        self.high_watermark = 0
        self._turn = turn_of(self._io_loop)
        self.turn = 0
        #: What waits for the end of the turn. Then nothing else waits.
        self._turn_writes: TurnWrites | None = None
        self._corked: list[bytes] | None = None
        self._corked_size = 0
        self._first_sent = False
        #: Whether messages that were read wait behind the one that is delivered.
        self.more_waits = False

    # In

    def handle_events(self) -> None:
        """Read and write what can be; called when the socket may be ready."""
        try:
            if self._write_queue is not None:
                self._flush()
            if self.reading and self.fd >= 0:
                self._receive()
        except BaseException as error:
            self._handling_failed(error)
            if not isinstance(error, Exception):
                raise

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
        size = openssl_errors.call(True, self._stream.read_from_fd, buffer)
        if size and isinstance(self._stream.socket, ssl.SSLSocket) and self._stream.socket.pending():
            # What is left decrypted of a record that did not fit gives no readiness.
            self._io_loop.add_callback(self.handle_events)
        return bytes(buffer[:size]) if size is not None else None

    def _take(self, chunk: bytes) -> None:
        assert self.reader is not None
        if self.tap is not None:
            self.tap.received(chunk)
        self.reader.feed(chunk)
        outcome = None
        if self.receiver is None:
            # The connection has ended.
            return
        if self.direct:
            outcome = self.reader.deliver(self.receiver.handler, MESSAGES_PER_TURN, True, self.task is not None)
            if outcome is None:
                return
        self.receiver.advance(outcome)

    def dispatch(self, callback: Callable[..., None], *args: Any) -> None:
        """Call in the connection's task and context; what is written meanwhile goes to the socket together, at the end.

        An exception aborts the connection and goes no further, save those that are to end the loop: KeyboardInterrupt,
        SystemExit, and GeneratorExit.
        """
        if self._corked is not None:
            callback(*args)
            return
        corked: list[bytes] = []
        self._corked = corked
        self._first_sent = False
        try:
            try:
                task = self.task
                if task is None or self.step:
                    self.context.run(callback, *args)
                else:
                    before = enter_task(task)
                    try:
                        self.context.run(callback, *args)
                    finally:
                        leave_task(task, before)
            finally:
                self._corked = None
                if corked:
                    self._corked_size = 0
                    if self.fd >= 0:
                        self._offer(corked[0] if len(corked) == 1 else b"".join(corked))
        except BaseException as error:
            self._handling_failed(error)
            if not isinstance(error, Exception):
                raise

    # Out

    def check_thread(self) -> None:
        """Raise RuntimeError in another thread than the connection's."""
        if get_ident() != self.thread:
            self._change_thread()

    def write_message(
        self, message: str | bytes | bytearray | memoryview, binary: bool, compress: bool
    ) -> asyncio.Future[None]:
        """Send one message; see `write` for the Future. Raises ValueError for text that is not UTF-8."""
        compressor = self.compressor if compress else None
        if compressor is not None:
            # Before it takes the message: the peer's window has to be what it thinks.
            self.check_thread()
        if self._write_queue is not None:
            refused = self.refuse()
            if refused is not None:
                return refused
        payload = encode_message(message, binary)
        size = len(payload)
        first_byte = FIN | BINARY if binary else FIN | TEXT
        if compressor is None or size < compressor.threshold or self.compressing:
            future = self.write_frame(first_byte, payload)
        else:
            self.compressing = True
            try:
                future = self.write_frame(first_byte | RSV1, compressor.compress(payload))
            finally:
                self.compressing = False
        self.messages += 1
        self.message_bytes += size
        return future

    def write_frame(self, first_byte: int, payload: bytes) -> asyncio.Future[None]:
        """Send one frame; see `write`. Raises RuntimeError in another thread than the connection's."""
        if get_ident() != self.thread:
            self._change_thread()
        head, body = encode_frame_parts(first_byte, payload, self.masked)
        if len(body) >= LARGE and self._socket is not None:
            future = self._write_large(head, body)
        elif self._corked is not None or first_byte & CONTROL:
            future = self.write(head + body)
        else:
            future = self._write_in_turn(head + body, True)
        self.wire_bytes += len(head) + len(body)
        if self.tap is not None:
            self.tap.sent(first_byte, payload)
        return future

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Send ``data``. The Future is done when the kernel has taken it, or when it is sure to be offered to it next.

        Inside `dispatch` what is written waits for what follows: while more messages were read than are delivered. At
        the last one the first write sends all that waits, and itself: the application may block, or the process end.

        Outside, messages wait from the second one of a turn of the loop on: for its end, for `CORK_SIZE` bytes, for
        something that does not wait, or to be awaited by the only task that does.

        With watermarks it may be done before, while no more bytes wait than they allow.

        Raises `.StreamClosedError` on a closed stream. The Future fails with `.WebSocketClosedError` when the
        connection is lost before, which nobody has to retrieve.
        """
        if self.fd < 0:
            raise StreamClosedError(self._stream.error)
        if self._write_queue is None and self._corked is not None:
            self._corked.append(data)
            self._corked_size += len(data)
            if self._corked_size < CORK_SIZE:
                reader = self.reader
                more_waits = self.more_waits or (reader is not None and reader._pos < len(reader._buffer))
                if more_waits or self._first_sent:
                    self._first_sent = not more_waits
                    if self._corked_size == len(data):
                        self._turn.end_inside(self)
                    return self._done
                self._first_sent = True
            data = self._take_corked()
        return self._offer(data)

    def write_unawaited(self, frame: bytes) -> None:
        """Send a frame that others get too."""
        if self._corked is not None:
            self.write(frame)
        else:
            self._write_in_turn(frame, False)

    def _write_in_turn(self, data: bytes, awaited: bool) -> asyncio.Future[None]:
        """As `write`, outside `dispatch`, if it is the first write of the turn. Others wait for its end."""
        writes = self._turn_writes
        if (
            self._write_queue is not None
            or self.fd < 0
            or len(data) >= LARGE
            or not self._turn.has_written(self)
            or (writes is not None and writes.is_streaming())
        ):
            return self.write(data)
        if writes is None:
            writes = TurnWrites(self)
            self._turn.waiting.append(self)
            self._turn_writes = writes
        elif writes.size + len(data) > CORK_SIZE:
            self.send_turn_writes()
            if self._write_queue is not None or self.fd < 0:
                return self._offer(data)
        writes.pieces.append(data)
        writes.size += len(data)
        return writes.add_future() if awaited and writes.size > self.high_watermark else self._done

    def send_turn_writes(self) -> None:
        """Send what waits for the end of the turn."""
        if self._turn_writes is not None:
            self._turn_writes.send()

    def _offer(self, data: bytes) -> asyncio.Future[None]:
        self.send_turn_writes()
        if self._write_queue is not None or self.fd < 0:
            self._check_room(len(data))
            return self._keep(data)
        count = self._send(data)
        if count == len(data):
            return self._done
        return self._keep(data, count)

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
            # A stream keeps its error. The frames of a traceback would keep all that waits to be sent.
            self._stream.close(exc_info=error.with_traceback(None))
            return 0

    def _write_to_stream(self, data: bytes | bytearray | memoryview) -> int:
        sent = 0
        # TLS takes one record at a time.
        with memoryview(data) as view:
            while sent < min(len(view), SEND_SIZE):
                try:
                    count = openssl_errors.call(False, self._stream.write_to_fd, view[sent:])
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
        self.send_turn_writes()
        if self._write_queue is not None or self.fd < 0:
            self._check_room(len(head) + len(payload))
            return self._keep(head, 0, payload)
        if self._corked:
            head = self._take_corked() + head
        count = self._send(head, payload)
        if count == len(head) + len(payload):
            return self._done
        if count < len(head):
            return self._keep(head, count, payload)
        return self._keep(payload, count - len(head))

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

    def _handling_failed(self, error: BaseException) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        raise NotImplementedError

    def _check_room(self, size: int) -> None:
        raise NotImplementedError

    def _keep(self, data: bytes, begin: int = 0, more: bytes = b"", awaited: bool = True) -> asyncio.Future[None]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def end_turn(self) -> None:
        raise NotImplementedError

    def _settle(self, futures: list[GatheredWrite]) -> None:
        raise NotImplementedError


def _read_buffer(io_loop: IOLoop) -> memoryview:
    buffer: memoryview | None = vars(io_loop).get("_ws_read_buffer")
    if buffer is None:
        buffer = vars(io_loop)["_ws_read_buffer"] = memoryview(bytearray(READ_SIZE))
    return buffer


def plain_socket(stream: IOStream) -> socket.socket | None:
    """Return the socket of ``stream`` where it may be used in the place of the stream, else None."""
    # Windows has no sendmsg.
    return stream.socket if is_plain(stream) and hasattr(stream.socket, "sendmsg") else None
