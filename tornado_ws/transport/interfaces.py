"""Interfaces between a transport and the connection that it is a part of."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tornado_ws.observing.latency import Latency


class Owner(Protocol):
    """The connection that a `Transport` is a part of."""

    @property
    def was_clean(self) -> bool:
        """Whether the peer has sent a close frame."""

    @property
    def latency(self) -> Latency:
        """The round trips of its pings."""

    def eof_received(self, error: Exception | None) -> None:
        """Nothing more will be read; ``error`` is None when the peer closed its side in good order."""

    def handling_failed(self, error: BaseException) -> None:
        """Handling events has raised ``error``: end the connection."""

    def held_back(self) -> tuple[int, int]:
        """Return how many bytes, of how many writes, wait to be given to the channel."""

    def write_refused(self, why: str) -> asyncio.Future[None]:
        """A message is not to be sent, since too many bytes wait already; returns what ``write_message`` does."""

    def writes_lost(self, unsent: int, writes: int) -> None:
        """The stream is about to be closed with ``unsent`` bytes, and ``writes`` whose Futures are not done."""

    def connection_lost(self) -> None:
        """The stream is closed. Called once, never from inside the call that closed it."""
