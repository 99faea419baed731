"""Pings that we send: who is kept, who is given up, and what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.clock import Clock
from tests.conftest import Log
from tests.peer import RawPeer, Recording, exchange, raw_client, raw_pair
from tests.support import FOREVER, Echo, serving, until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close_payload
from tornado_ws import WebSocketClosedError, WebSocketHandler

pytestmark = pytest.mark.gen_test(timeout=FOREVER)

GIVEN_UP = Frame(CLOSE, close_payload(1000, "ping timed out"))
ENDED = (1006, "ping timed out")

#: Seconds, far longer than a test takes: those that have to pass are let pass by its clock.
INTERVAL = 1000.0
#: The settings of a server: nobody may wait for an answer to the close frame of a peer that was given up.
SETTINGS: dict[str, Any] = {
    "websocket_ping_interval": INTERVAL,
    "websocket_ping_timeout": INTERVAL,
    "websocket_close_timeout": FOREVER,
}


class End:
    """A connection of ours with its peer, and how it ended."""

    def __init__(self, peer: RawPeer, protocol: Any, ends: list[Any]) -> None:
        self.peer = peer
        self.protocol = protocol
        self.ends = ends

    async def hear(self, *sent: bytes) -> None:
        """Let the peer send something, and our side read it."""
        before = self.protocol._signs_of_life().read
        await self.peer.send(*sent)
        await until(
            lambda: self.protocol._signs_of_life().read != before and self.protocol._signs_of_life().unread is None
        )

    @property
    def is_kept(self) -> bool:
        return not self.protocol.is_closing()


@contextlib.asynccontextmanager
async def serve_one(
    handler: type[WebSocketHandler] = Echo, *, stalling: bool = False, **settings: Any
) -> AsyncIterator[End]:
    """Give a connection of a server, with the settings of its handler; others get no pings at ``/filler``."""
    handlers: list[Any] = []
    ends: list[Any] = []

    class Handler(handler):  # type: ignore[misc, valid-type]
        def open(self) -> Any:
            handlers.append(self)
            return super().open()

        def on_close(self) -> None:
            ends.append((self.close_code, self.close_reason))

    routes = [("/", Handler), ("/filler", type("Filler", (Echo,), {"ping_interval": None}))]
    async with serving(routes, **{**SETTINGS, **settings}) as url, raw_client(url, stalling=stalling) as client:
        await until(lambda: handlers)
        yield End(client, handlers[0].ws_connection, ends)


@contextlib.asynccontextmanager
async def either_end(side: str, **options: Any) -> AsyncIterator[End]:
    """Give a connection of ours with ``options``."""
    if side == "server":
        async with serve_one(**{f"websocket_{name}": value for name, value in options.items()}) as end:
            yield end
    else:
        defaults = {name.removeprefix("websocket_"): value for name, value in SETTINGS.items()}
        async with raw_pair(**{**defaults, **options}) as (conn, server):
            end = End(server, conn.protocol, [])
            ended = asyncio.ensure_future(conn.wait_closed())
            ended.add_done_callback(lambda future: end.ends.append((conn.close_code, conn.close_reason)))
            yield end
            conn.close()
            server.close()
            await ended


each_side = pytest.mark.parametrize("side", ["server", "client"])


class Waiting(Echo):
    """Answers messages when ``go_on`` is set."""

    go_on: asyncio.Event

    async def on_message(self, message: str | bytes) -> None:
        await self.go_on.wait()
        await self.write_message(message, binary=isinstance(message, bytes))


@pytest.fixture
def waiting(io_loop: object) -> type[Waiting]:
    return type("Waiting", (Waiting,), {"go_on": asyncio.Event()})


async def test_a_silent_client_is_given_up_with_a_code_and_a_reason(clock: Clock, log: Log) -> None:
    async with serve_one() as end:
        await clock.let_pass(INTERVAL)
        assert await end.peer.receive() == Frame(PING)
        await clock.let_pass(INTERVAL * 0.9)
        assert end.is_kept
        await clock.let_pass(INTERVAL * 0.1)
        assert await end.peer.receive_rest() == [GIVEN_UP]
        await until(lambda: end.ends)
        assert end.ends == [ENDED]
    record = log.only()
    assert record.levelno == logging.DEBUG
    assert "127.0.0.1" in record.getMessage()
    assert "ping timed out" in record.getMessage()


async def test_a_silent_server_is_given_up_with_a_code_and_a_reason(clock: Clock, log: Log) -> None:
    async with raw_pair(ping_interval=INTERVAL, ping_timeout=INTERVAL, close_timeout=FOREVER) as (conn, peer):
        address = "{}:{}".format(*peer.sock.getsockname())
        await clock.let_pass(INTERVAL)
        assert await peer.receive() == Frame(PING)
        await clock.let_pass(INTERVAL)
        assert await peer.receive_rest() == [GIVEN_UP]
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == ENDED
        with pytest.raises(WebSocketClosedError):
            conn.write_message("x")
    assert address in log.only().getMessage()


@each_side
async def test_a_peer_that_answers_is_kept(side: str, clock: Clock) -> None:
    async with either_end(side) as end:
        for _ in range(3):
            await clock.let_pass(INTERVAL * 0.9)
            assert not end.peer.has_unread()
            await clock.let_pass(INTERVAL * 0.1)
            assert await end.peer.receive() == Frame(PING)
            assert not end.peer.has_unread()
            await end.hear(end.peer.frame(PONG))
        assert end.is_kept


@pytest.mark.parametrize("seconds", [1e5, -1e5])
@each_side
async def test_the_wall_clock_may_be_set(
    side: str, seconds: float, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the time of Tornado's loop, by which nobody may be given up and no ping left out."""
    async with either_end(side, keepalive_timeout=INTERVAL * 2.5) as end:
        await clock.let_pass(INTERVAL)
        assert await end.peer.receive() == Frame(PING)
        wall = time.time
        monkeypatch.setattr(time, "time", lambda: wall() + seconds)
        await clock.let_pass(INTERVAL)
        assert await end.peer.receive() == Frame(PING)
        assert end.is_kept


@pytest.mark.rfc("6455-5.5.3-unsolicited")
async def test_pongs_reach_on_pong(clock: Clock) -> None:
    pongs: list[Any] = []

    class Handler(Echo):
        def on_pong(self, data: bytes) -> None:
            pongs.append(data)

    async with serve_one(Handler) as end:
        await end.hear(end.peer.frame(PONG, b"unsolicited"))
        await clock.let_pass(INTERVAL)
        assert await end.peer.receive() == Frame(PING)
        await end.hear(end.peer.frame(PONG))
    assert pongs == [b"unsolicited", b""]


SIGNS: dict[str, tuple[int, bytes, dict[str, Any]]] = {
    "messages": (TEXT, b"x", {}),
    "pings": (PING, b"x", {}),
    "fragments": (CONTINUATION, b"x", {"fin": False}),
}


@pytest.mark.parametrize("sign", [*SIGNS, "pieces of a frame"])
async def test_other_signs_of_life_count_too(sign: str, clock: Clock) -> None:
    async with serve_one() as end:
        peer = end.peer
        if sign == "pieces of a frame":
            await end.hear(peer.frame(BINARY, b"", length=100))
        if sign == "fragments":
            await end.hear(peer.frame(BINARY, b"0", fin=False))
        for _ in range(4):
            await clock.let_pass(INTERVAL)
            assert await peer.receive() == Frame(PING)
            if sign in SIGNS:
                opcode, payload, options = SIGNS[sign]
                await end.hear(peer.frame(opcode, payload, **options))
            else:
                await end.hear(b"x")
            if sign in ("messages", "pings"):
                assert await peer.receive() == Frame(TEXT if sign == "messages" else PONG, b"x")
        assert end.is_kept


async def test_a_long_message_that_stops_coming_is_no_life(clock: Clock) -> None:
    async with serve_one() as end:
        await end.hear(end.peer.frame(BINARY, b"the beginning", length=1000))
        await clock.let_pass(INTERVAL)
        assert await end.peer.receive() == Frame(PING)
        await clock.let_pass(INTERVAL)
        assert await end.peer.receive_rest() == [GIVEN_UP]
        await until(lambda: end.ends)
        assert end.ends == [ENDED]


async def test_a_peer_that_answers_is_kept_while_the_application_is_busy(waiting: type[Waiting], clock: Clock) -> None:
    """Tornado reads nothing meanwhile, and cuts off the peer whose pong it has not read."""
    async with serve_one(waiting) as end:
        await end.hear(end.peer.frame(TEXT, b"hello"))
        for _ in range(3):
            await clock.let_pass(INTERVAL)
            assert await end.peer.receive() == Frame(PING)
            await end.hear(end.peer.frame(PONG))
        waiting.go_on.set()
        assert await end.peer.receive() == Frame(TEXT, b"hello")


async def test_a_peer_that_we_do_not_read_from_is_kept(waiting: type[Waiting], clock: Clock) -> None:
    async with serve_one(waiting, websocket_read_ahead_messages=2) as end:
        await end.peer.send(*[end.peer.frame(TEXT, b"%d" % number) for number in range(10)])
        await until(lambda: not end.protocol._signs_of_life().reading)
        # No pong could be seen anyway.
        for _ in range(4):
            await clock.let_pass(INTERVAL)
            assert await end.peer.receive() == Frame(PING)
        waiting.go_on.set()
        for number in range(10):
            assert await end.peer.receive() == Frame(TEXT, b"%d" % number)


@pytest.mark.parametrize("timeout", [0, 0.0])
async def test_a_timeout_of_zero_is_none(timeout: float, clock: Clock) -> None:
    async with serve_one(websocket_ping_timeout=timeout) as end:
        for _ in range(5):
            await clock.let_pass(INTERVAL)
            assert await end.peer.receive() == Frame(PING)
        assert end.is_kept


async def test_the_timeout_is_the_interval_where_none_is_given(clock: Clock) -> None:
    async with serving(Echo, websocket_ping_interval=INTERVAL) as url, raw_client(url) as client:
        await exchange(client)
        await clock.let_pass(INTERVAL)
        assert await client.receive() == Frame(PING)
        await clock.let_pass(INTERVAL * 0.9)
        assert not client.has_unread()
        await clock.let_pass(INTERVAL * 0.1)
        assert await client.receive_rest() == [GIVEN_UP]


async def test_a_timeout_longer_than_the_interval_is_cut_with_a_warning(clock: Clock, log: Log) -> None:
    async with serve_one(websocket_ping_interval=INTERVAL + 0.25, websocket_ping_timeout=30000.5) as end:
        await clock.let_pass(INTERVAL + 0.25)
        assert await end.peer.receive() == Frame(PING)
        await clock.let_pass(INTERVAL + 0.25)
        assert await end.peer.receive_rest() == [GIVEN_UP]
    warnings = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "websocket_ping_timeout (30000.5) cannot be longer than the websocket_ping_interval (1000.25)" in warnings[0]


@pytest.mark.parametrize("settings", [{}, {"websocket_ping_interval": 0}, {"websocket_ping_timeout": 0.01}])
async def test_no_interval_no_pings(settings: dict[str, Any], clock: Clock) -> None:
    async with serving(Echo, **settings) as url, raw_client(url) as client:
        await exchange(client)
        await clock.let_pass(FOREVER / 2)
        await exchange(client)


async def test_no_pings_behind_our_close_frame(clock: Clock) -> None:
    class Closing(Echo):
        def on_message(self, message: str | bytes) -> None:
            self.close()

    async with serve_one(Closing) as end:
        await end.peer.send_frame(TEXT, b"close")
        assert await end.peer.receive() == Frame(CLOSE)
        await clock.let_pass(INTERVAL)
        await end.peer.send_frame(CLOSE)
        assert await end.peer.receive_rest() == []


async def test_a_dead_peer_that_takes_nothing_more_is_given_up_at_once(clock: Clock) -> None:
    """The close frame could not be sent behind all that is unsent, so nobody waits for that."""
    async with serve_one(stalling=True) as end:
        future = end.protocol.handler.write_message(bytes(8 << 20), binary=True)
        for _ in range(2):
            await clock.let_pass(INTERVAL)
        with pytest.raises(WebSocketClosedError):
            await future
        await until(lambda: end.ends)
        assert end.ends == [ENDED]


async def test_on_close_of_a_peer_given_up_waits_for_on_message(clock: Clock) -> None:
    go_on = asyncio.Event()
    calls: list[Any] = []

    class Busy(Recording):
        async def on_message(self, message: str | bytes) -> None:
            self.calls.append("begin")
            await go_on.wait()
            with pytest.raises(WebSocketClosedError):
                await self.write_message(message)
            self.calls.append("done")

    async with serving(Busy, calls=calls, **SETTINGS) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"hello")
        await until(lambda: len(calls) == 2)
        await clock.let_pass(INTERVAL)
        assert await client.receive() == Frame(PING)
        await clock.let_pass(INTERVAL)
        assert await client.receive_rest() == [GIVEN_UP]
        go_on.set()
        await until(lambda: len(calls) == 4)
    assert calls == ["open", "begin", "done", ("close", *ENDED)]


# keepalive_timeout


@each_side
async def test_keepalive_timeout_may_be_longer_than_the_interval(side: str, clock: Clock, log: Log) -> None:
    async with either_end(side, keepalive_timeout=INTERVAL * 3.5) as end:
        # Pings go on meanwhile.
        for _ in range(4):
            await clock.let_pass(INTERVAL)
            assert await end.peer.receive() == Frame(PING)
        assert end.is_kept
        await clock.let_pass(INTERVAL * 0.5)
        assert await end.peer.receive_rest() == [GIVEN_UP]
        await until(lambda: end.ends)
        assert end.ends == [ENDED]
    # Tornado's setting is cut to the interval with a warning; nothing is cut here.
    assert not [record for record in log.records if record.levelno >= logging.WARNING]


@each_side
async def test_keepalive_timeout_may_be_shorter_than_the_interval_and_goes_first(side: str, clock: Clock) -> None:
    async with either_end(side, ping_timeout=0, keepalive_timeout=INTERVAL / 2) as end:
        await clock.let_pass(INTERVAL)
        assert await end.peer.receive() == Frame(PING)
        # No second ping goes before it.
        await clock.let_pass(INTERVAL / 2)
        assert await end.peer.receive_rest() == [GIVEN_UP]
        await until(lambda: end.ends)
        assert end.ends == [ENDED]


async def test_a_late_pong_is_life(clock: Clock) -> None:
    async with serve_one(websocket_keepalive_timeout=INTERVAL * 3.5) as end:
        for _ in range(3):
            for _ in range(3):
                await clock.let_pass(INTERVAL)
                assert await end.peer.receive() == Frame(PING)
            await end.hear(end.peer.frame(PONG, b"late"))
        assert end.is_kept


async def test_a_single_byte_is_life(clock: Clock) -> None:
    async with serve_one() as end:
        message = end.peer.frame(BINARY, bytes(70_000))
        for index in range(10):
            await clock.let_pass(INTERVAL)
            assert await end.peer.receive() == Frame(PING)
            await end.hear(message[index : index + 1])
        await end.peer.send(message[10:])
        assert await end.peer.receive() == Frame(BINARY, bytes(70_000))


# Whom we do not hear


async def test_a_peer_that_we_did_not_read_from_gets_the_time_to_answer(waiting: type[Waiting], clock: Clock) -> None:
    """It could not be heard while reading was paused, and what it had to say may still be on its way."""
    async with serve_one(waiting, websocket_read_ahead_messages=2, websocket_keepalive_timeout=INTERVAL * 2.5) as end:
        await end.peer.send(*[end.peer.frame(TEXT, b"%d" % number) for number in range(10)])
        await until(lambda: not end.protocol._signs_of_life().reading)
        for _ in range(2):
            await clock.let_pass(INTERVAL)
            assert await end.peer.receive() == Frame(PING)
        waiting.go_on.set()
        for number in range(10):
            assert await end.peer.receive() == Frame(TEXT, b"%d" % number)
        assert end.protocol._signs_of_life().reading
        # It began anew with the second ping, and does with the third.
        for _ in range(3):
            await clock.let_pass(INTERVAL)
            assert await end.peer.receive() == Frame(PING)
        await clock.let_pass(INTERVAL / 4)
        assert end.is_kept


async def test_a_peer_whose_answer_is_there_unread_is_kept(clock: Clock) -> None:
    """After a blocked loop timers are due with sockets unread, of which no more than 256 are served at once."""
    async with serve_one() as end, contextlib.AsyncExitStack() as stack:
        url = f"ws://127.0.0.1:{end.peer.sock.getpeername()[1]}/filler"
        fillers = [await stack.enter_async_context(raw_client(url)) for _ in range(400)]
        await exchange(*fillers)
        await clock.let_pass(INTERVAL)
        assert await end.peer.receive() == Frame(PING)
        # From here on the loop has no turn until the time has passed.
        for filler in fillers:
            filler.sock.send(filler.frame(TEXT, b"x"))
        end.peer.sock.send(end.peer.frame(PONG))
        while end.protocol._signs_of_life().unread is None:
            pass
        clock.step(INTERVAL)
        assert await end.peer.receive() == Frame(PING)
        assert end.is_kept


class Answering8MiB(Echo):
    """Waits until the peer has taken a long answer, and reads on then."""

    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(bytes(8 << 20), binary=True)


async def test_a_dead_peer_is_given_up_though_we_wait_for_it_and_do_not_read(clock: Clock) -> None:
    """Its messages fill what is read ahead, and the application awaits a write that it never takes."""
    async with serve_one(Answering8MiB, stalling=True, websocket_read_ahead_messages=2) as end:
        await end.peer.send(*[end.peer.frame(TEXT, b"x")] * 10)
        await until(lambda: not end.protocol._signs_of_life().reading)
        for _ in range(1000):
            # Its kernel may still take something.
            await clock.let_pass(INTERVAL)
            if end.ends:
                break
        assert end.ends == [ENDED]


async def test_a_slow_peer_is_kept_though_we_wait_for_it_and_do_not_read(clock: Clock) -> None:
    async with serve_one(Answering8MiB, stalling=True, websocket_read_ahead_messages=2) as end:
        await end.peer.send(*[end.peer.frame(TEXT, b"x")] * 10)
        await until(lambda: not end.protocol._signs_of_life().reading)
        for _ in range(8):
            before = end.protocol._signs_of_life().unsent
            # A kernel tells of room when there is a good deal of it: the pieces may not be too small.
            while end.protocol._signs_of_life().unsent == before:
                await end.peer.receive_bytes()
            await clock.let_pass(INTERVAL)
            assert end.is_kept


async def test_a_timeout_that_is_cut_names_the_way_out(log: Log) -> None:
    async with raw_pair(ping_interval=1234.5, ping_timeout=2345.5) as (conn, _):
        protocol: Any = conn.protocol
        assert protocol.ping_timeout == 1234.5
    assert "websocket_keepalive_timeout (of a client: keepalive_timeout)" in log.only().getMessage()
    async with raw_pair(ping_interval=1234.5, keepalive_timeout=2345.5) as (conn, _):
        protocol = conn.protocol
        assert protocol.ping_timeout == 2345.5
