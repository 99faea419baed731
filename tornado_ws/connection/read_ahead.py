"""Messages that wait while the application is busy with one before them."""

from __future__ import annotations

from collections import deque

from tornado_ws.engine.contract import Event
from tornado_ws.options import Options


class ReadAhead:
    """A queue that says when it is full; it takes all the same what has been read by then."""

    __slots__ = ("_bytes", "_events", "_options")

    def __init__(self, options: Options) -> None:
        self._options = options
        self._events: deque[Event] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._bytes += event[2]

    def get(self) -> Event:
        event = self._events.popleft()
        self._bytes -= event[2]
        return event

    def is_full(self) -> bool:
        options = self._options
        return len(self._events) >= options.read_ahead_messages or self._bytes >= options.read_ahead_bytes
