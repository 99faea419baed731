"""Connections that end by themselves: open for long, or idle."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peer import Recording, frame, raw_client, raw_server
from tests.support import serving, until
from tests.wire import CLOSE, TEXT, Frame, close_payload
from tornado_ws import websocket_connect
from tornado_ws.connection.deadlines import SPREAD
from tornado_ws.connection.lifetime import Lifetime
from tornado_ws.observing.counters import Counters
from tornado_ws.options import Options


class Connection:
    """Counts what the test says, and writes down how it was closed."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.closed: list[tuple[int | None, str | None]] = []

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close_when_handled(self, code: int | None, reason: str | None) -> None:
        self.closed.append((code, reason))


def run_until(lifetime: Lifetime, end: float) -> float:
    """Let time pass; return when it was asked last."""
    now = 0.0
    while lifetime.due <= end:
        now = lifetime.due
        if not lifetime.on_due(now):
            break
    return now


def test_the_end_of_a_lifetime_is_at_most_a_tenth_early() -> None:
    ends = []
    for _ in range(100):
        connection = Connection()
        ends.append(run_until(Lifetime(connection, Options(max_lifetime=100.0), 0.0), 1000.0))
        assert connection.closed == [(1001, "open for long enough")]
    assert 100 * (1 - SPREAD) <= min(ends) < max(ends) <= 100


@pytest.mark.parametrize("way", ["in", "out"])
def test_a_message_either_way_begins_the_time_anew(way: str) -> None:
    connection = Connection()
    lifetime = Lifetime(connection, Options(idle_timeout=100.0), 0.0)
    for number in range(1, 8):
        run_until(lifetime, 60.0 * number)
        assert connection.closed == []
        counted: dict[str, Any] = {f"messages_{way}": number}
        connection.counters = Counters(**counted)
    end = run_until(lifetime, 1000.0)
    assert 420.0 + 100.0 <= end <= 420.0 + 125.0
    assert connection.closed == [(1001, "idle")]


def test_pings_are_no_messages() -> None:
    connection = Connection()
    connection.counters = Counters(wire_bytes_in=10, wire_bytes_out=10)
    assert run_until(Lifetime(connection, Options(idle_timeout=100.0), 0.0), 1000.0) == 100.0


def test_the_first_of_both_counts() -> None:
    connection = Connection()
    run_until(Lifetime(connection, Options(idle_timeout=100.0, max_lifetime=50.0), 0.0), 1000.0)
    assert connection.closed == [(1001, "open for long enough")]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("option", "reason"), [("max_lifetime", "open for long enough"), ("idle_timeout", "idle")], ids=lambda value: value
)
async def test_a_server_closes_with_1001_and_a_reason(option: str, reason: str) -> None:
    calls: list[Any] = []
    settings: dict[str, Any] = {f"websocket_{option}": 0.05}
    async with serving(Recording, calls=calls, **settings) as url, raw_client(url) as client:
        assert await client.receive() == Frame(CLOSE, close_payload(1001, reason))
        await client.send_frame(CLOSE, close_payload(1001))
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 1001, None)]


@pytest.mark.gen_test
async def test_what_was_received_is_handled_first() -> None:
    calls: list[Any] = []
    messages = [frame(TEXT, b"%d" % number, masked=True) for number in range(3)]
    async with (
        serving(Recording, calls=calls, websocket_max_lifetime=0.01) as url,
        raw_client(url, early=b"".join(messages)) as client,
    ):
        frames = await client.receive_rest()
    assert frames[:3] == [Frame(TEXT, b"%d" % number) for number in range(3)]
    assert frames[3].opcode == CLOSE


@pytest.mark.gen_test
async def test_a_client_has_the_options_too() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url, max_lifetime=0.05)
        peer = await server.accept()
        conn = await connecting
        assert await peer.receive() == Frame(CLOSE, close_payload(1001, "open for long enough"))
        await peer.send_frame(CLOSE, close_payload(1001))
        assert await conn.read_message() is None
        peer.close()
