"""What `KqueuePoller` uses of kqueue(2), by way of epoll: for tests where there is no kqueue."""

from __future__ import annotations

import select
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest


class KEvent(NamedTuple):
    ident: int
    filter: int
    flags: int


_READ, _WRITE, _ADD, _DELETE = -1, -2, 1, 2
#: EPOLLIN and EPOLLOUT, which `select` has on Linux alone; others import this too.
_EVENTS = {_READ: 1, _WRITE: 4}


class KQueue:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, int] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()

    def control(self, changes: Iterable[KEvent] | None, most: int, timeout: float = 0) -> list[KEvent]:
        for fd, watched_by, flags in changes or ():
            before = self._watched.pop(fd, 0)
            event = _EVENTS[watched_by]
            # As the real one, which has no such filter to delete then.
            assert bool(before & event) == (flags == _DELETE)
            after = before ^ event
            if before:
                self._epoll.unregister(fd)
            if after:
                self._epoll.register(fd, after)
                self._watched[fd] = after
        if not most:
            return []
        told = []
        for fd, events in self._epoll.poll(timeout, most):
            told += [KEvent(fd, watched_by, _ADD) for watched_by, event in _EVENTS.items() if events & event]
            if events & ~sum(_EVENTS.values()):
                told.append(KEvent(fd, _READ, _ADD))
        return told


def imitate_kqueue(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {
        "kqueue": KQueue,
        "kevent": KEvent,
        "KQ_FILTER_READ": _READ,
        "KQ_FILTER_WRITE": _WRITE,
        "KQ_EV_ADD": _ADD,
        "KQ_EV_DELETE": _DELETE,
    }
    for name, value in names.items():
        monkeypatch.setattr(select, name, value, raising=False)
