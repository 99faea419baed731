"""Plain sockets: what the operating system holds of them unsent, and how they are closed so that the peer gets it."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Any

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


from tornado.ioloop import IOLoop

from tornado_ws.engine.contract import READ_SIZE

#: Bytes that a close frame and close_notify take together at most, each in a record of TLS.
_CLOSE_SIZE = 256


def unacknowledged(connected: socket.socket) -> int:
    """Return how many bytes the operating system holds that the peer has not acknowledged; 0 where it does not tell."""
    return _held(connected, _SIOCOUTQ)


def may_lose_messages(connected: socket.socket) -> bool:
    """Return whether a reset by a peer that goes on sending could cost it messages that it has not acknowledged."""
    left = unacknowledged(connected)
    # What is not sent is not acknowledged either.
    return left > 0 and (left > _CLOSE_SIZE or _held(connected, _SIOCOUTQNSD) > 0)


def _held(connected: socket.socket, request: int | None) -> int:
    if request is None:
        return 0
    try:
        answer = fcntl.ioctl(connected.fileno(), request, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(answer, sys.byteorder)


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
        left = unacknowledged(rest)
        if 0 < left < before:
            timeout = io_loop.call_later(seconds, finish_unless_taken, left)
        else:
            finish()

    timeout = io_loop.call_later(seconds, finish_unless_taken, unacknowledged(rest))
    try:
        rest.setblocking(False)
        rest.shutdown(socket.SHUT_WR)
    except OSError:
        finish()
        return
    # Where the kernel has no room to watch one more, the peer still has the time until the timeout to read.
    with contextlib.suppress(OSError):
        io_loop.add_handler(rest, discard, IOLoop.READ)
