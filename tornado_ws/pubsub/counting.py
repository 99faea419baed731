"""Counters of the topics that an application names: as many as it names, however many topics clients make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tornado_ws.pubsub.messages import Message
from tornado_ws.pubsub.names import ByPattern


@dataclass
class NameCounters:
    """What this process has done with a topic, or with all topics of a prefix, so far, as ints."""

    #: Messages that were given to `publish` here.
    published: int = 0
    #: Messages that came from the broker, whoever has published them.
    received: int = 0
    #: Messages given to connections, one for each connection.
    delivered: int = 0
    #: How often messages were lost that may have been of these topics.
    gaps: int = 0


class CountedTopics(Mapping[str, NameCounters]):
    """The counters by name or prefix. A topic counts for one of them: its name, or else the longest prefix."""

    def __init__(self, names: Iterable[str]) -> None:
        if isinstance(names, str):
            raise TypeError(f"counted is {names!r}; it has to be several names or prefixes, as a list")
        self._counters = {name: NameCounters() for name in names}
        self._of = ByPattern(self._counters).of

    def __getitem__(self, name: str) -> NameCounters:
        return self._counters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counters)

    def __len__(self) -> int:
        return len(self._counters)

    def of(self, topic: str) -> NameCounters | None:
        """Return the counters that ``topic`` counts for; None where the application has named none."""
        found = self._of(topic)
        return found[1] if found is not None else None

    def mark(self, messages: Sequence[Message]) -> None:
        """Have the deliveries of ``messages`` counted."""
        if self._counters:
            for message in messages:
                message.count_for(self.of(message.topic))

    def received(self, messages: Sequence[Message]) -> None:
        """Count messages that came from the broker, and have their deliveries counted."""
        if self._counters:
            for message in messages:
                counters = self.of(message.topic)
                if counters is not None:
                    counters.received += 1
                    message.count_for(counters)

    def gap(self, covers: Callable[[str], bool]) -> None:
        """Count a loss of messages of the names and prefixes that ``covers`` is true of."""
        for name, counters in self._counters.items():
            if covers(name):
                counters.gaps += 1
