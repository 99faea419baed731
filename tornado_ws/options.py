"""What can be set on a connection beside Tornado's own settings: names, defaults, and what each of them accepts.

There is one rule for the names. On a server both the application's setting and the class attribute of a handler, which
goes before it, are ``websocket_NAME``; on a client it is the argument ``NAME``.
"""

from __future__ import annotations

import functools
import itertools
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypedDict

from tornado.log import gen_log

from tornado_ws.close_codes import may_be_sent
from tornado_ws.codecs import ACCEPTED as CODECS
from tornado_ws.codecs import Codec, is_codec
from tornado_ws.coroutines import value_of
from tornado_ws.escaping import plain

_SERVER_PREFIX = "websocket_"


class Options(NamedTuple):
    """The options of one connection. Connections with the same ones share one instance."""

    #: Seconds that the peer has to answer a close frame; then the connection is aborted.
    close_timeout: float = 5.0
    #: Messages, and bytes of them, that may wait while the application is busy with one before; then reading stops.
    read_ahead_messages: int = 64
    read_ahead_bytes: int = 1024 * 1024
    #: Bytes that may wait for the kernel before ``write_message`` gives a Future that is not done.
    write_high_watermark: int = 0
    #: Bytes before the end of a message that may still wait when its Future is done; None is a quarter of the above.
    write_low_watermark: int | None = None
    #: Bytes that may wait before messages are refused, None for no limit; and what is done then.
    write_limit: int | None = 1024 * 1024 * 1024
    write_limit_policy: str = "close"
    #: While so many bytes wait, messages are refused too after so many seconds in which the peer took nothing; None is
    #: never.
    write_stall_limit: int = 64 * 1024 * 1024
    write_stall_timeout: float | None = 30.0

    @property
    def low_watermark(self) -> int:
        low = self.write_low_watermark
        return self.write_high_watermark // 4 if low is None else low

    #: Messages and bytes that the peer may send in a second, None for any number; how many at once, None for those of a
    #: second; and what is done then: "pause" reading, or "close".
    message_rate_limit: float | None = None
    message_rate_burst: int | None = None
    byte_rate_limit: float | None = None
    byte_rate_burst: int | None = None
    rate_limit_policy: str = "pause"
    #: Seconds of silence after a ping at which the peer is given up. None: Tornado's ``ping_timeout`` holds.
    keepalive_timeout: float | None = None
    #: Seconds after which a connection is closed with 1001, or up to a tenth less; None is never.
    max_lifetime: float | None = None
    #: Seconds without a message, either way, after which it is, or up to a quarter more; None is never.
    idle_timeout: float | None = None
    #: The code of the close frame after an exception in a callback; None closes the socket without one, as in Tornado.
    error_close_code: int | None = None
    #: What turns values into messages and back, by name or as an object; None leaves messages as they are.
    codec: str | Codec | None = None
    #: Whether text comes as str; else it comes as bytes, which are UTF-8.
    decode_text: bool = True
    #: Of messages that are read in parts: bytes of a part at most, and of the whole message, None for any number.
    max_part_size: int = 64 * 1024
    max_stream_size: int | None = None


class OptionArguments(TypedDict, total=False):
    """The same, as the arguments of a client."""

    close_timeout: float
    read_ahead_messages: int
    read_ahead_bytes: int
    write_high_watermark: int
    write_low_watermark: int | None
    write_limit: int | None
    write_limit_policy: str
    write_stall_limit: int
    write_stall_timeout: float | None
    message_rate_limit: float | None
    message_rate_burst: int | None
    byte_rate_limit: float | None
    byte_rate_burst: int | None
    rate_limit_policy: str
    keepalive_timeout: float | None
    max_lifetime: float | None
    idle_timeout: float | None
    error_close_code: int | None
    codec: str | Codec | None
    decode_text: bool
    max_part_size: int
    max_stream_size: int | None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and 0 < value < float("inf")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_count(value: Any) -> bool:
    return _is_size(value) and value > 0


#: What can be done with a message beyond ``write_limit``.
POLICIES = ("close", "drop", "raise", "latest")
#: What can be done with a peer that sends more than it may.
RATE_POLICIES = ("pause", "close")


def _is_seconds_or_none(value: Any) -> bool:
    return value is None or _is_seconds(value)


def _is_rate_or_none(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 < value < float("inf"))


def _is_count_or_none(value: Any) -> bool:
    return value is None or _is_count(value)


#: What a value has to be, as a function and in words.
_ACCEPTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "close_timeout": (_is_seconds, "a number of seconds above 0"),
    "read_ahead_messages": (_is_count, "a whole number above 0"),
    "read_ahead_bytes": (_is_count, "a whole number of bytes above 0"),
    "write_high_watermark": (_is_size, "a whole number of bytes, 0 or more"),
    "write_low_watermark": (
        lambda value: value is None or _is_size(value),
        "a whole number of bytes, 0 or more, or None",
    ),
    "write_limit": (lambda value: value is None or _is_count(value), "a whole number of bytes above 0, or None"),
    "write_limit_policy": (lambda value: value in POLICIES, f"one of {', '.join(map(repr, POLICIES))}"),
    "write_stall_limit": (_is_count, "a whole number of bytes above 0"),
    "write_stall_timeout": (_is_seconds_or_none, "a number of seconds above 0, or None"),
    "message_rate_limit": (_is_rate_or_none, "a number of messages a second above 0, or None"),
    "message_rate_burst": (_is_count_or_none, "a whole number above 0, or None"),
    "byte_rate_limit": (_is_rate_or_none, "a number of bytes a second above 0, or None"),
    "byte_rate_burst": (_is_count_or_none, "a whole number of bytes above 0, or None"),
    "rate_limit_policy": (lambda value: value in RATE_POLICIES, f"one of {', '.join(map(repr, RATE_POLICIES))}"),
    "keepalive_timeout": (_is_seconds_or_none, "a number of seconds above 0, or None"),
    "max_lifetime": (_is_seconds_or_none, "a number of seconds above 0, or None"),
    "idle_timeout": (_is_seconds_or_none, "a number of seconds above 0, or None"),
    "error_close_code": (
        lambda value: value is None or (_is_count(value) and may_be_sent(value)),
        "a close code that may be sent, or None",
    ),
    "codec": (is_codec, CODECS),
    "decode_text": (lambda value: isinstance(value, bool), "True or False"),
    # Any character has room in one.
    "max_part_size": (lambda value: _is_count(value) and value >= 4, "a whole number of bytes, 4 or more"),
    "max_stream_size": (_is_count_or_none, "a whole number of bytes above 0, or None"),
}

_NAMES = Options._fields
_ATTRIBUTES = tuple(_SERVER_PREFIX + name for name in _NAMES)
_SERVER_NAMES = frozenset(_ATTRIBUTES)
#: All that is looked up in the settings of an application.
SETTINGS = _SERVER_NAMES | {
    "websocket_max_connections",
    "websocket_max_handshakes_per_second",
    "websocket_max_message_size",
    "websocket_ping_interval",
    "websocket_ping_timeout",
}


def _make_options(prefix: str, *values: Any) -> Options:
    try:
        return _check_options(prefix, *values)
    except TypeError:
        # What has no hash is right for no option: the check, which is not asked again for what it has seen, says so.
        return _check_options.__wrapped__(prefix, *values)


@functools.lru_cache(typed=True)
def _check_options(prefix: str, *values: Any) -> Options:
    for name, value in zip(_NAMES, values, strict=True):
        _check(prefix, name, value)
    options = _share_options(*values)
    high = options.write_high_watermark
    for name, value, is_right, words in (
        ("write_low_watermark", options.low_watermark, options.low_watermark <= high, "at most"),
        ("write_limit", options.write_limit, options.write_limit is None or options.write_limit > high, "above"),
    ):
        if not is_right:
            raise ValueError(f"{prefix}{name} is {value}; it has to be {words} {prefix}write_high_watermark, {high}")
    return options


@functools.lru_cache(typed=True)
def _share_options(*values: Any) -> Options:
    return Options(*values)


def _check(prefix: str, name: str, value: Any) -> None:
    accepts, words = _ACCEPTED[name]
    if not accepts(value):
        raise ValueError(f"{prefix}{name} is {value!r}; it has to be {words}")


def checked_count(name: str, value: Any) -> int | None:
    """Return the setting ``name``. Raises ValueError unless it is a whole number above 0, or None."""
    if value is not None and not _is_count(value):
        raise ValueError(f"{name} is {value!r}; it has to be a whole number above 0, or None")
    return value  # type: ignore[no-any-return]


def checked_message_size(name: str, value: Any) -> int:
    """Return the setting ``name`` in bytes. Raises ValueError unless it is a number from 0; any may be larger."""
    if not (_is_number(value) and value >= 0):
        raise ValueError(f"{name} is {value!r}; it has to be a number of bytes, 0 or more")
    return int(min(value, sys.maxsize))


def checked_seconds(name: str, value: float | None) -> float | None:
    """Return Tornado's setting ``name`` in seconds. Raises ValueError unless it is a number or None."""
    if value is not None and not (_is_number(value) and value == value):
        raise ValueError(f"{name} is {value!r}; it has to be a number of seconds, or None")
    return value


def whole_only(name: str, value: object) -> str:
    """Return why the option ``name``, which is for whole messages, may not be where they are read in parts."""
    return f"{name} is {value!r}; it has to be None where messages are read in parts"


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Raise ValueError for a wrong option among the attributes of a handler's class; log names that resemble one."""
    log_near_misses("attribute", attributes)
    for name in _NAMES:
        value = attributes.get(_SERVER_PREFIX + name, None)
        # A property is asked when there is a handler.
        if value is not None and not hasattr(value, "__get__"):
            _check(_SERVER_PREFIX, name, value)


def near_miss(name: str, names: Iterable[str]) -> str | None:
    """Return the one of ``names`` that ``name`` is most probably meant to be, if any."""
    # Most programs never need it.
    import difflib

    return next(iter(difflib.get_close_matches(name.lower(), names, 1, 0.9)), None)


def log_near_misses(kind: str, names: Iterable[str]) -> None:
    """Log each of ``names`` that is no setting and resembles one. Others may have settings of such names too."""
    for name in names:
        if name.startswith("webs") and name not in SETTINGS and (meant := near_miss(name, SETTINGS)) is not None:
            gen_log.warning("the %s %s has no effect; did you mean %s?", kind, plain(name), meant)


def handler_options(handler: object, settings: Mapping[str, Any]) -> Options:
    """Return the options of a handler in an application. Raises ValueError for a wrong one."""
    # This is done for each connection, most of which have no option of their own.
    defaults: Iterable[Any] = DEFAULT_OPTIONS
    if not _SERVER_NAMES.isdisjoint(settings):
        defaults = map(settings.get, _ATTRIBUTES, DEFAULT_OPTIONS)
    values = tuple(map(getattr, itertools.repeat(handler), _ATTRIBUTES, defaults))
    if all(map(operator.is_, values, DEFAULT_OPTIONS)):
        return DEFAULT_OPTIONS
    for name, default, value in zip(_ATTRIBUTES, DEFAULT_OPTIONS, values, strict=True):
        if value is not default:
            value_of(handler, name, value)
    return _make_options(_SERVER_PREFIX, *values)


def client_options(arguments: OptionArguments) -> Options:
    """Return the options of a client. Raises ValueError for a wrong one and TypeError for one that there is not."""
    options = Options(**arguments)
    return _make_options("", *(getattr(options, name) for name in _NAMES))


DEFAULT_OPTIONS = client_options({})
