"""What can be set on a connection beside Tornado's own settings: names, defaults, and what each of them accepts.

There is one rule for the names. On a server both the application's setting and the class attribute of a handler, which
goes before it, are ``websocket_NAME``; on a client it is the argument ``NAME``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

_SERVER_PREFIX = "websocket_"


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of one connection. Connections with the same ones share one instance."""

    #: Seconds that the peer has to answer a close frame; then the connection is aborted.
    close_timeout: float = 5.0
    #: Seconds of silence after a ping at which the peer is given up. None: Tornado's ``ping_timeout`` holds.
    keepalive_timeout: float | None = None


class OptionArguments(TypedDict, total=False):
    """The same, as the arguments of a client."""

    close_timeout: float
    keepalive_timeout: float | None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and 0 < value < float("inf")


def _is_seconds_or_none(value: Any) -> bool:
    return value is None or _is_seconds(value)


#: What a value has to be, as a function and in words.
_ACCEPTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "close_timeout": (_is_seconds, "a number of seconds above 0"),
    "keepalive_timeout": (_is_seconds_or_none, "a number of seconds above 0, or None"),
}

_NAMES = tuple(field.name for field in dataclasses.fields(Options))
_DEFAULTS = tuple((_SERVER_PREFIX + field.name, field.default) for field in dataclasses.fields(Options))


def _make_options(prefix: str, *values: Any) -> Options:
    for name, value in zip(_NAMES, values, strict=True):
        _check(prefix, name, value)
    return _share_options(*values)


@functools.lru_cache(typed=True)
def _share_options(*values: Any) -> Options:
    return Options(*values)


def _check(prefix: str, name: str, value: Any) -> None:
    accepts, words = _ACCEPTED[name]
    if not accepts(value):
        raise ValueError(f"{prefix}{name} is {value!r}; it has to be {words}")


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Raise ValueError for a wrong option among the attributes of a handler's class."""
    for name in _NAMES:
        value = attributes.get(_SERVER_PREFIX + name, None)
        # A property is asked when there is a handler.
        if value is not None and not hasattr(value, "__get__"):
            _check(_SERVER_PREFIX, name, value)


def handler_options(handler: object, settings: Mapping[str, Any]) -> Options:
    """Return the options of a handler in an application. Raises ValueError for a wrong one."""
    return _make_options(
        _SERVER_PREFIX, *(getattr(handler, name, settings.get(name, default)) for name, default in _DEFAULTS)
    )


def client_options(arguments: OptionArguments) -> Options:
    """Return the options of a client. Raises ValueError for a wrong one and TypeError for one that there is not."""
    options = Options(**arguments)
    return _make_options("", *(getattr(options, name) for name in _NAMES))


DEFAULT_OPTIONS = client_options({})
