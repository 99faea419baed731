"""Other people's WebSocket implementations, behind one face, for ``tests/test_peers.py``.

A `Peer` makes connections as a server or as a client, and a `Theirs` is its end of one. Each is driven from the test,
message by message: nothing here echoes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Closed(NamedTuple):
    """What an end has from the close frame of the other."""

    code: int | None
    reason: str | None


class Refused(Exception):
    """The server answered the handshake of a peer with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Deflate:
    """What a peer offers as a client, or insists on as a server (RFC 7692 section 7.1)."""

    no_context_takeover: bool = False
    max_window_bits: int | None = None


@dataclass(frozen=True)
class Options:
    deflate: Deflate | None = None
    subprotocols: Sequence[str] = ()
    #: As a server: the status with which to refuse every handshake.
    refuse: int | None = None


#: The header of a refusal, which has to reach the client.
REFUSAL_HEADER = ("WWW-Authenticate", 'Bearer realm="peers"')


class Theirs(Protocol):
    """A peer's end of an open connection."""

    #: As in the 101: the Sec-WebSocket-Extensions header and the subprotocol, empty where there is none.
    extensions: str
    subprotocol: str

    async def send(self, message: str | bytes) -> None: ...

    async def send_fragments(self, parts: Sequence[bytes], *, text: bool, ping: bytes) -> None:
        """Send a message in fragments, with a ``ping`` after the first, and its pong awaited before the second."""

    async def receive(self) -> str | bytes: ...

    async def ping(self, payload: bytes) -> None:
        """Return when the pong with this payload is there."""

    async def close(self, code: int | None, reason: str) -> None:
        """Start the closing handshake, without a code if it is None."""

    async def closed(self) -> Closed: ...


class Server(NamedTuple):
    url: str
    accepted: Callable[[], Awaitable[Theirs]]


class Peer(Protocol):
    def connect(self, url: str, options: Options) -> AbstractAsyncContextManager[Theirs]:
        """Connect to our server; raises `Refused`."""

    def serve(self, options: Options) -> AbstractAsyncContextManager[Server]:
        """Listen for one connection."""
