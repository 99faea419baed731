"""Names of topics, and patterns of names: an exact one, or a prefix that ends in ``*``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from tornado_ws.errors import TopicNameError
from tornado_ws.escaping import shown

#: Bytes of UTF-8 that the name of a topic may have, where nothing else is set.
MAX_LENGTH = 512

#: For how many topics it is remembered what holds for them: that is asked for each message.
_REMEMBERED = 4096

Value = TypeVar("Value")


def check_topic(topic: object, longest: int = MAX_LENGTH) -> str:
    """Return the name of a topic.

    Raises TypeError for what is no str, and `TopicNameError` for a name that is empty, longer than so many bytes of
    UTF-8, has a ``*`` or cannot be encoded.
    """
    if not isinstance(topic, str):
        raise TypeError(f"topic is of type {type(topic).__name__}; it has to be a str")
    try:
        # Not all of what is too long already.
        size = max(len(topic), len(topic[: longest + 1].encode()))
    except UnicodeEncodeError:
        raise TopicNameError("topic has a surrogate, which UTF-8 has no bytes for") from None
    if not 1 <= size <= longest:
        raise TopicNameError(f"topic has {len(topic)} characters; allowed are 1 to {longest} bytes of UTF-8")
    if "*" in topic:
        raise TopicNameError(f"topic {shown(topic)} has a '*', which only stands at the end of what is subscribed to")
    return topic


def check_pattern(pattern: object, longest: int = MAX_LENGTH) -> str:
    """Return the name of a topic, or a prefix and ``*``; ``*`` alone is every topic. Raises what `check_topic` does."""
    if isinstance(pattern, str) and pattern.endswith("*"):
        if pattern != "*":
            check_topic(pattern[:-1], longest)
        return pattern
    return check_topic(pattern, longest)


def is_prefix(pattern: str) -> bool:
    """Whether ``pattern`` is a prefix and ``*``."""
    return pattern.endswith("*")


def matches(pattern: str, topic: str) -> bool:
    """Whether ``topic`` is, or begins with, what ``pattern`` says."""
    return topic.startswith(pattern[:-1]) if is_prefix(pattern) else topic == pattern


class ByPattern(Generic[Value]):
    """Something for each of some names and prefixes. For a topic its exact name wins, then the longest prefix.

    Raises what `check_pattern` does.
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        for pattern in values:
            check_pattern(pattern)
        # A name is longer than any prefix of it without the "*", and comes first among equals.
        self._items = sorted(values.items(), key=lambda item: (-len(item[0]), is_prefix(item[0])))
        #: Returns the pattern that holds for a topic, and what there is for it; None where there is none.
        self.of: Callable[[str], tuple[str, Value] | None] = functools.lru_cache(_REMEMBERED)(self._find)
        if not self._items:
            self.of = _nothing

    def _find(self, topic: str) -> tuple[str, Value] | None:
        exact = [item for item in self._items if item[0] == topic]
        return exact[0] if exact else next((item for item in self._items if matches(item[0], topic)), None)


def _nothing(topic: str) -> None:
    return None
