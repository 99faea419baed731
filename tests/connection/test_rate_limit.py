"""Limits for what a peer may send in a second."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clock import Clock
from tests.conftest import Log, Tls
from tests.peer import RawPeer, exchange, raw_client, raw_pair, tls_client
from tests.support import Echo, connected, serving, until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close_payload, deflated
from tornado_ws import WebSocketHandler, engine
from tornado_ws.connection.rate_limit import RateLimit, TokenBucket
from tornado_ws.engine.contract import READ_SIZE
from tornado_ws.options import Options

#: A message in so many seconds, which the clock of a test lets pass and a busy machine does not.
LONG = 1e5
#: As a timeout of a test that lets much time pass.
ALWAYS = 1e12
SLOWLY: dict[str, Any] = {"websocket_message_rate_limit": 1 / LONG, "websocket_message_rate_burst": 10}
#: More than one read has, and more than the kernel's buffers.
LARGE = 1 << 24


class Counting(WebSocketHandler):
    """Writes down what comes, and answers."""

    def initialize(self, calls: list[Any]) -> None:
        self.calls = calls

    def open(self) -> None:
        self.calls.append(self)

    @property
    def messages(self) -> list[Any]:
        return [call for call in self.calls if isinstance(call, str | bytes)]

    def on_message(self, message: str | bytes) -> Any:
        self.calls.append(message)

    def on_ping(self, data: bytes) -> None:
        self.calls.append(data)

    def on_close(self) -> None:
        self.calls.append((self.close_code, self.close_reason))


class CountingLater(Counting):
    async def on_message(self, message: str | bytes) -> None:
        await asyncio.sleep(0)
        self.calls.append(message)


class CountingAtOnce(Counting):
    async def on_message(self, message: str | bytes) -> None:
        self.calls.append(message)


class Site:
    """One handler of ours, and the client that floods it."""

    def __init__(self, peer: RawPeer, other: RawPeer, calls: list[Any]) -> None:
        self.peer = peer
        self.other = other
        self.calls = calls

    @property
    def handler(self) -> Any:
        return self.calls[0]

    @property
    def messages(self) -> list[Any]:
        return list(self.handler.messages)

    @property
    def transport(self) -> Any:
        return self.handler.ws_connection._transport

    @property
    def wire_bytes(self) -> int:
        return int(self.handler.ws_connection.counters.wire_bytes_in)

    async def until_messages(self, count: int) -> None:
        await until(lambda: len(self.messages) >= count)
        assert len(self.messages) == count

    async def until_more_than(self, wire_bytes: int) -> None:
        await until(lambda: self.wire_bytes > wire_bytes)

    async def settle(self) -> None:
        """Let all that is ready happen: another connection is served some times."""
        for _ in range(20):
            await exchange(self.other)


@contextlib.asynccontextmanager
async def site(
    handler: type[Counting] = Counting, tls: Tls | None = None, deflate: bool = False, **settings: Any
) -> AsyncIterator[Site]:
    calls: list[Any] = []
    compression: Any = {} if deflate else None
    made = type("Limited", (handler,), {**settings, "get_compression_options": lambda self: compression})
    extension = "permessage-deflate" if deflate else None
    async with (
        serving(Echo) as other_url,
        serving(made, calls=calls, ssl_options=tls.server if tls is not None else None) as url,
        raw_client(other_url) as other,
        tls_client(url, tls.client) if tls is not None else raw_client(url, Sec_WebSocket_Extensions=extension) as peer,
    ):
        await until(lambda: calls)
        here = Site(peer, other, calls)
        try:
            yield here
        finally:
            # In a pause the end of the peer is not seen.
            if here.handler.ws_connection is not None:
                here.handler.ws_connection.stream.close()


def texts(count: int) -> list[bytes]:
    return [b"%032d" % number for number in range(count)]


def flood(peer: RawPeer, payloads: list[bytes], deflate: bool = False) -> bytes:
    if deflate:
        return b"".join(peer.frame(TEXT, deflated(payload), rsv=0x40) for payload in payloads)
    return b"".join(peer.frame(TEXT, payload) for payload in payloads)


@pytest.mark.gen_test(timeout=ALWAYS)
@pytest.mark.parametrize("kind", ["plain", "deflate", "TLS", "TLS by the ssl module"])
@pytest.mark.parametrize("handler", [Counting, CountingLater, CountingAtOnce])
async def test_a_flood_is_read_as_fast_as_it_may_come_and_loses_nothing(
    handler: type[Counting], kind: str, clock: Clock, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.name == "native":
        native: Any = importlib.import_module("tornado_ws.engine._native")
        monkeypatch.setattr(native, "direct_tls", kind == "TLS")
    expected = [payload.decode() for payload in texts(3000)]
    async with site(handler, tls if kind.startswith("TLS") else None, kind == "deflate", **SLOWLY) as here:
        sending = asyncio.ensure_future(here.peer.send(flood(here.peer, texts(3000), kind == "deflate")))
        await here.until_messages(10)
        await here.settle()
        assert here.messages == expected[:10]
        assert not here.transport.reading
        # Five are due, one after the other; and then as many as the budget holds.
        for number in range(11, 16):
            await clock.let_pass(LONG)
            await here.until_messages(number)
        await here.settle()
        assert here.messages == expected[:15]
        await clock.let_pass(1000 * LONG)
        await here.until_messages(25)
        await here.settle()
        assert here.messages == expected[:25]
        while len(here.messages) < 3000:
            await clock.let_pass(10 * LONG)
            await here.settle() if len(here.messages) % 1000 == 0 else await asyncio.sleep(0)
        await sending
        await here.peer.send_frame(CLOSE, close_payload(1000))
        await clock.let_pass(10 * LONG)
        await until(lambda: here.calls[-1] == (1000, None))
        assert [call for call in here.calls if isinstance(call, str)] == expected


@pytest.mark.gen_test(timeout=ALWAYS)
async def test_pings_count_as_messages(clock: Clock) -> None:
    async with site(**SLOWLY) as here:
        await here.peer.send(b"".join(here.peer.frame(PING, b"%d" % number) for number in range(100)))
        await here.until_messages(10)
        await here.settle()
        assert here.messages == [b"%d" % number for number in range(10)]
        for _ in range(9):
            await clock.let_pass(10 * LONG)
            await here.settle()
        assert here.messages == [b"%d" % number for number in range(100)]
        assert await here.peer.receive() == Frame(PONG, b"0")


@pytest.mark.gen_test(timeout=ALWAYS)
@pytest.mark.parametrize("kind", ["one frame", "fragments", "compressed", "messages", "TLS"])
async def test_bytes_are_counted_as_they_come(kind: str, clock: Clock, tls: Tls) -> None:
    """Of a large message too, before it is whole."""
    burst = 100_000
    slowly: dict[str, Any] = {
        "websocket_byte_rate_limit": 10_000 / LONG,
        "websocket_byte_rate_burst": burst,
        "websocket_max_message_size": LARGE,
    }
    payload = bytes(range(256)) * (2_000_000 // 256)
    async with site(tls=tls if kind == "TLS" else None, deflate=kind == "compressed", **slowly) as here:
        frames = here.peer.frame(BINARY, payload)
        if kind == "fragments":
            frames = here.peer.frame(BINARY, b"", fin=False)
            frames += b"".join(
                here.peer.frame(CONTINUATION, payload[begin : begin + 1000], fin=begin + 1000 >= len(payload))
                for begin in range(0, len(payload), 1000)
            )
        elif kind == "compressed":
            frames = here.peer.frame(BINARY, deflated(payload, level=0), rsv=0x40)
        elif kind == "messages":
            frames = b"".join(here.peer.frame(BINARY, payload[:1000]) for _ in range(len(payload) // 1000))
        sending = asyncio.ensure_future(here.peer.send(frames))
        await until(lambda: not here.transport.reading)
        await here.settle()
        before = here.wire_bytes
        # What is there is read at once, by as much as a read may have.
        assert burst < before <= burst + 2 * READ_SIZE
        assert len(here.messages) == (before // 1008 if kind == "messages" else 0)
        await clock.let_pass(LONG)
        await here.settle()
        assert here.wire_bytes <= burst + 10_000 + 2 * READ_SIZE
        reads = 0
        while here.wire_bytes < len(frames):
            before = here.wire_bytes
            await clock.let_pass(100 * LONG)
            await here.until_more_than(before)
            await here.settle()
            assert here.wire_bytes - before <= burst + 2 * READ_SIZE
            reads += 1
        assert reads >= 2_000_000 // (burst + 2 * READ_SIZE) - 1
        await sending
        if kind == "messages":
            await until(lambda: here.messages == [payload[:1000]] * (len(payload) // 1000))
        else:
            await until(lambda: here.messages == [payload])


@pytest.mark.gen_test(timeout=ALWAYS)
@pytest.mark.parametrize("kind", ["plain", "deflate", "TLS"])
@pytest.mark.parametrize("handler", [Counting, CountingLater])
async def test_the_connection_can_be_closed_instead(
    handler: type[Counting], kind: str, clock: Clock, tls: Tls, log: Log
) -> None:
    settings = {**SLOWLY, "websocket_rate_limit_policy": "close"}
    reason = "more than 1e-05 messages a second"
    async with site(handler, tls if kind == "TLS" else None, kind == "deflate", **settings) as here:
        await here.peer.send(flood(here.peer, texts(9), kind == "deflate"), here.peer.frame(PING, b"1"))
        await here.until_messages(10)
        await here.settle()
        assert not here.handler.ws_connection.is_closing()
        await clock.let_pass(LONG)
        await here.peer.send(flood(here.peer, texts(50), kind == "deflate"))
        frames = [await here.peer.receive(), await here.peer.receive()]
        assert frames == [Frame(PONG, b"1"), Frame(CLOSE, close_payload(1008, reason))]
        await here.peer.send_frame(CLOSE, close_payload(1008))
        await until(lambda: here.calls[-1] == (1008, reason))
        received = [call.encode() for call in here.calls if isinstance(call, str)]
        assert received == [*texts(9), texts(1)[0]]
        assert reason in log.only().getMessage()


@pytest.mark.gen_test
async def test_too_many_bytes_can_close_the_connection(log: Log) -> None:
    settings: dict[str, Any] = {
        "websocket_byte_rate_limit": 1000 / LONG,
        "websocket_byte_rate_burst": 1000,
        "websocket_rate_limit_policy": "close",
    }
    reason = "more than 0.01 bytes a second"
    async with site(**settings) as here:
        await here.peer.send(flood(here.peer, texts(20)))
        await here.until_messages(20)
        await here.settle()
        await here.peer.send(flood(here.peer, texts(20)), here.peer.frame(BINARY, b"begun", fin=False))
        assert await here.peer.receive_rest() == [Frame(CLOSE, close_payload(1008, reason))]
        await until(lambda: here.calls[-1] == (1008, reason))
        # What came as a whole is delivered.
        assert len([call for call in here.calls if isinstance(call, str)]) == 40
        assert reason in log.only().getMessage()


@pytest.mark.gen_test
async def test_a_close_frame_behind_as_much_as_may_come_is_no_violation() -> None:
    async with site(**SLOWLY, websocket_rate_limit_policy="close") as here:
        await here.peer.send(flood(here.peer, texts(10)), here.peer.frame(CLOSE, close_payload(1000)))
        assert await here.peer.receive_rest() == [Frame(CLOSE, close_payload(1000))]
        await until(lambda: here.calls[-1] == (1000, None))


@pytest.mark.gen_test
async def test_another_violation_is_told_as_what_it_is() -> None:
    async with site(**SLOWLY, websocket_rate_limit_policy="close") as here:
        await here.peer.send(flood(here.peer, texts(10)), b"\xff\xff")
        assert (await here.peer.receive_rest())[0].payload[:2] == b"\x03\xea"


@pytest.mark.gen_test(timeout=ALWAYS)
async def test_a_peer_that_is_not_read_is_not_given_up(clock: Clock) -> None:
    async with site(**SLOWLY, websocket_keepalive_timeout=10) as here:
        connection = here.handler.ws_connection
        connection.params.ping_interval = 20.0
        connection.start_pinging()
        await here.peer.send(flood(here.peer, texts(100)))
        await here.until_messages(10)
        for _ in range(20):
            await clock.let_pass(25.0)
            # It takes the pings, and its pongs lie behind what is not read.
            received = await here.peer.receive()
            assert received is not None
            assert received.opcode == PING
            await here.peer.send_frame(PONG, received.payload)
            await here.settle()
        assert not connection.is_closing()
        assert len(here.messages) == 10


@pytest.mark.gen_test(timeout=ALWAYS)
@pytest.mark.parametrize("first", ["we", "the peer"])
@pytest.mark.parametrize("handler", [Counting, CountingLater])
async def test_the_closing_handshake_works_in_a_pause(handler: type[Counting], first: str, clock: Clock) -> None:
    async with site(handler, **SLOWLY) as here:
        await here.peer.send(flood(here.peer, texts(100)))
        await here.until_messages(10)
        handler_ = here.handler
        if first == "we":
            handler_.close(1000, "enough")
            assert await here.peer.receive() == Frame(CLOSE, close_payload(1000, "enough"))
            await here.peer.send_frame(CLOSE, close_payload(1000))
        else:
            await here.peer.send_frame(CLOSE, close_payload(1000))
            await here.settle()
            assert not handler_.ws_connection.is_closing()
            for _ in range(10):
                await clock.let_pass(10 * LONG)
                await here.settle()
            assert await here.peer.receive() == Frame(CLOSE, close_payload(1000))
        await until(lambda: here.calls[-1] == (1000, None))
        assert [call.encode() for call in here.calls if isinstance(call, str)] == texts(100)


@pytest.mark.gen_test
@pytest.mark.parametrize("how", ["stream", "abort", "reset"])
async def test_an_end_in_a_pause_ends_the_pause(how: str) -> None:
    async with site(**SLOWLY) as here:
        await here.peer.send(flood(here.peer, texts(20)))
        await here.until_messages(10)
        connection = here.handler.ws_connection
        limit = connection._rate_limit
        assert limit.pauses
        if how == "stream":
            connection.stream.close()
        elif how == "abort":
            connection._abort()
        else:
            here.peer.reset()
            # Nobody reads, so nobody sees it before something is written.
            await until(lambda: connection.is_closing() or not connection.write_message("x"))
        await until(lambda: isinstance(here.calls[-1], tuple))
        assert not limit.pauses


@pytest.mark.gen_test(timeout=ALWAYS)
async def test_two_reasons_not_to_read_are_two(clock: Clock) -> None:
    """A handler that is behind, and a peer that is too fast: it is read when neither is."""
    gate = asyncio.Event()

    class Busy(Counting):
        async def on_message(self, message: str | bytes) -> None:
            self.calls.append(message)
            await gate.wait()

    async with site(Busy, **SLOWLY, websocket_read_ahead_messages=20) as here:
        await here.peer.send(flood(here.peer, texts(100)))
        limit = here.handler.ws_connection._rate_limit
        # One is being handled, nine wait; ten more might.
        await until(lambda: limit.pauses)
        await here.settle()
        assert len(here.messages) == 1
        assert not here.transport.reading
        # The handler goes on, and the peer may not.
        gate.set()
        await here.until_messages(10)
        await here.settle()
        assert len(here.messages) == 10
        assert not here.transport.reading
        # The peer may, and the handler is behind: 1 and 20 of 30 that may come are read.
        gate.clear()
        for _ in range(3):
            await clock.let_pass(10 * LONG)
            await here.settle()
        assert len(here.messages) == 11
        assert not here.transport.reading
        assert not limit.pauses
        gate.set()
        for _ in range(9):
            await clock.let_pass(10 * LONG)
            await here.settle()
        assert here.messages == [payload.decode() for payload in texts(100)]
        assert here.transport.reading


@pytest.mark.gen_test(timeout=ALWAYS)
@pytest.mark.parametrize("way", ["read_message", "on_message_callback"])
async def test_clients_limit_servers(way: str, clock: Clock) -> None:
    received: list[Any] = []
    options: dict[str, Any] = {"message_rate_limit": 1 / LONG, "message_rate_burst": 10}
    if way == "on_message_callback":
        options["on_message_callback"] = received.append
    async with raw_pair(**options) as (conn, peer):

        async def read() -> None:
            async for message in conn:
                received.append(message)

        reading = asyncio.ensure_future(read()) if way == "read_message" else None
        await peer.send(flood(peer, texts(100)))
        await until(lambda: len(received) == 10)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(received) == 10
        while len(received) < 100:
            await clock.let_pass(LONG)
        assert [each.encode() for each in received if each is not None] == texts(100)
        if reading is not None:
            reading.cancel()


@pytest.mark.gen_test
async def test_messages_within_the_limits_are_never_held_up() -> None:
    async with site(**{**SLOWLY, "websocket_message_rate_burst": 1000, "websocket_byte_rate_limit": 1e9}) as here:
        for number in range(10):
            await here.peer.send(flood(here.peer, texts(100)))
            await here.until_messages(100 * (number + 1))
        assert here.handler.ws_connection._rate_limit.pauses is False
        assert here.transport.reading


def test_on_uvloop_in_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop: Any = importlib.import_module("uvloop")
    pauses: list[None] = []
    pause = RateLimit.pause

    def counted(self: RateLimit, go_on: Any) -> None:
        pauses.append(None)
        pause(self, go_on)

    monkeypatch.setattr(RateLimit, "pause", counted)

    async def main() -> None:
        calls: list[Any] = []
        made = type(
            "Limited", (Counting,), {"websocket_message_rate_limit": 20_000, "websocket_message_rate_burst": 50}
        )
        async with serving(made, calls=calls) as url, connected(url) as conn:
            for payload in texts(5000):
                conn.write_message(payload)
            await until(lambda: len(calls) == 5001)
            assert [call.encode() for call in calls[1:]] == texts(5000)

    uvloop.run(main())
    assert pauses


@given(
    st.floats(0.1, 1e6),
    st.floats(1, 1e6),
    st.lists(st.tuples(st.floats(0, 1e3), st.integers(0, 1000)), max_size=50),
)
def test_a_bucket_gives_no_more_than_its_rate_and_burst(
    rate: float, burst: float, asked: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now = 0.0
    taken: list[tuple[float, int]] = []
    for seconds, count in asked:
        now += seconds
        bucket.refill(now)
        given_ = min(count, int(bucket.tokens)) if bucket.tokens > 0 else 0
        bucket.tokens -= given_
        taken.append((now, given_))
        if bucket.tokens < 1:
            wait = bucket.seconds_until(1)
            assert wait > 0
            assert min(burst, bucket.tokens + wait * rate) >= min(burst, 1) * (1 - 1e-9)
    for index, (begin, _) in enumerate(taken):
        total = 0
        for at, count in taken[index:]:
            total += count
            assert total <= (burst + (at - begin) * rate) * (1 + 1e-9)


def test_by_default_as_much_may_come_at_once_as_in_a_second() -> None:
    loop = asyncio.new_event_loop()
    for rate, burst in ((100, 100), (0.5, 1), (2.9, 2)):
        assert RateLimit(Options(message_rate_limit=rate), loop).allowance(0, 1000) == burst
    limit = RateLimit(Options(byte_rate_limit=1000), loop)
    assert (limit.allowance(1000, 7), limit.is_overdrawn) == (7, False)
    assert (limit.allowance(2001, 7), limit.is_overdrawn) == (7, True)
    loop.close()
