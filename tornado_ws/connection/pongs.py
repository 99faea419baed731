"""Answers to the peer's pings (RFC 6455 section 5.5.3)."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from tornado.iostream import StreamClosedError

from tornado_ws.engine.contract import PONG


class Owner(Protocol):
    """The connection that `Pongs` are a part of."""

    @property
    def server_terminated(self) -> bool:
        """Whether nothing may be sent any more."""

    def _abort(self) -> None:
        """Close the socket at once."""

    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> Any:
        """Send a frame; return its Future. Raises `.StreamClosedError`."""


class Pongs:
    """Sends pongs: of several pings that come while one is not with the kernel, an answer to the latest only.

    Section 5.5.3 allows that. Pongs of a peer that does not read them could pile up.
    """

    __slots__ = ("_owner", "_sending", "_waiting")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._sending: asyncio.Future[None] | None = None
        self._waiting: bytes | None = None

    def send(self, data: bytes) -> None:
        """Answer a ping that has ``data``."""
        if self._sending is not None and not self._sending.done():
            self._waiting = data
            return
        self._waiting = None
        if self._owner.server_terminated:
            return
        try:
            sending = self._owner._write_frame(True, PONG, data)
        except StreamClosedError:
            self._owner._abort()
            return
        if not sending.done():
            self._sending = sending
            sending.add_done_callback(self._on_sent)

    def _on_sent(self, sent: asyncio.Future[None]) -> None:
        self._sending = None
        data, self._waiting = self._waiting, None
        if data is not None and not sent.cancelled() and sent.exception() is None:
            self.send(data)
