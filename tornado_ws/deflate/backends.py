"""The libraries that deflate and inflate: zlib, and two faster ones that may be installed.

They agree in what they read and write (RFC 1951), and nearly in how they are called: what differs is told by `Backend`.
"""

from __future__ import annotations

import functools
import importlib
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from tornado_ws import engine
from tornado_ws.deflate.interfaces import Deflating, Inflating, Live
from tornado_ws.deflate.module_streams import Deflater, Inflater

#: Tornado's level, for both HTTP and WebSocket compression.
DEFAULT_LEVEL = 6
#: The fastest of zlib-ng and ISA-L that make small payloads small.
_FAST_LEVEL = 1
#: zlib-ng alone: its level 1 makes large payloads a third larger than the next one.
_FAST_LEVEL_ALONE = 2

#: Bytes of a message from which ISA-L is the faster one to deflate with, and of a payload to inflate with.
LARGE_MESSAGE = 2048
LARGE_PAYLOAD = 512

BACKENDS = ("zlib", "zlib_ng", "isal", "auto")


class Backend(NamedTuple):
    """One library. ``memory`` is what a compressor takes beside its window and ``mem_level``, in bytes.

    ``prefix`` is what the names of its C functions begin with; None where they are not those of zlib.
    """

    name: str
    module: Any
    levels: tuple[int, int]
    default_level: int
    strategies: tuple[int, ...]
    memory: int
    prefix: str | None


class Codec(NamedTuple):
    """A backend with its parameters. Equal ones can do each other's work."""

    backend: Backend
    level: int
    mem_level: int
    strategy: int

    def make_deflater(self, wbits: int, history: bytes = b"", admit: Callable[[Live], bool] | None = None) -> Deflating:
        """Return a deflater whose peer has ``history`` in its window; ``admit`` is asked whether it may stay live."""
        library = library_of(self.backend)
        if library is None:
            return Deflater(self, wbits, history, admit)
        arguments = (self.level, wbits, self.mem_level, self.strategy, self.memory(wbits))
        made: Deflating = library.make_deflater(*arguments, history, admit)
        return made

    def make_inflater(self, wbits: int, history: bytes = b"", admit: Callable[[Live], bool] | None = None) -> Inflating:
        """Return an inflater whose peer may refer back to ``history``; ``admit`` is asked whether it may stay live."""
        library = library_of(self.backend)
        if library is None:
            return Inflater(self, wbits, history)
        made: Inflating = library.make_inflater(wbits, history, admit)
        return made

    def make_compressor(self, wbits: int, history: bytes = b"") -> Any:
        """Return a compressor of the backend's own that may refer to ``history``."""
        arguments = (self.level, zlib.DEFLATED, -wbits, self.mem_level, self.strategy)
        make = self.backend.module.compressobj
        return make(*arguments, history) if history else make(*arguments)

    def make_decompressor(self, wbits: int, history: bytes | bytearray = b"") -> Any:
        """Return a decompressor of the backend's own whose window holds ``history``."""
        make = self.backend.module.decompressobj
        return make(-wbits, zdict=history) if history else make(-wbits)

    def memory(self, wbits: int) -> int:
        """Return about how many bytes a compressor takes."""
        return (1 << (wbits + 2)) + (1 << (self.mem_level + 9)) + self.backend.memory

    @property
    def error(self) -> type[Exception]:
        error: type[Exception] = self.backend.module.error
        return error


class Codecs(NamedTuple):
    """Which codec does what, by size."""

    deflate_small: Codec
    deflate_large: Codec
    inflate_small: Codec
    inflate_large: Codec

    def to_deflate(self, size: int) -> Codec:
        """Return the codec for a message of ``size`` bytes."""
        return self.deflate_small if size < LARGE_MESSAGE else self.deflate_large

    def to_inflate(self, size: int) -> Codec:
        """Return the codec for a payload of which ``size`` bytes have come."""
        return self.inflate_small if size < LARGE_PAYLOAD else self.inflate_large


_ANY_STRATEGY = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)


@functools.cache
def library_of(backend: Backend) -> Any:
    """Return what the native engine has in the place of the backend's module, None where that cannot be."""
    if backend.prefix is None or engine.name != "native":
        return None
    try:
        return importlib.import_module("tornado_ws.deflate._deflate").Library(backend.module, backend.prefix)
    except ImportError:
        return None


@functools.cache
def _find(name: str) -> Backend | None:
    if name == "zlib":
        return Backend(name, zlib, (-1, 9), DEFAULT_LEVEL, _ANY_STRATEGY, 6 * 1024, "")
    try:
        module = importlib.import_module(f"{name}.{name}" if name == "zlib_ng" else "isal.isal_zlib")
    except ImportError:
        return None
    if name == "zlib_ng":
        return Backend(name, module, (-1, 9), DEFAULT_LEVEL, _ANY_STRATEGY, 134 * 1024, "zng_")
    return Backend(name, module, (0, 3), _FAST_LEVEL, (zlib.Z_DEFAULT_STRATEGY,), 200 * 1024, None)


def choose_codecs(backend: str, level: int | None, mem_level: int, strategy: int) -> Codecs:
    """Return the codecs of a backend by name. Raises ValueError where it is missing or lacks the level or strategy.

    "auto" without a level is the fastest of what is installed: zlib-ng for small messages and ISA-L for large ones.
    With a level, or a strategy, it is zlib-ng if that is there, which takes half the time of zlib at the same level.
    """
    if backend != "auto":
        codec = _make_codec(_get(backend), level, mem_level, strategy)
        return Codecs(codec, codec, codec, codec)
    zlib_ng, isal = _find("zlib_ng"), _find("isal")
    plain = _make_codec(_get("zlib"), level, mem_level, strategy)
    small = large = inflate_small = inflate_large = plain
    if zlib_ng is not None and library_of(zlib_ng) is not None:
        # It goes on from message to message, where ISA-L would begin anew with a window to be filled.
        inflate_small = inflate_large = replace_backend(plain, zlib_ng)
    else:
        inflate_large = replace_backend(plain, isal or zlib_ng or plain.backend)
    if level is not None or strategy != zlib.Z_DEFAULT_STRATEGY:
        if zlib_ng is not None:
            small = large = _make_codec(zlib_ng, level, mem_level, strategy)
    elif zlib_ng is not None and isal is not None:
        small = _make_codec(zlib_ng, _FAST_LEVEL, mem_level, strategy)
        large = _make_codec(isal, _FAST_LEVEL, mem_level, strategy)
    elif isal is not None:
        small = large = _make_codec(isal, _FAST_LEVEL, mem_level, strategy)
    elif zlib_ng is not None:
        small = large = _make_codec(zlib_ng, _FAST_LEVEL_ALONE, mem_level, strategy)
    return Codecs(small, large, inflate_small, inflate_large)


def replace_backend(codec: Codec, backend: Backend) -> Codec:
    """Return ``codec`` for inflating only, where level and strategy do not matter."""
    return Codec(backend, codec.level, codec.mem_level, codec.strategy)


def _get(name: str) -> Backend:
    backend = _find(name)
    if backend is None:
        package = name.replace("_", "-")
        raise ValueError(f"backend is {name!r}, which is not installed: pip install {package}, or tornado_ws[fast]")
    return backend


def _make_codec(backend: Backend, level: int | None, mem_level: int, strategy: int) -> Codec:
    lowest, highest = backend.levels
    if level is None:
        level = backend.default_level
    if not lowest <= level <= highest:
        raise ValueError(f"compression_level is {level}; backend {backend.name!r} has {lowest} to {highest}")
    if strategy not in backend.strategies:
        raise ValueError(f"strategy is {strategy}; backend {backend.name!r} has no other than {backend.strategies}")
    return Codec(backend, level, mem_level, strategy)
