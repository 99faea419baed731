"""What is written in one turn of the loop, outside callbacks: all but the first write leave together, at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Protocol

from tornado.ioloop import IOLoop

from tornado_ws.engine.contract import IN_STEP, WRITTEN_IN_STEP


class Channel(Protocol):
    """What is written to."""

    #: The turn in which it was last written to.
    turn: int
    #: See `tornado_ws.engine.channel.Channel`.
    step: int

    def close(self) -> None:
        """Close the socket at once."""

    def end_turn(self) -> None:
        """Send what waits, and be done with it. Raises what is to end the loop, nothing else."""

    def _offer(self, data: bytes) -> asyncio.Future[None]:
        """Offer ``data`` to the kernel."""

    def _settle(self, futures: list[GatheredWrite]) -> None:
        """Let ``futures`` end as what was offered last."""


class Turn:
    """The turn of a loop that is under way."""

    __slots__ = ("_is_open", "_loop", "_number", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._number = 0
        #: Whether the loop is to say when it ends.
        self._is_open = False
        #: The channels that have something to send then.
        self.waiting: list[Channel] = []

    def has_written(self, channel: Channel) -> bool:
        """Note that ``channel`` is written to; return whether it was before, in this turn."""
        if channel.step == IN_STEP and not self._is_open:
            # Most such steps write once: that the turn ends need not be known.
            channel.step = WRITTEN_IN_STEP
            return False
        if not self._loop.is_running():
            # No turn would end.
            return False
        if not self._is_open:
            self._open()
        elif channel.turn == self._number:
            return True
        channel.turn = self._number
        return False

    def end_inside(self, channel: Channel) -> None:
        """``channel`` holds back what a callback writes: have that sent if the callback runs the loop, and waits."""
        # nest_asyncio, which lets a loop do so, says that it is there.
        if "_nest_patched" not in vars(asyncio):
            return
        if not self._is_open:
            self._open()
        if channel not in self.waiting:
            self.waiting.append(channel)

    def _open(self) -> None:
        self._loop.call_soon(self._end)
        self._is_open = True
        self._number += 1

    def _end(self) -> None:
        self._is_open = False
        interrupt: BaseException | None = None
        for _ in range(len(self.waiting)):
            try:
                self.waiting.pop().end_turn()
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


def turn_of(io_loop: IOLoop) -> Turn:
    """Return the one `Turn` of ``io_loop``."""
    turn: Turn | None = vars(io_loop).get("_ws_turn")
    if turn is None:
        turn = vars(io_loop)["_ws_turn"] = Turn(io_loop.asyncio_loop)  # type: ignore[attr-defined]
    return turn


class TurnWrites:
    """What one channel sends at the end of the turn."""

    __slots__ = ("_task", "channel", "futures", "pieces", "size")

    def __init__(self, channel: Channel) -> None:
        #: None when the turn is over.
        self.channel: Channel | None = channel
        self.pieces: list[bytes] = []
        self.size = 0
        self.futures: list[GatheredWrite] = []
        self._task: asyncio.Task[Any] | None = None

    def add_future(self) -> GatheredWrite:
        """Return a Future that is done when the kernel has all that was added."""
        future = GatheredWrite()
        future.writes = self
        self.futures.append(future)
        return future

    def take(self) -> bytes:
        """Return what is to be sent; then there is nothing. Without memory for it, nothing is changed."""
        data = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces.clear()
        self.size = 0
        return data

    def send(self) -> None:
        """Send what waits."""
        channel = self.channel
        if channel is None or not self.size:
            return
        none: list[GatheredWrite] = []
        data = self.take()
        futures, self.futures = self.futures, none
        try:
            channel._offer(data)
            channel._settle(futures)
        except BaseException:
            channel.close()
            channel._settle(futures)
            raise

    def be_awaited(self) -> None:
        """One of the Futures is about to be awaited."""
        if self.channel is not None and (self._task is None or self.is_streaming()):
            self._task = asyncio.current_task()
            self.send()

    def is_streaming(self) -> bool:
        """Whether the current task awaits its writes, and was the first in this turn that did."""
        return self._task is not None and asyncio.current_task() is self._task


class GatheredWrite(asyncio.Future[None]):
    """The Future of a write that leaves at the end of the turn.

    A task that awaits one write after the other would get on by two in each turn. So those of the first task that
    awaits one are sent at once. Other tasks wait for the end of the turn.
    """

    writes: TurnWrites

    def __await__(self) -> Generator[Any, None, None]:
        if not self.done():
            self.writes.be_awaited()
        return super().__await__()

    __iter__ = __await__
