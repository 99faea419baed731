"""Messages in order, control frames past them, and when we stop reading."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from typing import Any

import pytest

from tests.peer import Recording, StallingEcho, frame, raw_client, raw_pair
from tests.support import Echo, serving, until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame


class Gated(Recording):
    """A coroutine ``on_message`` that waits for ``gate`` before each message is done."""

    def initialize(self, calls: list[Any], gate: asyncio.Semaphore) -> None:  # type: ignore[override]
        super().initialize(calls)
        self.gate = gate

    async def on_message(self, message: str | bytes) -> None:
        self.calls.append(message)
        await self.gate.acquire()
        self.write_message(message, binary=isinstance(message, bytes))


@pytest.mark.gen_test
async def test_a_coroutine_on_message_keeps_the_order() -> None:
    calls: list[Any] = []

    class Uneven(Recording):
        async def on_message(self, message: str | bytes) -> None:
            self.calls.append(f"begin {message!r}")
            # The first takes the longest, and some end without a pause.
            for _ in range(int(message) % 3):
                await asyncio.sleep(0.002)
            self.calls.append(f"end {message!r}")
            self.write_message(message)

    async with serving(Uneven, calls=calls) as url, raw_client(url) as client:
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(30, 0, -1)])
        for number in range(30, 0, -1):
            assert await client.receive() == Frame(TEXT, b"%d" % number)
    assert calls[1:61] == [f"{what} '{number}'" for number in range(30, 0, -1) for what in ("begin", "end")]


@pytest.mark.gen_test
async def test_functions_and_coroutines_mixed_keep_the_order() -> None:
    class Mixed(Echo):
        def on_message(self, message: str | bytes) -> Any:
            if int(message) % 2:
                return self.answer_later(message)
            self.write_message(message)
            return None

        async def answer_later(self, message: str | bytes) -> None:
            await asyncio.sleep(0)
            self.write_message(message)

    async with serving(Mixed) as url, raw_client(url) as client:
        for start in (0, 500):
            await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(start, start + 500)])
        for number in range(1000):
            assert await client.receive() == Frame(TEXT, b"%d" % number)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.2-pong-soon", "6455-5.5.3-same-data")
async def test_pings_are_answered_while_on_message_and_open_are_busy() -> None:
    calls: list[Any] = []
    gate = asyncio.Semaphore(0)

    class SlowOpen(Gated):
        async def open(self) -> None:  # type: ignore[override]
            await gate.acquire()

    async with serving([("/", SlowOpen, {"calls": calls, "gate": gate})]) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(PING, b"during open"), client.frame(TEXT, b"2"))
        assert await client.receive() == Frame(PONG, b"during open")
        assert calls == []
        gate.release()
        await until(lambda: calls == ["1"])
        await client.send(client.frame(PING, b"a"), client.frame(TEXT, b"3"), client.frame(PING, b"b"))
        assert await client.receive() == Frame(PONG, b"a")
        assert await client.receive() == Frame(PONG, b"b")
        assert calls == ["1"]
        for number in (b"1", b"2", b"3"):
            gate.release()
            assert await client.receive() == Frame(TEXT, number)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.4-order", "6455-5.4-both-kinds", "6455-5.4-control-between-fragments")
@pytest.mark.rfc("6455-5.5.2-pong-soon", "6455-5.5.3-same-data")
async def test_every_ping_is_answered_in_order_between_messages() -> None:
    async with serving(Echo) as url, raw_client(url) as client:
        pings = [client.frame(PING, b"%d" % number) for number in range(10)]
        await client.send(
            client.frame(TEXT, b"before"),
            client.frame(TEXT, b"frag", fin=False),
            *pings,
            client.frame(CONTINUATION, b"mented"),
            client.frame(PONG, b"nobody asked"),
            client.frame(BINARY, b"after"),
        )
        assert await client.receive() == Frame(TEXT, b"before")
        for number in range(10):
            assert await client.receive() == Frame(PONG, b"%d" % number)
        assert await client.receive() == Frame(TEXT, b"fragmented")
        assert await client.receive() == Frame(BINARY, b"after")


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.3-same-data")
async def test_pongs_to_a_peer_that_does_not_read_do_not_pile_up() -> None:
    """Section 5.5.3: the latest one is enough."""
    pings = 0

    class Handler(StallingEcho):
        def on_ping(self, data: bytes) -> None:
            nonlocal pings
            pings += 1

    async with serving(Handler) as url, raw_client(url, stalling=True) as client:
        for number in range(6000):
            await client.send_frame(PING, b"%125d" % number)
        await until(lambda: pings == 6000)
        pongs: list[int] = []
        while not pongs or pongs[-1] < 5999:
            received = await client.receive()
            assert received is not None
            pongs.append(int(received.payload))
    assert pongs == sorted(set(pongs))
    assert pongs[0] == 0
    assert len(pongs) < 3000


# When we stop reading


@pytest.mark.gen_test
@pytest.mark.parametrize("limit", [{"websocket_read_ahead_messages": 3}, {"websocket_read_ahead_bytes": 3000}])
async def test_a_busy_application_stops_the_reading(limit: dict[str, Any]) -> None:
    calls: list[Any] = []
    gate = asyncio.Semaphore(0)
    async with serving([("/", Gated, {"calls": calls, "gate": gate})], **limit) as url, raw_client(url) as client:
        messages = [b"%1000d" % number for number in range(10)]
        for message in messages:
            await client.send_frame(TEXT, message)
            await asyncio.sleep(0.002)
        # One in the hands of the application, three waiting; what is behind them is not seen.
        await client.send_frame(PING, b"late")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.receive(), 0.05)
        received: list[Frame | None] = []
        for _ in messages:
            gate.release()
            received.append(await client.receive())
        received.append(await client.receive())
        pong = Frame(PONG, b"late")
        # The pong overtakes the messages that had been read ahead when its ping was read.
        assert received.index(pong) >= 6
        received.remove(pong)
        assert received == [Frame(TEXT, message) for message in messages]
        gate.release()


@pytest.mark.gen_test
async def test_much_more_than_can_be_read_ahead_arrives_whole() -> None:
    calls: list[Any] = []
    async with (
        serving([("/", Gated, {"calls": calls, "gate": asyncio.Semaphore(10000)})]) as url,
        raw_client(url) as client,
    ):
        numbers = range(2000)

        async def send() -> None:
            for number in numbers:
                await client.send_frame(BINARY, b"%3000d" % number)

        sending = asyncio.ensure_future(send())
        for number in numbers:
            received = await client.receive()
            assert received is not None
            assert int(received.payload) == number
        await sending


@pytest.mark.gen_test
async def test_a_client_that_does_not_read_stops_the_reading() -> None:
    async with raw_pair(stalling=True) as (conn, peer):
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await peer.send_frame(TEXT, b"%1000d" % sent)
                sent += 1

        sending = asyncio.ensure_future(send())
        stalled_at = -1
        while stalled_at != sent:
            stalled_at = sent
            await asyncio.sleep(0.1)
        assert sent < 10000
        for number in range(stalled_at + 100):
            assert int(str(await conn.read_message())) == number
        sending.cancel()
        await asyncio.wait([sending])
        peer.half_close()
        while await conn.read_message() is not None:
            pass


# The rest of the loop


@pytest.mark.gen_test
@pytest.mark.parametrize("opcode", [TEXT, PING])
async def test_thousands_of_frames_in_one_segment_let_the_loop_run(opcode: int) -> None:
    turns: list[int] = []
    handled = 0

    class Counting(Echo):
        def on_message(self, message: str | bytes) -> None:
            nonlocal handled
            handled += 1

        def on_ping(self, data: bytes) -> None:
            nonlocal handled
            handled += 1

    def turn() -> None:
        turns.append(handled)
        if handled < 5000:
            asyncio.get_running_loop().call_soon(turn)

    async with serving(Counting) as url, raw_client(url) as client:
        turn()
        await client.send(client.frame(opcode, b"x") * 5000)
        await until(lambda: turns[-1] == 5000)
    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) <= 512


@pytest.mark.gen_test
async def test_other_connections_are_served_between_a_flood() -> None:
    closed: list[bool] = []

    class Handler(Echo):
        def on_close(self) -> None:
            closed.append(True)

    async with serving(Handler) as url, raw_client(url) as flooding, raw_client(url) as other:
        flood = b"".join([frame(TEXT, b"flood", masked=True)] * 3000)

        async def read() -> None:
            for _ in range(20 * 3000):
                await flooding.receive()

        reading = asyncio.ensure_future(read())
        sending = asyncio.ensure_future(flooding.send(*[flood] * 20))
        await other.send_frame(TEXT, b"me too")
        assert await other.receive() == Frame(TEXT, b"me too")
        assert not reading.done()
        reading.cancel()
        sending.cancel()
        await asyncio.wait([reading, sending])
        flooding.reset()
        await until(lambda: closed)


# Context variables

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
in_messages: contextvars.ContextVar[int] = contextvars.ContextVar("in_messages", default=0)


@pytest.mark.gen_test
@pytest.mark.parametrize("coroutine", [False, True], ids=["functions", "coroutines"])
async def test_context_of_prepare_and_open_is_seen_by_later_callbacks(coroutine: bool) -> None:
    seen: list[tuple[str, str]] = []

    class Handler(Echo):
        who = ""

        def prepare(self) -> None:
            self.who = self.request.path
            variable.set(f"{self.who} prepare")

        def open(self) -> Any:
            assert variable.get() == f"{self.who} prepare"
            variable.set(f"{self.who} open")
            return asyncio.sleep(0) if coroutine else None

        def on_message(self, message: str | bytes) -> Any:
            return self.handle(message) if coroutine else self.look("on_message")

        async def handle(self, message: str | bytes) -> None:
            self.look("on_message")
            await asyncio.sleep(0.002)
            self.look("on_message later")

        def on_ping(self, data: bytes) -> None:
            self.look("on_ping")

        def on_close(self) -> None:
            self.look("on_close")

        def look(self, where: str) -> None:
            seen.append((where, variable.get()))

    async with serving([("/one", Handler), ("/two", Handler)]) as url:
        async with raw_client(f"{url}/one") as one, raw_client(f"{url}/two") as two:
            for client in (one, two):
                await client.send(client.frame(TEXT, b"x"), client.frame(PING), client.frame(CLOSE, b"\x03\xe8"))
            for client in (one, two):
                await client.receive_rest()
        places = {"on_message", "on_ping", "on_close"} | ({"on_message later"} if coroutine else set())
        await until(lambda: len(seen) == 2 * len(places))
    assert set(seen) == {(place, f"/{who} open") for place in places for who in ("one", "two")}
    assert variable.get() == "unset"


@pytest.mark.gen_test
async def test_what_one_message_sets_is_seen_by_the_next() -> None:
    """As in Tornado, where all of them run in one task."""
    counts: list[int] = []

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            in_messages.set(in_messages.get() + 1)
            counts.append(in_messages.get())

    async with serving(Handler) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"))
        await until(lambda: len(counts) == 2)
        await client.send(client.frame(TEXT, b"3"))
        await until(lambda: len(counts) == 3)
    assert counts == [1, 2, 3]
    assert in_messages.get() == 0


@pytest.mark.gen_test
async def test_a_client_callback_sees_the_context_of_its_connect() -> None:
    seen: list[str] = []
    variable.set("of the connect")
    async with raw_pair(on_message_callback=lambda message: seen.append(variable.get())) as (_, peer):
        variable.set("later")
        await peer.send_frame(TEXT, b"x")
        await until(lambda: seen)
    assert seen[0] == "of the connect"
