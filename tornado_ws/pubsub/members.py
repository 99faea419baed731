"""Who is present in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Members:
    """What is said of each member, by topic. A topic without members takes no memory."""

    def __init__(self) -> None:
        self._of_topic: dict[str, dict[str, Any]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._of_topic)

    def enter(self, topic: str, member: str, data: Any) -> None:
        self._of_topic.setdefault(topic, {})[member] = data

    def leave(self, topic: str, member: str) -> None:
        members = self._of_topic.get(topic, {})
        members.pop(member, None)
        if not members:
            self._of_topic.pop(topic, None)

    def of(self, topic: str) -> Mapping[str, Any]:
        return self._of_topic.get(topic, {})

    def clear(self) -> None:
        self._of_topic.clear()
