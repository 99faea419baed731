"""What can be set about permessage-deflate: the dict of ``get_compression_options`` and ``compression_options``."""

from __future__ import annotations

import functools
import weakref
import zlib
from collections.abc import Callable, Container, Mapping
from typing import Any

from tornado.log import gen_log

from tornado_ws.deflate.backends import BACKENDS, Codecs, choose_codecs
from tornado_ws.deflate.streams import LiveStreams

#: zlib cannot deflate with a window of 256 bytes (it needs 262 bytes of look-ahead).
MIN_DEFLATE_WBITS = 9


class DeflateOptions:
    """The options of permessage-deflate on one side. Connections with equal ones share one instance.

    They are given by name, and are not changed after that.

    "server" and "client" are those of RFC 7692 section 7.1, on either side: a client that names ``max_wbits`` asks the
    server to keep to that window.
    """

    #: 0 to 9, more is smaller and slower; by default the backend's own: 6 for zlib and zlib_ng, 1 for isal (0 to 3).
    compression_level: int | None = None
    #: 1 to 9: memory of a compressor beside its window, ``2**(mem_level + 9)`` bytes.
    mem_level: int = 8
    #: Largest window of the server, 9 to 15: ``2**max_wbits`` bytes on the client's side, four times that on its own.
    max_wbits: int = zlib.MAX_WBITS
    #: Largest window of the client, 9 to 15. A server can ask for it only of clients that offer to be asked.
    client_max_wbits: int = zlib.MAX_WBITS
    #: Whether each message of the server, or client, stands alone: larger, and no memory between messages.
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    #: Messages of less than so many bytes are sent uncompressed.
    threshold: int = 0
    #: zlib's strategy, one of its numbers.
    strategy: int = zlib.Z_DEFAULT_STRATEGY
    #: "zlib", "zlib_ng", "isal", or "auto" for the fastest of what is installed.
    backend: str = "zlib"
    #: A message above 64 KiB that inflates to more than so many times its payload is refused with 1009. None: any may.
    max_ratio: float | None = None
    #: Bytes from which a message is deflated, and beyond which one is inflated, by a thread. None: never.
    offload_size: int | None = None
    #: Bytes that the live streams of all connections with these options may take together.
    takeover_memory: int = 16 * 1024 * 1024

    def __init__(self, **given: Any) -> None:
        vars(self).update(given)

    @functools.cached_property
    def codecs(self) -> Codecs:
        return choose_codecs(self.backend, self.compression_level, self.mem_level, self.strategy)

    @functools.cached_property
    def live(self) -> LiveStreams:
        return LiveStreams(self.takeover_memory)


def _is_in(lowest: int, highest: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and lowest <= value <= highest


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _or_none(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or accepts(value)


def _is_ratio(value: Any) -> bool:
    return type(value) in (int, float) and 1 <= value < float("inf")


_WINDOW = (_is_in(MIN_DEFLATE_WBITS, zlib.MAX_WBITS), "a number of bits from 9 to 15")
_FLAG = (_is_flag, "True or False")

#: What a value has to be, as a function and in words.
_ACCEPTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "compression_level": (_or_none(_is_in(-1, 9)), "a level from 0 to 9"),
    "mem_level": (_is_in(1, 9), "a level from 1 to 9"),
    "max_wbits": _WINDOW,
    "client_max_wbits": _WINDOW,
    "server_no_context_takeover": _FLAG,
    "client_no_context_takeover": _FLAG,
    "threshold": (_is_size, "a number of bytes"),
    "strategy": (_is_in(zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED), "a strategy of zlib's, 0 to 4"),
    "backend": (lambda value: value in BACKENDS, f"one of {', '.join(BACKENDS)}"),
    "max_ratio": (_or_none(_is_ratio), "a number from 1 on, or None"),
    "offload_size": (_or_none(_is_size), "a number of bytes, or None"),
    "takeover_memory": (_is_size, "a number of bytes"),
}


def deflate_options(given: object) -> DeflateOptions:
    """Return the options that an application gave. Raises ValueError that names the key of a wrong one.

    Keys that there are not are left aside, as Tornado does, with a warning in the log, once for each. So is another
    container than a mapping, such as the str "{}": it has no keys, and stands for an empty dict.
    """
    if isinstance(given, DeflateOptions):
        return given
    pairs: Mapping[Any, Any] = {}
    if isinstance(given, Mapping):
        pairs = given
    elif given and not isinstance(given, Container):
        raise ValueError(f"compression options are {_shown(given)}; they have to be a dict, or None")
    elif given:
        _warn_of_container(type(given).__name__)
    known = {}
    for key, value in pairs.items():
        if key not in _ACCEPTED:
            _warn_of(key)
            continue
        accepts, words = _ACCEPTED[key]
        if not accepts(value):
            raise ValueError(f"compression option {key} is {value!r}; it has to be {words}")
        known[key] = value
    # Most have none, and it is asked for each connection.
    return _share(**known) if known else DEFAULT_DEFLATE_OPTIONS


#: Those in use, by their values: for as long as a connection or an application has them.
_shared: dict[tuple[Any, ...], weakref.ref[DeflateOptions]] = {}


def _share(**known: Any) -> DeflateOptions:
    """Return the one instance with these values."""
    options = _make(**known)
    key = tuple(getattr(options, name) for name in _ACCEPTED)

    def forget(reference: weakref.ref[DeflateOptions]) -> None:
        if _shared.get(key) is reference:
            _shared.pop(key, None)

    made = weakref.ref(options, forget)
    # Without a lock, which a finalizer that runs in the middle would wait for: `setdefault` does it in one step.
    while (shared := (reference := _shared.setdefault(key, made))()) is None:
        forget(reference)
    return shared


def _make(**known: Any) -> DeflateOptions:
    options = DeflateOptions(**known)
    try:
        # Done now, so that a missing backend is reported where the options are given.
        assert options.codecs
        # Done now too, while no other thread has the options and could make a second one.
        assert options.live is not None
    except ValueError as error:
        raise ValueError(f"compression option {error}") from None
    return options


DEFAULT_DEFLATE_OPTIONS = _share()


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


@functools.cache
def _warn_of_container(kind: str) -> None:
    gen_log.warning(
        "compression options are of type %s, which holds none: compression is on, with the defaults; "
        "a dict would be read",
        kind,
    )


@functools.cache
def _warn_of(key: object) -> None:
    gen_log.warning("compression option %r is not known and has no effect; there are %s", key, ", ".join(_ACCEPTED))
