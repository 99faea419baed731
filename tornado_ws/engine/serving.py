"""Many sockets in one turn of the loop, in pure Python."""

from __future__ import annotations

import select
import time
from collections.abc import Mapping

from tornado_ws.engine.contract import BUSY, SOCKETS_PER_TURN, TURN_TIME, Servable


def serve_until(until: float, fds: list[int], channels: Mapping[int, Servable]) -> list[int]:
    """Call ``handle_events`` of the channels of ``fds`` until that time; returns those whose turn has not come."""
    for index, fd in enumerate(fds):
        # A callback of another connection may have closed it.
        channel = channels.get(fd)
        if channel is not None:
            channel.handle_events()
            if time.monotonic() > until:
                return fds[index + 1 :]
    return []


def serve_ready(epoll: select.epoll, channels: Mapping[int, Servable], late: list[int]) -> None:
    """Call ``handle_events`` of the channels whose descriptors are ready, of a good many and for `TURN_TIME` at most.

    Those whose turn has not come are left in ``late``, and are the first when this is called again: the kernel would
    name them last.
    """
    left = SOCKETS_PER_TURN
    if len(channels) == 1:
        # It is this one: the epoll has nothing else to tell of.
        for only in list(channels.values()):
            only.handle_events()
        return
    until = time.monotonic() + TURN_TIME
    if late:
        left -= len(late)
        late[:] = serve_until(until, late, channels)
    # With many ready sockets, more are ready by then: to look again costs less than a turn of the loop.
    count = BUSY
    while count >= BUSY and left > 0 and not late and not epoll.closed:
        ready = [fd for fd, _ in epoll.poll(0, left)]
        count = len(ready)
        left -= count
        late[:] = serve_until(until, ready, channels)
