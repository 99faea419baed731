"""Round trips of pings: which pong answers which ping, and what is made of the time between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.peer import raw_client, raw_pair
from tests.support import PATIENCE, Echo, connected, serving, until
from tests.wire import PING, PONG, Frame
from tornado_ws import counters
from tornado_ws.observing.latency import UNKNOWN, Latency, RoundTrips


def trips(*events: tuple[str, bytes, float]) -> RoundTrips:
    """Return what a connection has after pings ("sent") and pongs ("answered")."""
    result = RoundTrips()
    for what, payload, now in events:
        getattr(result, what)(payload, now)
    return result


def test_nothing_is_known_before_the_first_pong() -> None:
    assert trips(("sent", b"", 1)).latency == UNKNOWN == Latency(None, None)


def test_the_smoothed_round_trip_is_that_of_rfc_6298() -> None:
    first = [("sent", b"", 0.0), ("answered", b"", 0.8)]
    second = [("sent", b"", 10.0), ("answered", b"", 11.6)]
    third = [("sent", b"", 20.0), ("answered", b"", 20.1)]
    assert trips(*first).latency == pytest.approx((0.8, 0.8))
    assert trips(*first, *second).latency == pytest.approx((1.6, 0.9))
    assert trips(*first, *second, *third).latency == pytest.approx((0.1, 0.8))


@pytest.mark.parametrize("payload", [b"", b"unsolicited"])
def test_an_unsolicited_pong_is_none(payload: bytes) -> None:
    assert trips(("answered", payload, 1)).latency == UNKNOWN
    assert trips(("sent", b"ours", 0), ("answered", payload, 1), ("answered", b"ours", 2)).latency.last == 2


def test_a_pong_for_the_latest_of_several_pings_answers_those_before_it() -> None:
    """RFC 6455 section 5.5.3 lets a peer answer the latest only."""
    result = trips(("sent", b"1", 0), ("sent", b"2", 10), ("answered", b"2", 11))
    assert result.latency.last == 1
    result.answered(b"1", 50)
    assert result.latency.last == 1


def test_pings_that_cannot_be_told_apart_measure_nothing() -> None:
    result = trips(("sent", b"", 0), ("sent", b"", 10), ("answered", b"", 11))
    assert result.latency == UNKNOWN
    result.answered(b"", 12)
    assert result.latency == UNKNOWN
    # Both are answered now.
    result.sent(b"", 20)
    result.answered(b"", 22)
    assert result.latency.last == 2


def test_a_pong_may_take_longer_than_the_interval() -> None:
    """As of the second round all pings that are on their way differ."""
    result = RoundTrips()
    on_their_way: list[tuple[bytes, float]] = []
    for now in range(100):
        payload = result.next_payload()
        result.sent(payload, now)
        on_their_way.append((payload, now + 2.5))
        while on_their_way[0][1] <= now + 1:
            result.answered(*on_their_way.pop(0))
    assert result.latency == (2.5, 2.5)


def test_pings_carry_nothing_unless_their_pongs_could_be_mistaken() -> None:
    result = RoundTrips()
    for now in range(3):
        # A peer that never answers gets what Tornado sends.
        assert result.next_payload() == b""
        result.sent(b"", now)
    result.answered(b"", 3)
    assert result.next_payload() == b"1"
    result.sent(b"1", 4)
    result.answered(b"1", 5)
    assert result.next_payload() == b""


def test_a_peer_that_answers_nothing_piles_nothing_up() -> None:
    result = RoundTrips()
    for number in range(1000):
        result.sent(b"%d" % number, number)
    result.answered(b"0", 1000)
    assert result.latency == UNKNOWN
    result.answered(b"999", 1000)
    assert result.latency.last == 1


# On connections


@pytest.mark.gen_test
async def test_both_ends_measure_the_round_trips_of_their_own_pings() -> None:
    seen: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            protocol: Any = self.ws_connection
            assert protocol.latency == UNKNOWN
            self.ping(b"the server's")

        def on_pong(self, data: bytes) -> None:
            protocol: Any = self.ws_connection
            seen.append(protocol.latency)

    async with serving(Handler) as url, connected(url) as conn:
        assert conn.latency == UNKNOWN
        conn.ping(b"the client's")
        await until(lambda: seen and conn.latency != UNKNOWN)
        for latency in (*seen, conn.latency):
            assert 0 < latency.last < PATIENCE
            assert latency.smoothed == latency.last
        protocol: Any = conn.protocol
        assert protocol.counters.latency == conn.latency
        of_all = counters().latency
        assert of_all.last == pytest.approx((seen[0].last + conn.latency.last) / 2)
        assert of_all == (of_all.last, of_all.last)
    # What was known stays known.
    assert conn.latency != UNKNOWN


@pytest.mark.gen_test
async def test_a_pong_that_takes_longer_than_the_interval_is_told_apart() -> None:
    handlers: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            handlers.append(self)

    settings: dict[str, Any] = {"websocket_ping_interval": 0.1, "websocket_keepalive_timeout": PATIENCE}
    async with serving(Handler, **settings) as url, raw_client(url) as client:
        received: list[Frame] = []

        async def answer(payload: bytes) -> None:
            await asyncio.sleep(0.25)
            await client.send_frame(PONG, payload)

        answering: list[asyncio.Task[None]] = []
        while len(received) < 6:
            ping = await client.receive()
            assert ping is not None
            assert ping.opcode == PING
            received.append(ping)
            answering.append(asyncio.ensure_future(answer(ping.payload)))
        await asyncio.gather(*answering)
        await until(lambda: (handlers[0].ws_connection.latency.last or 0) >= 0.24)
    assert received[0] == received[1] == Frame(PING)
    assert len(set(received[-3:])) == 3


@pytest.mark.gen_test
async def test_an_unsolicited_pong_is_no_round_trip() -> None:
    async with raw_pair() as (conn, peer):
        conn.ping(b"asked")
        assert await peer.receive() == Frame(PING, b"asked")
        await peer.send_frame(PONG, b"not asked")
        await asyncio.sleep(0.05)
        assert conn.latency == UNKNOWN
        await peer.send_frame(PONG, b"asked")
        await until(lambda: conn.latency != UNKNOWN)
        assert conn.latency.last is not None
        assert conn.latency.last >= 0.05
