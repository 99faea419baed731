"""Surgery on Tornado's `.IOStream` and `.HTTP1Connection`, and on the sockets under them: all of it is here."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol

from tornado import httputil
from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from tornado_ws.engine.contract import SEND_SIZE
from tornado_ws.engine.openssl_errors import forget_errors

_NO_WRITE_FUTURES: deque[tuple[int, asyncio.Future[None]]] = deque()
_NOBODY: frozenset[str] = frozenset()


class Successor(Protocol):
    """What a stream closes and writes through once its descriptor is not its own."""

    def close_fd(self) -> None:
        """Called in the place of the stream's own: it is about to close its descriptor."""

    def write_for_stream(self, data: bytes | memoryview) -> asyncio.Future[None]:
        """Called in the place of the stream's own ``write``."""


def send_at_once(stream: IOStream) -> None:
    """Do what ``stream.set_nodelay(True)`` does, without asking for the family of its socket: that makes an enum."""
    if type(stream).set_nodelay is not IOStream.set_nodelay:
        stream.set_nodelay(True)
        return
    try:  # noqa: SIM105 - a context manager is three calls
        stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        # A Unix socket has nothing of the kind, and one that is closed needs it no more.
        pass


def is_used(stream: IOStream) -> bool:
    """Whether somebody has read from ``stream``, or it is on its IOLoop already."""
    return stream._state is not None or stream._read_buffer_size > 0


def watch_as(stream: IOStream, on_close: Callable[[], None]) -> None:
    """Let ``stream`` take the handler of its socket for its own: whoever closes it, takes that off the loop."""
    stream._state = IOLoop.READ
    tell_of_end(stream, on_close)


def tell_of_end(stream: IOStream, on_close: Callable[[], None] | None) -> None:
    """Do what ``stream.set_close_callback`` does, but watch for no end that comes from the peer."""
    stream._close_callback = on_close


def watch_for_end(stream: IOStream) -> None:
    """Watch for an end that comes from the peer, unless nobody is to be told."""
    stream._maybe_add_error_listener()


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


def give_back(stream: IOStream, data: bytes) -> None:
    """Let ``stream`` have read ``data``, which somebody else has taken from its socket before anything was read."""
    stream._read_buffer += data
    stream._read_buffer_size += len(data)


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
        # Not SSLSocket.recv: this asks for bytes of the socket, not for decrypted ones.
        recv = socket.socket.recv if isinstance(stream.socket, ssl.SSLSocket) else type(stream.socket).recv
        return recv(stream.socket, 1, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


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
            # The peer's close_notify has not come; on a non-blocking socket that is an error.
            forget_errors()
    return True


def peer_name(stream: IOStream) -> str:
    """Return the peer's address for a log line."""
    try:
        address = stream.socket.getpeername()
    except (OSError, AttributeError):
        return "unknown peer"
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "Unix socket peer"


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
