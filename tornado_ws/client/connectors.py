"""Ways to a server other than a TCP connect of our own: what they are given, and the simple ones."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any, Protocol, TypeAlias

from tornado.iostream import IOStream, SSLIOStream

from tornado_ws.escaping import shown

#: As a `.Resolver` gives it: the family, and what ``socket.connect`` takes.
Address: TypeAlias = "tuple[int, Any]"

#: As in `.HTTPRequest`.
SslOptions: TypeAlias = "dict[str, Any] | ssl.SSLContext"


class Opener(Protocol):
    """What opens streams, and closes each of them when the connect is given up."""

    #: What a timeout would interrupt, for its message.
    phase: str

    async def resolve(self, host: str, port: int, af: int, hop: str = "") -> list[Address]:
        """Return the addresses of ``host``, the families in turn."""

    async def open_tcp(self, host: str, port: int, af: int, hop: str = "") -> IOStream:
        """Return a stream to the first address of ``host`` that takes the connection; ``hop`` is for a timeout."""

    async def start_tls(self, stream: IOStream, name: str, ssl_options: SslOptions) -> SSLIOStream:
        """Return ``stream`` with TLS over it; ``name`` is what its certificate has to be for."""

    def own(self, stream: IOStream) -> IOStream:
        """Return ``stream``, which is closed when the connect is given up."""


class Connector(Protocol):
    """One way to a server."""

    async def connect(self, opener: Opener, host: str, port: int, af: int, over_tls: bool) -> IOStream:
        """Return a stream whose other end is the server.

        :param af: AF_INET where IPv6 is not wanted, else AF_UNSPEC.
        :param over_tls: whether the caller begins TLS on it.
        """

    def give_up(self) -> None:
        """Called when the connect is given up or failed; streams that the opener owns are closed by itself."""


class UnixConnector:
    """Connects to a Unix domain socket."""

    def __init__(self, path: str | bytes) -> None:
        self._path = path

    async def connect(self, opener: Opener, host: str, port: int, af: int, over_tls: bool) -> IOStream:
        opener.phase = f"connecting to {self}"
        stream = opener.own(IOStream(socket.socket(socket.AF_UNIX)))
        try:
            return await stream.connect(self._path)
        except OSError as error:
            # A StreamClosedError has the error of the system in it.
            real = getattr(error, "real_error", None) or error
            number, text = getattr(real, "errno", None), getattr(real, "strerror", None) or str(real)
            words = f"cannot connect to {self}: {text}"
            raise (OSError(number, words) if number else OSError(words)) from error

    def give_up(self) -> None:
        pass

    def __str__(self) -> str:
        return f"the Unix socket {shown(self._path)}"


class SocketConnector:
    """Uses a socket that somebody else has connected."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, opener: Opener, host: str, port: int, af: int, over_tls: bool) -> IOStream:
        return opener.own(IOStream(self._sock))

    def give_up(self) -> None:
        self._sock.close()


def checked_unix(path: Any) -> str | bytes:
    """Return the path of a Unix socket. Raises ValueError for what is no path, or where there are no such sockets."""
    if not hasattr(socket, "AF_UNIX"):
        raise ValueError(f"unix is {shown(path)}; this system has no Unix sockets")
    try:
        found: str | bytes = os.fspath(path)
    except TypeError:
        found = b""
    if not found:
        raise ValueError(f"unix is {shown(path)}; it has to be the path of a Unix socket: a str, bytes or os.PathLike")
    return found


def checked_socket(sock: Any) -> socket.socket:
    """Return ``sock``. Raises ValueError unless it is a socket of a stream that is connected."""
    if not isinstance(sock, socket.socket) or isinstance(sock, ssl.SSLSocket) or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"sock is {shown(sock)}; it has to be a socket.socket of type SOCK_STREAM, without TLS")
    try:
        sock.getpeername()
    except OSError as error:
        raise ValueError(f"sock is {shown(sock)}; it has to be connected ({error.strerror})") from None
    return sock
