"""Interfaces between the codec of a connection, its streams of deflate and the libraries that they call."""

from __future__ import annotations

from typing import Any, Protocol


class Live(Protocol):
    """A stream that takes ``memory`` bytes between two messages while it is ``live``."""

    memory: int
    #: Whether it was used since the pool last looked for streams to freeze.
    used: bool

    @property
    def live(self) -> bool: ...

    def freeze(self) -> bool:
        """Keep only what it takes to go on; false where that cannot be now."""


class Deflating(Live, Protocol):
    """Deflates messages."""

    @property
    def history(self) -> bytes:
        """The last bytes that the peer has in its window, so far as they are of use."""

    def deflate(self, data: bytes) -> bytes:
        """Return the payload of a message, its tail removed, which may refer to those before it."""

    def deflate_alone(self, data: bytes) -> bytes:
        """Return the payload of a message that refers to nothing before it, nor does what follows refer to it."""

    def sent(self, data: bytes) -> None:
        """The peer got ``data`` otherwise."""

    def forget(self) -> None:
        """Let the next message refer to nothing before it."""


class Inflating(Live, Protocol):
    """Inflates messages. ``error`` is what it raises for what does not inflate."""

    error: type[Exception]

    @property
    def history(self) -> bytes:
        """What the peer may refer back to."""

    def inflate(self, data: bytes, room: int) -> bytes:
        """Return what ``data`` inflates to, ``room`` bytes at most; what did not fit comes first the next time."""

    def end(self) -> bool:
        """Put the tail behind a message; returns whether its stream ends there, between two blocks."""


class ModuleCodec(Protocol):
    """A module like zlib with the parameters for its objects."""

    @property
    def error(self) -> type[Exception]:
        """What they raise for what does not inflate."""

    def make_compressor(self, wbits: int, history: bytes = b"") -> Any:
        """Return a compressor that may refer to ``history``."""

    def make_decompressor(self, wbits: int, history: bytes | bytearray = b"") -> Any:
        """Return a decompressor whose window holds ``history``."""

    def memory(self, wbits: int) -> int:
        """Return about how many bytes a compressor takes."""
