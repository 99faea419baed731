"""What can be set on topics, beside their history."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What `Topics` takes by name. All but the last two is about a broker: topics of one process need none of it.

    Every process, and every program that publishes, has to have the same ``prefix``, ``streams`` and ``max_length``.
    """

    #: What the names of all keys begin with.
    prefix: str = "tornado_ws"
    #: Into how many streams topics are divided.
    streams: int = 16
    #: How many messages a stream keeps, about; this bounds recovery, and how far a process may be behind.
    max_length: int = 10_000
    #: What publishing does while the broker is away: "wait" until it is back, or "fail" at once.
    publish_policy: str = "wait"
    #: At most so many bytes wait for the broker; beyond that publishing fails.
    publish_limit: int = 16 << 20
    #: At most so many seconds.
    publish_timeout: float = 30.0
    #: After so many seconds without an answer the connection to the broker is made anew.
    broker_timeout: float = 10.0
    #: How long those of a process that died are present, in seconds.
    presence_seconds: float = 30.0
    #: How many subscriptions, to names and prefixes, a connection may have; None for any number.
    max_subscriptions: int | None = None
    #: How many bytes of UTF-8 the name of a topic may have.
    max_topic_length: int = 512

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Return settings with ``values``. Raises TypeError for other names, ValueError for values not allowed."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name, value in values.items():
            if name not in names:
                raise TypeError(f"Topics has no setting {name!r}; there are {', '.join(names)} and history")
            check, allowed = _ALLOWED[name]
            if isinstance(value, bool) or not check(value):
                raise ValueError(f"{name} is {value!r}; allowed is {allowed}")
        return cls(**values)


_SECONDS = (lambda value: isinstance(value, (int, float)) and 0 < value < 1e9), "a number of seconds above 0"
_ALLOWED: dict[str, tuple[Any, str]] = {
    "max_subscriptions": (
        lambda value: value is None or (isinstance(value, int) and value >= 1),
        "an int from 1 on, or None",
    ),
    # An envelope has two bytes for it.
    "max_topic_length": (lambda value: isinstance(value, int) and 1 <= value <= 65535, "an int from 1 to 65535"),
    "prefix": (lambda value: isinstance(value, str) and value and not set("{}*") & set(value), "a str without {}*"),
    "streams": (lambda value: isinstance(value, int) and 1 <= value <= 4096, "an int from 1 to 4096"),
    "max_length": (lambda value: isinstance(value, int) and value >= 1, "an int from 1 on"),
    "publish_policy": (lambda value: value in ("wait", "fail"), '"wait" or "fail"'),
    "publish_limit": (lambda value: isinstance(value, int) and value >= 0, "an int of bytes from 0 on"),
    "publish_timeout": _SECONDS,
    "broker_timeout": _SECONDS,
    "presence_seconds": _SECONDS,
}
