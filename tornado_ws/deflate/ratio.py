"""Messages that inflate to suspiciously many times their size (``max_ratio``)."""

from __future__ import annotations

from typing import Any

from tornado_ws.close_codes import MESSAGE_TOO_BIG
from tornado_ws.engine.contract import Inflater
from tornado_ws.errors import ProtocolError

#: Bytes that any message may inflate to: with context takeover a small one may be next to nothing on the wire.
_ALWAYS_ALLOWED = 64 * 1024


class RatioLimitedInflater:
    """Refuses a message above 64 KiB as soon as it is more than ``max_ratio`` times its payload so far."""

    def __init__(self, inflater: Inflater, max_ratio: float) -> None:
        self._inflater = inflater
        self._max_ratio = max_ratio
        self._taken = 0
        self._given = 0

    def inflate(self, data: bytes, limit: int) -> bytes:
        """As `.contract.Inflater`; raises `.ProtocolError` with 1009 at the ratio too."""
        self._taken += len(data)
        allowed = max(_ALWAYS_ALLOWED, int(self._taken * self._max_ratio)) - self._given
        piece = self._inflater.inflate(data, min(limit, allowed))
        self._given += len(piece)
        if len(piece) > allowed and allowed < limit:
            reason = f"message inflates to more than {self._max_ratio:g} times its size"
            raise ProtocolError(MESSAGE_TOO_BIG, reason)
        return piece

    def end_message(self) -> Any:
        """As `.contract.Inflater`."""
        self._taken = self._given = 0
        return self._inflater.end_message()
