"""One timer for the deadlines of all connections of a loop, and the pings that hang on it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.conftest import Log
from tests.peer import end, raw_client
from tests.support import Echo, serving, until
from tests.wire import PING
from tornado_ws.connection.deadlines import SPREAD, Deadline, Deadlines, deadlines_of
from tornado_ws.connection.keepalive import Keepalive
from tornado_ws.connection.protocol13 import WebSocketProtocol13


class Clock(asyncio.SelectorEventLoop):
    """A loop that never runs: its time is set, and its timers are called, by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.timers: list[tuple[float, Callable[..., Any], asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self.now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, (), self)
        self.timers.append((when, callback, handle))
        return handle

    def waiting(self) -> list[float]:
        return [when for when, _, handle in self.timers if not handle.cancelled()]

    def go_to(self, now: float) -> None:
        self.now = now
        due = [timer for timer in self.timers if timer[0] <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for _, callback, handle in due:
            if not handle.cancelled():
                callback()


class Noted(Deadline[str]):
    """Is due at each of ``times``."""

    def __init__(self, name: str, calls: list[Any], *times: float) -> None:
        due, *self.times = times
        super().__init__(name, due)
        self.name = name
        self.calls = calls

    def on_due(self, now: float) -> bool:
        self.calls.append((self.name, now))
        if self.name == "bad":
            raise ZeroDivisionError
        if not self.times:
            return False
        self.due = self.times.pop(0)
        return True


@pytest.fixture
def clock() -> Any:
    loop = Clock()
    yield loop
    loop.close()


def test_they_come_in_order_by_one_timer(clock: Clock) -> None:
    calls: list[Any] = []
    deadlines = Deadlines(clock)
    for name, times in (("b", (2.0, 5.0)), ("a", (1.0, 3.0)), ("c", (4.0,))):
        deadlines.add(Noted(name, calls, *times))
        assert len(clock.waiting()) == 1
    for now in (0.5, 1.0, 2.5, 4.0, 9.0):
        assert len(clock.waiting()) == 1
        clock.go_to(now)
    assert calls == [("a", 1.0), ("b", 2.5), ("a", 4.0), ("c", 4.0), ("b", 9.0)]
    assert clock.waiting() == []


def test_one_that_is_given_up_does_not_come(clock: Clock) -> None:
    calls: list[Any] = []
    deadlines = Deadlines(clock)
    first, second = Noted("first", calls, 1.0), Noted("second", calls, 2.0)
    deadlines.add(first)
    deadlines.add(second)
    deadlines.give_up(first)
    clock.go_to(3.0)
    assert calls == [("second", 3.0)]


def test_those_that_are_given_up_take_no_memory_without_a_bound(clock: Clock) -> None:
    deadlines = Deadlines(clock)
    deadlines.add(Noted("stays", [], 2.0))
    for _ in range(5000):
        deadline = Noted("goes", [], 1.0)
        deadlines.add(deadline)
        deadlines.give_up(deadline)
        assert len(deadlines._heap) <= 202
    clock.go_to(1.0)
    assert [deadline.due for deadline in deadlines._heap] == [2.0]
    assert clock.waiting() == [2.0]


def test_one_that_fails_leaves_the_others(clock: Clock, log: Log) -> None:
    calls: list[Any] = []
    deadlines = Deadlines(clock)
    for name in ("bad", "good"):
        deadlines.add(Noted(name, calls, 1.0 if name == "bad" else 1.5))
    clock.go_to(2.0)
    clock.go_to(2.0)
    assert calls == [("bad", 2.0), ("good", 2.0)]
    assert len(log.lines) == 1


# Pings


def test_the_first_pings_are_spread_and_early() -> None:
    first: list[float] = []
    for _ in range(200):
        connection: Any = object()
        first.append(Keepalive(connection, 30.0, 10.0, 1000.0).due - 1000.0)
    assert min(first) >= 30.0 * (1 - SPREAD)
    assert max(first) <= 30.0
    assert max(first) - min(first) > 30.0 * SPREAD / 2


@pytest.mark.gen_test
async def test_pings_take_no_task_and_no_timer_of_a_connection_s_own() -> None:
    loop: Any = asyncio.get_running_loop()
    async with serving(Echo, websocket_ping_interval=1000) as url, raw_client(url) as first:
        tasks, timers = len(asyncio.all_tasks()), len(loop._scheduled)
        async with raw_client(url) as second:
            # Each connection has the task of its request.
            assert len(asyncio.all_tasks()) == tasks + 1
            assert sum(not timer.cancelled() for timer in loop._scheduled) <= timers
            assert len(deadlines_of(IOLoop.current())._heap) >= 2
            await end(second)
        await end(first)


@pytest.mark.gen_test
@pytest.mark.parametrize("setting", ["websocket_ping_interval", "websocket_max_lifetime"])
async def test_a_connection_that_has_ended_is_not_kept_for_its_deadline(setting: str) -> None:
    connections: list[weakref.ref[Any]] = []
    settings: dict[str, Any] = {setting: 1000}

    class Kept(Echo):
        def open(self) -> None:
            assert isinstance(self.ws_connection, WebSocketProtocol13)
            connections.append(weakref.ref(self.ws_connection))

    async with serving(Kept, **settings) as url, raw_client(url) as client:
        await until(lambda: connections)
        await end(client)
        await until(lambda: (gc.collect() and connections[0]() is None) or connections[0]() is None)


@pytest.mark.gen_test
@pytest.mark.parametrize("calls_ours", [True, False])
async def test_a_periodic_ping_of_the_applications_is_called(calls_ours: bool) -> None:
    began: list[str] = []

    class Own(WebSocketProtocol13):
        async def periodic_ping(self) -> None:
            began.append("periodic_ping")
            if calls_ours:
                await super().periodic_ping()
            else:
                self.write_ping(b"own")

    class Handler(Echo):
        def get_websocket_protocol(self) -> Any:
            protocol = super().get_websocket_protocol()
            assert isinstance(protocol, WebSocketProtocol13)
            return Own(self, False, protocol.params)

    async with serving(Handler, websocket_ping_interval=0.05) as url, raw_client(url) as client:
        frame = await client.receive()
        assert frame is not None
        assert (frame.opcode, frame.payload) == (PING, b"" if calls_ours else b"own")
    assert began == ["periodic_ping"]


@pytest.mark.gen_test
async def test_a_periodic_ping_in_the_place_of_ours_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = WebSocketProtocol13.periodic_ping

    async def periodic_ping(protocol: WebSocketProtocol13) -> None:
        protocol.write_ping(b"first")
        await ours(protocol)

    monkeypatch.setattr(WebSocketProtocol13, "periodic_ping", periodic_ping)
    async with serving(Echo, websocket_ping_interval=0.05) as url, raw_client(url) as client:
        frames = [await client.receive(), await client.receive()]
    assert [frame and (frame.opcode, frame.payload) for frame in frames] == [(PING, b"first"), (PING, b"")]
