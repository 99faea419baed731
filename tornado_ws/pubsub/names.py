"""Names of topics, and patterns of names: an exact one, or a prefix that ends in ``*``."""

from __future__ import annotations

from tornado_ws.errors import TopicNameError
from tornado_ws.escaping import shown

#: Bytes of UTF-8 that the name of a topic may have, where nothing else is set.
MAX_LENGTH = 512


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
