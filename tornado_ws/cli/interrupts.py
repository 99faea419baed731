"""Ctrl-C, and the signal that asks a process to end: work is stopped or cancelled, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from tornado_ws.cli import statuses

#: Seconds for work to end in order: a closing handshake has 5, and then there may be output that nobody reads.
_PATIENCE = 10.0


async def run_to_end(work: Coroutine[Any, Any, int], stop: Callable[[int], object] | None = None) -> int:
    """Run ``work`` and return its exit status.

    :param stop: called with the number of the first SIGINT or SIGTERM, to have ``work`` end in order. The second, the
        passing of 10 seconds, or any signal without ``stop`` cancels ``work``; the status is that of a command that the
        first signal has cut short.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    numbers: list[int] = []
    timers: list[asyncio.TimerHandle] = []

    def interrupt(number: int) -> None:
        numbers.append(number)
        if stop is not None and len(numbers) == 1:
            stop(number)
            timers.append(loop.call_later(_PATIENCE, task.cancel))
        else:
            task.cancel()

    with _handling(interrupt):
        try:
            return await task
        except asyncio.CancelledError:
            if not numbers:
                raise
            return statuses.of_signal(numbers[0])
        finally:
            for timer in timers:
                timer.cancel()


@contextlib.contextmanager
def _handling(interrupt: Callable[[int], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        try:
            loop.add_signal_handler(number, interrupt, number)
        except NotImplementedError:
            # The loops of Windows.
            signal.signal(number, lambda number, frame: loop.call_soon_threadsafe(interrupt, number) and None)
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, handler)
