"""Sockets without the operating system: two ends in memory, and what tells their streams when they are ready.

What has taken over an `.IOStream` asks three things of it: a socket that gives and takes bytes, a number for it, and a
loop that says when it is ready. `MemorySocket` is such a socket, of no descriptor, and `MemoryLoop` such a loop. The
code of both ends is what runs over TCP: an IOStream whose socket is no `socket.socket` is read and written through its
own ``read_from_fd`` and ``write_to_fd`` by either engine, and watched with a `LoopPoller`.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from tornado_ws.transport.poller import LoopPoller, poller_of

#: No descriptor of a process is so high: whoever asks the operating system about one is told that there is none.
_NUMBERS = itertools.count(1 << 30)


class _Pipe:
    """Bytes on their way in one direction, ``size`` of them at most."""

    def __init__(self, size: int, changed: Callable[[], None]) -> None:
        self.bytes = bytearray()
        self.size = size
        #: Whether the writer has ended it, and whether the reader has gone.
        self.has_ended = self.is_broken = False
        self.changed = changed


class MemorySocket:
    """One end of two; `memory_streams` makes them. It has those methods of a `socket.socket` that streams use.

    An end that is closed has not reset: what it sent can still be read, and then the end.
    """

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._number = next(_NUMBERS)

    def fileno(self) -> int:
        """Return a number that is no descriptor; -1 when it is closed."""
        return self._number

    def readiness(self) -> int:
        """Return the events of an IOLoop that there are: READ, WRITE."""
        can_read = self._incoming.bytes or self._incoming.has_ended
        can_write = self._outgoing.is_broken or len(self._outgoing.bytes) < self._outgoing.size
        return (IOLoop.READ if can_read else 0) | (IOLoop.WRITE if can_write else 0)

    def recv(self, most: int, flags: int = 0) -> bytes:
        if not self._incoming.bytes and not self._incoming.has_ended:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        data = bytes(self._incoming.bytes[:most])
        if not flags & socket.MSG_PEEK:
            del self._incoming.bytes[:most]
            self._incoming.changed()
        return data

    def recv_into(self, buffer: bytearray | memoryview, most: int) -> int:
        data = self.recv(most)
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        if self._outgoing.is_broken:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        piece = data[: self._outgoing.size - len(self._outgoing.bytes)]
        if data and not piece:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._outgoing.bytes += piece
        self._outgoing.changed()
        return len(piece)

    def close(self) -> None:
        self._number = -1
        self._incoming.is_broken = self._outgoing.has_ended = True
        self._incoming.bytes.clear()
        self._incoming.changed()

    def detach(self) -> int:
        # What would be done with a descriptor is for peers that may reset.
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 0)

    def setblocking(self, flag: bool) -> None:
        pass

    def setsockopt(self, level: int, name: int, value: int) -> None:
        pass


class _Watch(NamedTuple):
    watched: Any
    sock: MemorySocket
    handler: Callable[[Any, int], None]
    events: int


class MemoryLoop:
    """An IOLoop for sockets in memory. Whatever it is asked but which of them are ready, it asks the IOLoop below.

    In each turn of the loop a socket that is ready is served once.
    """

    def __init__(self, io_loop: IOLoop) -> None:
        self._io_loop = io_loop
        self._sockets: dict[int, MemorySocket] = {}
        self._watches: dict[int, _Watch] = {}
        self._is_due = False
        loop: Any = self
        poller_of(loop, LoopPoller)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._io_loop, name)

    def stream(self, sock: MemorySocket) -> IOStream:
        """Return a stream that is watched here."""
        ours: Any = sock
        stream = IOStream(ours)
        loop: Any = self
        stream.io_loop = loop
        self._sockets[sock.fileno()] = sock
        return stream

    def add_handler(self, watched: Any, handler: Callable[[Any, int], None], events: int) -> None:
        number = watched.fileno()
        self._watches[number] = _Watch(watched, self._sockets[number], handler, events)
        self.look()

    def update_handler(self, watched: Any, events: int) -> None:
        number = watched.fileno()
        self._watches[number] = self._watches[number]._replace(events=events)
        self.look()

    def remove_handler(self, watched: Any) -> None:
        self._watches.pop(watched.fileno(), None)

    def look(self) -> None:
        """Serve what is ready in the next turn of the loop."""
        if not self._is_due and any(watch.events & watch.sock.readiness() for watch in self._watches.values()):
            self._is_due = True
            self._io_loop.add_callback(self._serve)

    def _serve(self) -> None:
        self._is_due = False
        try:
            for number in list(self._watches):
                watch = self._watches.get(number)
                if watch is not None and (events := watch.events & watch.sock.readiness()):
                    watch.handler(watch.watched, events)
        finally:
            self._sockets = {number: sock for number, sock in self._sockets.items() if sock.fileno() >= 0}
            self.look()


def memory_loop() -> MemoryLoop:
    """Return the one of the current IOLoop, kept on it so that it goes with it."""
    io_loop = IOLoop.current()
    loop: MemoryLoop | None = vars(io_loop).get("_ws_memory_loop")
    if loop is None:
        loop = vars(io_loop)["_ws_memory_loop"] = MemoryLoop(io_loop)
    return loop


def memory_streams(buffer_size: int) -> tuple[IOStream, IOStream]:
    """Return two connected streams; each holds ``buffer_size`` bytes that the other has not read."""
    loop = memory_loop()
    one, other = _Pipe(buffer_size, loop.look), _Pipe(buffer_size, loop.look)
    return loop.stream(MemorySocket(one, other)), loop.stream(MemorySocket(other, one))
