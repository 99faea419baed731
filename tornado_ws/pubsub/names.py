"""Names of topics, and patterns of names: an exact one, or a prefix that ends in ``*``."""

from __future__ import annotations

#: Bytes of UTF-8 that the name of a topic may have.
MAX_LENGTH = 512


def check_topic(topic: object) -> str:
    """Return the name of a topic.

    Raises TypeError for what is no str, and ValueError for a name that is empty, longer than 512 bytes of UTF-8, has a
    ``*`` or cannot be encoded.
    """
    if not isinstance(topic, str):
        raise TypeError(f"topic is of type {type(topic).__name__}; it has to be a str")
    if not topic or len(topic) > MAX_LENGTH or len(topic.encode()) > MAX_LENGTH:
        raise ValueError(f"topic has {len(topic)} characters; allowed are 1 to {MAX_LENGTH} bytes of UTF-8")
    if "*" in topic:
        raise ValueError(f"topic {topic!r} has a '*', which only stands at the end of what is subscribed to")
    return topic


def check_pattern(pattern: object) -> str:
    """Return the name of a topic, or a prefix and ``*``; ``*`` alone is every topic. Raises what `check_topic` does."""
    if isinstance(pattern, str) and pattern.endswith("*"):
        if pattern != "*":
            check_topic(pattern[:-1])
        return pattern
    return check_topic(pattern)


def is_prefix(pattern: str) -> bool:
    """Whether ``pattern`` is a prefix and ``*``."""
    return pattern.endswith("*")


def matches(pattern: str, topic: str) -> bool:
    """Whether ``topic`` is, or begins with, what ``pattern`` says."""
    return topic.startswith(pattern[:-1]) if is_prefix(pattern) else topic == pattern
