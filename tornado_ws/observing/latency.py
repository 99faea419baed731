"""How long the peer takes to answer a ping."""

from __future__ import annotations

from typing import NamedTuple

#: Pings that are remembered until their pongs come; a peer that answers none of them cannot pile them up.
_MOST_PINGS = 16
#: The weight of a new round trip in the smoothed one, alpha of RFC 6298.
_WEIGHT = 1 / 8


class Latency(NamedTuple):
    """Round trips from a ping of ours to its pong."""

    last: float | None
    """The latest one, in seconds; None before the first."""
    smoothed: float | None
    """SRTT of RFC 6298, in seconds: a mean in which each new one counts for an eighth. None before the first."""


UNKNOWN = Latency(None, None)


class RoundTrips:
    """The pings that wait for their pongs.

    Pings with one payload cannot be told apart, and a peer need not answer each of several (RFC 6455 section 5.5.3).
    So a round trip is measured where there is no doubt whose pong it is, and nowhere else.
    """

    __slots__ = ("_number", "_pings", "latency")

    def __init__(self) -> None:
        self.latency = UNKNOWN
        #: By payload, in the order of their sending: when it was sent (None if that may be several pings' time), and
        #: how many pongs are to come.
        self._pings: dict[bytes, tuple[float | None, int]] = {}
        #: The last one that a payload was made of; -1 for a peer that has not answered yet.
        self._number = -1

    def next_payload(self) -> bytes:
        """Return nothing, which is what Tornado's pings carry, or a number while a pong with nothing may yet come."""
        if b"" not in self._pings or self._number < 0:
            return b""
        self._number += 1
        return b"%d" % self._number

    def sent(self, payload: bytes, now: float) -> None:
        """A ping was sent at ``now``, in seconds."""
        if payload in self._pings:
            self._pings[payload] = None, self._pings[payload][1] + 1
            return
        if len(self._pings) == _MOST_PINGS:
            del self._pings[next(iter(self._pings))]
        self._pings[payload] = now, 1

    def answered(self, payload: bytes, now: float) -> None:
        """A pong was received at ``now``, in seconds. An unsolicited one changes nothing."""
        if payload not in self._pings:
            return
        self._number = max(self._number, 0)
        # What was sent before it will not be answered any more.
        while (earlier := next(iter(self._pings))) != payload:
            del self._pings[earlier]
        sent, pongs = self._pings[payload]
        if pongs > 1:
            self._pings[payload] = None, pongs - 1
            return
        del self._pings[payload]
        if sent is not None:
            last = now - sent
            smoothed = self.latency.smoothed
            self.latency = Latency(last, last if smoothed is None else smoothed + _WEIGHT * (last - smoothed))
