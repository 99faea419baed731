"""One connection's bytes: what a detached `.IOStream` reads and writes, once its readiness is ours.

Going through an IOStream costs more than all the rest of a WebSocket server. So a `Transport` takes the stream's
descriptor off the IOLoop, watches it with a `poller`, and moves bytes with the stream's own ``read_from_fd`` and
``write_to_fd`` (the documented primitives, which carry TLS too). The stream stays what applications see: it answers
``closed()``, ``socket``, ``set_nodelay()`` and ``error``, it may be written to, and closing it closes the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError

from tornado_ws.errors import WebSocketClosedError
from tornado_ws.poller import READ, WRITE, poller_of

#: Bytes read from one socket before the others get their turn.
_READ_SIZE = 256 * 1024
#: Bytes held back while the messages of one chunk are being handled.
_CORK_SIZE = 64 * 1024
#: Bytes offered to the kernel at once from what it did not take before.
_SEND_SIZE = 256 * 1024
#: Seconds that the peer of a closed connection has to close its side.
_LINGER_TIMEOUT = 2.0


class Receiver(Protocol):
    """What a transport delivers to."""

    def data_received(self, chunk: bytes) -> None: ...

    def eof_received(self, error: Exception | None) -> None:
        """Nothing more will be read; ``error`` is None when the peer closed its side in good order."""

    def connection_lost(self) -> None:
        """The stream is closed. Called once, never from inside the call that closed it."""


class Transport:
    """Moves the bytes of one stream; calls its receiver in ``context``."""

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_corked",
        "_corked_size",
        "_done",
        "_drain_futures",
        "_events",
        "_fd",
        "_io_loop",
        "_paused",
        "_poller",
        "_receiver",
        "_sent",
        "_shut_when_drained",
        "_stream",
        "context",
    )

    def __init__(self, stream: IOStream, receiver: Receiver) -> None:
        """Take ``stream`` over. Reading begins with `resume_reading`."""
        self._stream = stream
        self._receiver = receiver
        self._io_loop: IOLoop = stream.io_loop
        self._poller = poller_of(self._io_loop)
        self.context = contextvars.copy_context()
        self._paused = True
        self._events = 0
        self._backlog: bytearray | None = None
        self._corked: list[bytes] | None = None
        self._corked_size = 0
        self._sent = 0
        self._drain_futures: deque[tuple[int, asyncio.Future[None]]] | None = None
        self._shut_when_drained = False
        self._done = _completed_future(self._io_loop)
        self._fd = _take_over(stream, self)
        self._poller.add(self)

    # Reading

    def resume_reading(self) -> None:
        if self._paused and self._fd >= 0:
            self._paused = False
            self._watch()
            if isinstance(self._stream.socket, ssl.SSLSocket) and self._stream.socket.pending():
                # Bytes inside the TLS layer give no readiness.
                self._io_loop.add_callback(self.handle_events)

    def pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self._watch()

    @property
    def reading(self) -> bool:
        return not self._paused

    def handle_events(self) -> None:
        """Read and write what can be; called when the socket may be ready."""
        if self._backlog is not None:
            self._flush()
        if not self._paused and self._fd >= 0:
            self._read()

    def close(self) -> None:
        """Close the stream at once."""
        self._stream.close()

    def fileno(self) -> int:
        return self._fd

    def _read(self) -> None:
        buffer = _read_buffer(self._io_loop)
        size = 0
        error: Exception | None = None
        eof = False
        # TLS gives at most a record at a time and may hold more that the descriptor does not tell of.
        is_tls = isinstance(self._stream.socket, ssl.SSLSocket)
        while size < len(buffer):
            try:
                count = self._stream.read_from_fd(buffer[size:])
            except OSError as exc:
                error, eof = exc, True
                break
            if count is None:
                break
            if count == 0:
                eof = True
                break
            size += count
            if not is_tls:
                break
        else:
            if is_tls:
                self._io_loop.add_callback(self.handle_events)
        if size:
            self.dispatch(self._receiver.data_received, bytes(buffer[:size]))
        if eof and self._fd >= 0:
            self.pause_reading()
            self.dispatch(self._receiver.eof_received, error)

    # Writing

    def dispatch(self, callback: Callable[..., None], *args: Any) -> None:
        """Call in the connection's context; what is written meanwhile goes to the socket together, at the end."""
        if self._corked is not None:
            callback(*args)
            return
        self._corked = []
        try:
            self.context.run(callback, *args)
        finally:
            self._uncork()

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Send ``data``. The Future is done when the kernel has taken it, or when it is sure to be offered to it next.

        Raises `.StreamClosedError` on a closed stream. The Future fails with `.WebSocketClosedError` when the
        connection is lost before, which nobody has to retrieve.
        """
        if self._fd < 0:
            raise StreamClosedError(self._stream.error)
        if self._backlog is None:
            if self._corked is not None:
                self._corked.append(data)
                self._corked_size += len(data)
                if self._corked_size < _CORK_SIZE:
                    return self._done
                data = self._take_corked()
            count = self._send(data)
            if count == len(data):
                return self._done
            if self._fd < 0:
                future = self._new_future()
                _fail(future)
                return future
            self._backlog = bytearray(memoryview(data)[count:])
            self._watch()
        else:
            self._backlog += data
        future = self._new_future()
        if self._drain_futures is None:
            self._drain_futures = deque()
        self._drain_futures.append((self._sent + len(self._backlog), future))
        return future

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._corked_size + (len(self._backlog) if self._backlog is not None else 0)

    def _new_future(self) -> asyncio.Future[None]:
        return asyncio.Future(loop=self._done.get_loop())

    def _take_corked(self) -> bytes:
        corked = self._corked or []
        data = corked[0] if len(corked) == 1 else b"".join(corked)
        corked.clear()
        self._corked_size = 0
        return data

    def _uncork(self) -> None:
        data = self._take_corked()
        self._corked = None
        if data and self._fd >= 0:
            self.write(data)

    def _send(self, data: bytes | bytearray) -> int:
        """Offer ``data`` to the kernel; returns how many bytes it took. An error closes the stream."""
        try:
            return self._stream.write_to_fd(memoryview(data))
        except BlockingIOError:
            return 0
        except OSError as error:
            self._stream.close(exc_info=error)
            return 0

    def _flush(self) -> None:
        backlog = self._backlog
        while backlog:
            count = self._send(backlog[:_SEND_SIZE])
            if count == 0:
                break
            self._sent += count
            del backlog[:count]
        if self._drain_futures is not None:
            while self._drain_futures and self._drain_futures[0][0] <= self._sent:
                future = self._drain_futures.popleft()[1]
                if not future.done():
                    future.set_result(None)
        if not backlog and self._fd >= 0:
            self._backlog = None
            self._watch()
            if self._shut_when_drained:
                self._shut()

    # Closing

    def close_gracefully(self) -> None:
        """Close once everything written is with the kernel, and in a way that the peer can still read it."""
        if self._fd < 0:
            return
        if self._corked:
            self._uncork()
            self._corked = []
        if self._backlog is not None:
            self.pause_reading()
            self._shut_when_drained = True
            # A peer that takes nothing more would keep the socket for ever.
            self._io_loop.call_later(_LINGER_TIMEOUT, self.close)
        elif self._fd >= 0:
            self._shut()

    def _shut(self) -> None:
        _linger(self._io_loop, self._stream.socket)
        self._stream.close()

    def stream_closing(self) -> None:
        """The stream is about to close its descriptor, whoever asked for it."""
        if self._corked and self._backlog is None:
            # What was written before must be with the kernel, as it would be on a stream of Tornado's.
            with contextlib.suppress(OSError):
                self._stream.write_to_fd(memoryview(self._take_corked()))
        self._paused = True
        self._backlog = None
        self._poller.remove(self)
        self._fd = -1
        for _, future in self._drain_futures or ():
            _fail(future)
        self._drain_futures = None
        self._io_loop.add_callback(self.dispatch, self._receiver.connection_lost)

    def _watch(self) -> None:
        events = (0 if self._paused else READ) | (WRITE if self._backlog is not None else 0)
        if events != self._events:
            self._events = events
            self._poller.watch(self, events)


def _take_over(stream: IOStream, transport: Transport) -> int:
    """Take ``stream`` off its IOLoop and route its closing and writing through ``transport``; returns the fd."""
    if stream._state is not None:
        stream.io_loop.remove_handler(stream.fileno())
        stream._state = None
    close_fd = stream.close_fd

    def closing() -> None:
        del stream.close_fd, stream.write
        transport.stream_closing()
        close_fd()

    def write(data: bytes | memoryview) -> asyncio.Future[None]:
        return transport.write(bytes(data))

    vars(stream)["close_fd"] = closing
    vars(stream)["write"] = write
    return stream.socket.fileno()


def take_read_bytes(stream: IOStream) -> bytes:
    """Return the bytes that ``stream`` had read beyond the opening handshake."""
    size = stream._read_buffer_size
    if not size:
        return b""
    future = stream.read_bytes(size, partial=True)
    return future.result()  # type: ignore[attr-defined, no-any-return]


def peer_has_closed(stream: IOStream) -> bool:
    """Whether the peer is known to be gone, though nothing was read since."""
    if stream.closed():
        return True
    if isinstance(stream.socket, ssl.SSLSocket):
        return False
    try:
        return stream.socket.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def peer_name(stream: IOStream) -> str:
    """Return the peer's address for a log line."""
    try:
        address = stream.socket.getpeername()
    except (OSError, AttributeError):
        return "unknown peer"
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "Unix socket peer"


def _fail(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(WebSocketClosedError())
        # Retrieved here, so that a write which nobody awaited logs no traceback.
        future.exception()


def _completed_future(io_loop: IOLoop) -> asyncio.Future[None]:
    """Return the one Future of a loop that is done: what most writes return."""
    future: asyncio.Future[None] | None = vars(io_loop).get("_ws_done")
    if future is None:
        future = vars(io_loop)["_ws_done"] = asyncio.Future(loop=io_loop.asyncio_loop)  # type: ignore[attr-defined]
        future.set_result(None)
    return future


def _read_buffer(io_loop: IOLoop) -> memoryview:
    buffer: memoryview | None = vars(io_loop).get("_ws_read_buffer")
    if buffer is None:
        buffer = vars(io_loop)["_ws_read_buffer"] = memoryview(bytearray(_READ_SIZE))
    return buffer


def _linger(io_loop: IOLoop, connected: socket.socket) -> None:
    """Send FIN on a duplicate of ``connected`` and read on until the peer has closed too.

    Closing a socket with unread input sends RST, and what we sent before may be lost to the peer, the close frame
    first of all (RFC 6455 section 7.1.1 has the endpoint wait for the same reason).
    """
    rest = socket.fromfd(connected.fileno(), connected.family, connected.type)
    rest.setblocking(False)
    try:
        rest.shutdown(socket.SHUT_WR)
    except OSError:
        rest.close()
        return

    def finish() -> None:
        io_loop.remove_timeout(timeout)
        io_loop.remove_handler(rest)
        rest.close()

    def discard(fd: Any, events: int) -> None:
        try:
            if rest.recv(_SEND_SIZE):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        finish()

    timeout = io_loop.call_later(_LINGER_TIMEOUT, finish)
    io_loop.add_handler(rest, discard, READ)
