"""Surgery on Tornado's `.IOStream` and `.HTTP1Connection`, and on the sockets under them: all of it is here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections import deque
from typing import Any, Protocol

try:
    import fcntl
    import termios
except ImportError:
    # Windows.
    _SIOCOUTQ = _SIOCOUTQNSD = None
else:
    # The same number as TIOCOUTQ, and on Linux alone for sockets.
    _SIOCOUTQ = termios.TIOCOUTQ if sys.platform == "linux" else None
    # From <linux/sockios.h>.
    _SIOCOUTQNSD = 0x894B if sys.platform == "linux" else None

from tornado import httputil
from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from tornado_ws.engine.contract import READ_SIZE, SEND_SIZE

_NO_WRITE_FUTURES: deque[tuple[int, asyncio.Future[None]]] = deque()
_NOBODY: frozenset[str] = frozenset()
#: Bytes that a close frame and close_notify take together at most, each in a record of TLS.
_CLOSE_SIZE = 256


class Successor(Protocol):
    """What a stream closes and writes through once its descriptor is not its own."""

    def close_fd(self) -> None:
        """Called in the place of the stream's own: it is about to close its descriptor."""

    def write_for_stream(self, data: bytes | memoryview) -> asyncio.Future[None]:
        """Called in the place of the stream's own ``write``."""


def stop_watching(stream: IOStream) -> None:
    """Take ``stream`` off its IOLoop: an idle one reads on by itself, and an end closes it with what it holds."""
    if stream._state is not None:
        stream.io_loop.remove_handler(stream.fileno())
        stream._state = None


def take_over(stream: IOStream, successor: Successor) -> bytes:
    """Take ``stream`` off its IOLoop, and let it close and write through ``successor``; return what it has unsent."""
    stop_watching(stream)
    unsent = bytearray()
    while stream._write_buffer:
        piece = bytes(stream._write_buffer.peek(SEND_SIZE))
        stream._write_buffer.advance(len(piece))
        unsent += piece
    # What waits for these is the HTTP connection, which would go on with a stream that it no longer has. Nothing is
    # written through the stream from here on, and empty ones of its own have 760 bytes each.
    stream._write_futures = _NO_WRITE_FUTURES
    stream._write_buffer = None  # type: ignore[assignment]
    stream.close_fd = successor.close_fd  # type: ignore[method-assign]
    stream.write = successor.write_for_stream  # type: ignore[method-assign]
    return bytes(unsent)


def take_read_bytes(stream: IOStream) -> bytes:
    """Return the bytes that ``stream`` had read beyond the opening handshake."""
    size = stream._read_buffer_size
    if not size:
        return b""
    future = stream.read_bytes(size, partial=True)
    return future.result()  # type: ignore[attr-defined, no-any-return]


def peer_has_closed(stream: IOStream) -> bool:
    """Whether the peer is known to be gone, and left nothing to be delivered."""
    if stream.closed():
        return True
    if isinstance(stream.socket, ssl.SSLSocket) or stream._read_buffer_size:
        return False
    return unread(stream) == b""


def unread(stream: IOStream) -> bytes | None:
    """Return a byte of what the kernel has from the peer, b"" at the end of the connection, None for nothing yet."""
    try:
        # Past what TLS makes of it: this is about bytes.
        return socket.socket.recv(stream.socket, 1, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def unacknowledged(stream: IOStream) -> int:
    """Return how many bytes the operating system holds that the peer has not acknowledged; 0 where it does not tell."""
    return 0 if stream.closed() else _queued(stream.socket, _SIOCOUTQ)


def may_lose_messages(stream: IOStream) -> bool:
    """Whether a reset by a peer that goes on sending could cost it messages that are with the operating system."""
    return _queued(stream.socket, _SIOCOUTQNSD) > 0 or _queued(stream.socket, _SIOCOUTQ) > _CLOSE_SIZE


def _queued(connected: socket.socket, request: int | None) -> int:
    if request is None:
        return 0
    try:
        answer = fcntl.ioctl(connected.fileno(), request, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(answer, sys.byteorder)


def send_close_notify(stream: IOStream) -> bool:
    """Tell a peer behind TLS that nothing follows (RFC 8446 section 6.1): else it has to take the end for a cut.

    Returns False when the kernel has no room for that now, and it is to be tried again.
    """
    if isinstance(stream.socket, ssl.SSLSocket):
        try:
            stream.socket.unwrap()
        except ssl.SSLWantWriteError:
            return False
        except (OSError, ValueError):
            # The peer's has not come: for a socket without blocking that is an error.
            pass
    return True


def peer_name(stream: IOStream) -> str:
    """Return the peer's address for a log line."""
    try:
        address = stream.socket.getpeername()
    except (OSError, AttributeError):
        return "unknown peer"
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "Unix socket peer"


def detach(connected: socket.socket) -> socket.socket:
    """Return a plain socket with the descriptor of ``connected``, which has none any more.

    Not with a duplicate: a process that is out of descriptors has to be able to close connections.
    """
    fd = connected.detach()
    try:
        return socket.socket(connected.family, connected.type, connected.proto, fileno=fd)
    except BaseException:
        socket.close(fd)
        raise


def linger(io_loop: IOLoop, rest: socket.socket, seconds: float) -> None:
    """Send FIN on ``rest``, read on until the peer has closed too, and close it: for a peer that may be sending.

    It is closed in any case when the peer has acknowledged nothing for ``seconds``, or everything.

    Closing a socket with unread input sends RST, and so does what comes when it is closed. What we sent before may be
    lost to the peer then, the close frame first of all (RFC 6455 section 7.1.1 has the endpoint wait for the same
    reason).
    """

    timeout: object

    def finish() -> None:
        io_loop.remove_timeout(timeout)
        io_loop.remove_handler(rest)
        rest.close()

    def discard(fd: Any, events: int) -> None:
        try:
            if rest.recv(READ_SIZE):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        finish()

    def finish_unless_taken(before: int) -> None:
        nonlocal timeout
        left = _queued(rest, _SIOCOUTQ)
        if 0 < left < before:
            timeout = io_loop.call_later(seconds, finish_unless_taken, left)
        else:
            finish()

    timeout = io_loop.call_later(seconds, finish_unless_taken, _queued(rest, _SIOCOUTQ))
    try:
        rest.setblocking(False)
        rest.shutdown(socket.SHUT_WR)
    except OSError:
        finish()
        return
    # Where the kernel has no room to watch one more, the peer still has the time until the timeout to read.
    with contextlib.suppress(OSError):
        io_loop.add_handler(rest, discard, IOLoop.READ)


def free_http_state(request: httputil.HTTPServerRequest, done: asyncio.Future[None]) -> None:
    """Free what HTTP keeps of an upgraded request though nobody asks for it again: half a kilobyte, mostly Futures.

    ``done`` stands for those that are done.
    """
    http, server = request.connection, getattr(request, "server_connection", None)
    if isinstance(http, HTTP1Connection) and isinstance(server, HTTP1ServerConnection):
        http._pending_write = None
        http._finish_future = done
        if not getattr(http.context, "trusted_downstream", True):
            http.context.trusted_downstream = _NOBODY  # type: ignore[attr-defined]
        if server._serving_future is not None:
            # It ends when HTTP sees that it no longer has the stream.
            server._serving_future.add_done_callback(lambda _: setattr(server, "_serving_future", done))
