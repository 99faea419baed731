"""The time of a loop, under the control of a test."""

from __future__ import annotations

import asyncio


class Clock:
    """Makes ``loop`` take time for gone that nobody has waited for.

    It goes on by itself as well. So a timeout of a test is either far longer than a busy machine takes for the test,
    or the test lets it pass.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._time = loop.time
        self._passed = 0.0
        loop.time = self._now  # type: ignore[method-assign]

    def _now(self) -> float:
        return self._time() + self._passed

    def step(self, seconds: float) -> None:
        """Let ``seconds`` pass while the loop stands still."""
        self._passed += seconds

    async def let_pass(self, seconds: float) -> None:
        """Let ``seconds`` pass, and what is due by then run."""
        self.step(seconds)
        for _ in range(10):
            await asyncio.sleep(0)
