"""Messages that wait while the application is busy with one before them, in pure Python."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import CoroutineType
from typing import Any

from tornado_ws.engine.contract import (
    BUDGET_SPENT,
    CLOCK_SIZE,
    CLOCK_STRIDE,
    CLOSE,
    DEFERRED,
    ENOUGH_AHEAD,
    PENDING,
    RAISED,
    SUSPENDED,
    TURN_TIME,
    Event,
    Outcome,
)
from tornado_ws.engine.reader import FrameReader
from tornado_ws.engine.tasks import is_done, step_coroutine


class ReadAhead:
    """A queue that says when it is full; it takes all the same what has been read by then."""

    __slots__ = ("_bytes", "_events", "_most_bytes", "_most_messages")

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
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
        return len(self._events) >= self._most_messages or self._bytes >= self._most_bytes

    def has_enough(self) -> bool:
        """Whether the next messages need not be read before these are delivered."""
        return len(self._events) >= ENOUGH_AHEAD or self.is_full()

    def fill(self, reader: FrameReader, limit: int) -> Outcome | None:
        """Take messages that ``reader`` has until this is full.

        Returns None then, or when more bytes are wanted, else what ended it: a control frame as an event, or
        (BUDGET_SPENT, None, 0) after ``limit`` messages or `TURN_TIME`. Raises `.ProtocolError`.
        """
        until = 0.0
        while not self.is_full():
            event = next(reader, None)
            if event is None:
                return None
            if CLOSE <= event[0] < DEFERRED:
                return event
            self.put(event)
            limit -= 1
            if not limit:
                return BUDGET_SPENT, None, 0
            if not limit & CLOCK_STRIDE or event[2] >= CLOCK_SIZE:
                now = time.monotonic()
                if not until:
                    until = now + TURN_TIME
                elif now > until:
                    return BUDGET_SPENT, None, 0
        return None

    def deliver(self, reader: FrameReader, handler: Any, steps: bool) -> Outcome | None:
        """Give the message that waits first to ``handler.on_message``, as one that ``reader`` has delivered.

        Returns None where that is all, else what `FrameReader.deliver` does, or a message to be inflated as an event.
        """
        event = self.get()
        opcode, payload, size = event
        if opcode >= DEFERRED:
            return event
        reader.messages += 1
        reader.message_bytes += size
        try:
            result = handler.on_message(payload)
            if steps and type(result) is CoroutineType:
                result = step_coroutine(result)
                if result is not None:
                    return SUSPENDED, result, 0
            elif result is not None and is_done(result):
                result = None
        except (Exception, asyncio.CancelledError) as error:
            return RAISED, [error], 0
        return None if result is None else (PENDING, result, 0)
