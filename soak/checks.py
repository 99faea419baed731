"""What an end of a connection has received, against its plan; and what a process holds."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Any

from soak.plans import Plan

#: Failures that are told in words. The rest is counted.
_TOLD = 20


class Failures(logging.Handler):
    """What was wrong. A line of a log from WARNING on, that of a single HTTP request apart, is wrong too."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0
        self.told: list[str] = []

    def add(self, plan: Plan | None, what: str) -> None:
        self.count += 1
        if len(self.told) < _TOLD:
            self.told.append(f"{what}; {plan._replace(sizes=((), ()))}, {plan.messages} messages" if plan else what)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "tornado.access":
            self.add(None, f"log: {logging.Formatter().format(record)}")

    def on_unraisable(self, unraisable: Any) -> None:
        self.add(None, f"not raised: {unraisable.exc_value!r} in {unraisable.object!r}")

    def take(self) -> dict[str, Any]:
        told, count = self.told, self.count
        self.told, self.count = [], 0
        return {"count": count, "told": told}


class Receiver:
    """The messages of one direction of a connection, as they come."""

    def __init__(self, plan: Plan, direction: int, failures: Failures) -> None:
        self.plan = plan
        self.count = 0
        self._direction = direction
        self._failures = failures
        self._is_lost = False

    def take(self, message: str | bytes) -> None:
        number, plan = self.count, self.plan
        self.count += 1
        if self._is_lost:
            return
        if number < plan.messages and message == plan.message(self._direction, number):
            return
        self._is_lost = True
        others = [other for other in range(plan.messages) if message == plan.message(self._direction, other)]
        got = f"those numbered {others}" if others else f"{type(message).__name__} of {len(message)}: {message[:40]!r}"
        self._failures.add(plan, f"in place of message {number} in direction {self._direction} came {got}")

    def end(self) -> None:
        least = self.plan.least(self._direction)
        if self.count < least:
            self._failures.add(
                self.plan, f"in direction {self._direction} {self.count} messages came; at least {least} had to"
            )


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _malloc_bytes() -> int:
    """Return the bytes that malloc has given out, those of Python's own allocator among them; 0 where it cannot say."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    mallinfo.restype = _Mallinfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def held() -> dict[str, int]:
    """Return what this process holds when it has nothing to do."""
    for _ in range(3):
        gc.collect()
    return {
        "resident bytes": int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
        "malloc bytes": _malloc_bytes(),
        "Python blocks": sys.getallocatedblocks(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
    }
