"""Pings that we send: who is kept, who is given up, and what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.connection.conftest import Log
from tests.connection.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawPeer,
    Recording,
    close_payload,
    raw_client,
    raw_pair,
)
from tests.support import Echo, serving, until
from tornado_ws import WebSocketClosedError

GIVEN_UP = Frame(CLOSE, close_payload(1000, "ping timed out"))

#: For peers that have to be given up soon.
SHORT: dict[str, Any] = {"websocket_ping_interval": 0.03, "websocket_ping_timeout": 0.03}
#: For peers that have to be kept: longer than a busy machine lets a process wait.
LONG: dict[str, Any] = {"websocket_ping_interval": 0.25, "websocket_ping_timeout": 0.25}


async def answer_pings(peer: RawPeer, others: list[Frame]) -> None:
    while (received := await peer.receive()) is not None:
        if received.opcode == PING:
            await peer.send_frame(PONG, received.payload)
        else:
            others.append(received)


class Answering:
    """Lets ``peer`` answer pings while other things happen."""

    def __init__(self, peer: RawPeer) -> None:
        self.others: list[Frame] = []
        self._task = asyncio.ensure_future(answer_pings(peer, self.others))

    async def __aenter__(self) -> Answering:
        return self

    async def __aexit__(self, *args: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.gen_test
async def test_a_silent_client_is_given_up_with_a_code_and_a_reason(log: Log) -> None:
    calls: list[Any] = []
    async with serving([("/", Recording, {"calls": calls})], **SHORT) as url, raw_client(url) as client:
        before = now()
        assert await client.receive() == Frame(PING)
        assert calls == ["open"]
        assert await client.receive_rest() == [GIVEN_UP]
        await until(lambda: len(calls) == 2)
        # Not the 5 seconds more that an answer to the close frame may take.
        assert now() - before < 1.5
    assert calls == ["open", ("close", 1006, "ping timed out")]
    record = log.only()
    assert record.levelno == logging.DEBUG
    assert "127.0.0.1" in record.getMessage()
    assert "ping timed out" in record.getMessage()


@pytest.mark.gen_test
async def test_a_silent_server_is_given_up_with_a_code_and_a_reason(log: Log) -> None:
    async with raw_pair(ping_interval=0.03, ping_timeout=0.03) as (conn, peer):
        address = "{}:{}".format(*peer.sock.getsockname())
        assert await peer.receive() == Frame(PING)
        assert await peer.receive_rest() == [GIVEN_UP]
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (1006, "ping timed out")
        with pytest.raises(WebSocketClosedError):
            conn.write_message("x")
    assert address in log.only().getMessage()


@pytest.mark.gen_test
@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_peer_that_answers_is_kept(side: str) -> None:
    if side == "server":
        async with serving(Echo, **LONG) as url, raw_client(url) as client:
            await check_that_it_is_kept(client)
    else:
        async with raw_pair(ping_interval=0.25, ping_timeout=0.25) as (_, server):
            await check_that_it_is_kept(server)


async def check_that_it_is_kept(peer: RawPeer) -> None:
    times = [now()]
    for _ in range(3):
        assert await peer.receive() == Frame(PING)
        times.append(now())
        await peer.send_frame(PONG)
    assert all(0.2 < later - earlier < 0.8 for earlier, later in itertools.pairwise(times))


@pytest.mark.gen_test
async def test_pongs_reach_on_pong_on_both_ends() -> None:
    pongs: list[Any] = []

    class Handler(Echo):
        def on_pong(self, data: bytes) -> None:
            pongs.append(data)

    async with serving(Handler, **LONG) as url, raw_client(url) as client:
        await client.send(client.frame(PONG, b"unsolicited"))
        assert await client.receive() == Frame(PING)
        await client.send(client.frame(PONG, b""), client.frame(TEXT, b"x"))
        assert await client.receive() == Frame(TEXT, b"x")
    assert pongs == [b"unsolicited", b""]


@pytest.mark.gen_test
@pytest.mark.parametrize("sign", ["messages", "pings", "pieces of a frame", "fragments"])
async def test_other_signs_of_life_count_too(sign: str) -> None:
    async with serving(Echo, **LONG) as url, raw_client(url) as client:
        if sign == "pieces of a frame":
            await client.send_frame(BINARY, b"", length=100)
        if sign == "fragments":
            await client.send_frame(BINARY, b"0", fin=False)
        started = now()
        pieces = 0
        while now() - started < 0.8:
            pieces += 1
            if sign == "messages":
                await client.send_frame(TEXT, b"x")
            elif sign == "pings":
                await client.send_frame(PING, b"x")
            elif sign == "fragments":
                await client.send_frame(CONTINUATION, b"x", fin=False)
            else:
                await client.send(b"x")
            await asyncio.sleep(0.04)
        if sign == "pieces of a frame":
            await client.send(b"x" * (100 - pieces))
        await client.send_frame(CLOSE)
        frames = await client.receive_rest()
        assert GIVEN_UP not in frames
        assert len([frame for frame in frames if frame == Frame(PING)]) >= 2


@pytest.mark.gen_test
async def test_a_long_message_that_stops_coming_is_no_life() -> None:
    calls: list[Any] = []
    async with serving([("/", Recording, {"calls": calls})], **SHORT) as url, raw_client(url) as client:
        await client.send_frame(BINARY, b"the beginning", length=1000)
        frames = await client.receive_rest()
        assert frames[-1] == GIVEN_UP
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 1006, "ping timed out")]


@pytest.mark.gen_test
async def test_a_peer_that_answers_is_kept_while_the_application_is_busy() -> None:
    """Tornado reads nothing meanwhile, and cuts off the peer whose pong it has not read."""
    calls: list[Any] = []

    class Busy(Recording):
        async def on_message(self, message: str | bytes) -> None:
            await asyncio.sleep(0.8)
            await self.write_message(message)

    async with (
        serving([("/", Busy, {"calls": calls})], **LONG) as url,
        raw_client(url) as client,
        Answering(client) as answering,
    ):
        await client.send_frame(TEXT, b"hello")
        await until(lambda: answering.others)
        assert answering.others == [Frame(TEXT, b"hello")]
    assert calls[0] == "open"


@pytest.mark.gen_test
async def test_a_peer_that_we_do_not_read_from_is_kept() -> None:
    calls: list[Any] = []

    class Busy(Recording):
        async def on_message(self, message: str | bytes) -> None:
            if message == "0":
                await asyncio.sleep(0.4)
            await self.write_message(message)

    settings: dict[str, Any] = {
        "websocket_ping_interval": 0.1,
        "websocket_ping_timeout": 0.1,
        "websocket_read_ahead_messages": 2,
    }
    async with serving([("/", Busy, {"calls": calls})], **settings) as url, raw_client(url) as client:
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(10)])
        # No pong could be seen anyway.
        messages: list[bytes] = []
        while len(messages) < 10:
            received = await client.receive()
            assert received is not None
            assert received.opcode != CLOSE
            if received.opcode == TEXT:
                messages.append(received.payload)
        assert messages == [b"%d" % number for number in range(10)]


@pytest.mark.gen_test
@pytest.mark.parametrize("timeout", [0, 0.0])
async def test_a_timeout_of_zero_is_none(timeout: float) -> None:
    settings: dict[str, Any] = {"websocket_ping_interval": 0.02, "websocket_ping_timeout": timeout}
    async with serving(Echo, **settings) as url, raw_client(url) as client:
        for _ in range(5):
            assert await client.receive() == Frame(PING)
        await client.send_frame(TEXT, b"x")
        while (received := await client.receive()) == Frame(PING):
            pass
        assert received == Frame(TEXT, b"x")


@pytest.mark.gen_test
async def test_the_timeout_is_the_interval_where_none_is_given() -> None:
    async with serving(Echo, websocket_ping_interval=0.03) as url, raw_client(url) as client:
        assert await client.receive_rest() == [Frame(PING), GIVEN_UP]


@pytest.mark.gen_test
async def test_a_timeout_longer_than_the_interval_is_cut_with_a_warning(log: Log) -> None:
    settings: dict[str, Any] = {"websocket_ping_interval": 0.031, "websocket_ping_timeout": 30.5}
    async with serving(Echo, **settings) as url, raw_client(url) as client:
        assert await client.receive_rest() == [Frame(PING), GIVEN_UP]
    warnings = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "websocket_ping_timeout (30.5) cannot be longer than the websocket_ping_interval (0.031)" in warnings[0]


@pytest.mark.gen_test
@pytest.mark.parametrize("settings", [{}, {"websocket_ping_interval": 0}, {"websocket_ping_timeout": 0.01}])
async def test_no_interval_no_pings(settings: dict[str, Any]) -> None:
    async with serving(Echo, **settings) as url, raw_client(url) as client:
        await asyncio.sleep(0.08)
        await client.send_frame(TEXT, b"x")
        assert await client.receive() == Frame(TEXT, b"x")


@pytest.mark.gen_test
async def test_no_pings_behind_our_close_frame() -> None:
    class Closing(Echo):
        def on_message(self, message: str | bytes) -> None:
            self.close()

    settings: dict[str, Any] = {"websocket_ping_interval": 0.02, "websocket_ping_timeout": 0}
    async with serving(Closing, **settings) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"close")
        while (received := await client.receive()) == Frame(PING):
            pass
        assert received == Frame(CLOSE)
        await asyncio.sleep(0.06)
        await client.send_frame(CLOSE)
        assert await client.receive_rest() == []


@pytest.mark.gen_test
async def test_a_dead_peer_that_takes_nothing_more_is_given_up_at_once() -> None:
    """The close frame could not be sent behind all that is unsent, so nobody waits for that."""
    calls: list[Any] = []
    handlers: list[Recording] = []

    class Handler(Recording):
        def open(self) -> None:
            super().open()
            handlers.append(self)

    async with serving([("/", Handler, {"calls": calls})], **SHORT) as url, raw_client(url, stalling=True):
        await until(lambda: handlers)
        future = handlers[0].write_message(bytes(8 << 20), binary=True)
        before = now()
        with pytest.raises(WebSocketClosedError):
            await future
        await until(lambda: len(calls) == 2)
        assert now() - before < 1.5
    assert calls == ["open", ("close", 1006, "ping timed out")]


@pytest.mark.gen_test
async def test_on_close_of_a_peer_given_up_waits_for_on_message() -> None:
    calls: list[Any] = []

    class Busy(Recording):
        async def on_message(self, message: str | bytes) -> None:
            await asyncio.sleep(0.2)
            with pytest.raises(WebSocketClosedError):
                await self.write_message(message)
            self.calls.append("done")

    async with serving([("/", Busy, {"calls": calls})], **SHORT) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"hello")
        await client.receive_rest()
        await until(lambda: len(calls) == 3)
    assert calls == ["open", "done", ("close", 1006, "ping timed out")]


# keepalive_timeout


@contextlib.asynccontextmanager
async def either_end(side: str, ends: list[Any], **options: Any) -> AsyncIterator[RawPeer]:
    """Give the peer of a connection with ``options``; how that ended is put into ``ends``."""
    if side == "client":
        async with raw_pair(**options) as (conn, server):
            yield server
            await conn.wait_closed()
            ends.append((conn.close_code, conn.close_reason))
    else:

        class Handler(Echo):
            def on_close(self) -> None:
                ends.append((self.close_code, self.close_reason))

        settings = {f"websocket_{name}": value for name, value in options.items()}
        async with serving(Handler, **settings) as url, raw_client(url) as client:
            yield client
            await until(lambda: ends)


@pytest.mark.gen_test
@pytest.mark.parametrize("side", ["server", "client"])
async def test_keepalive_timeout_may_be_longer_than_the_interval(side: str, log: Log) -> None:
    ends: list[Any] = []
    async with either_end(side, ends, ping_interval=0.05, keepalive_timeout=0.5) as peer:
        before = now()
        frames = await peer.receive_rest()
        assert now() - before >= 0.5
    assert frames[-1] == GIVEN_UP
    # Pings go on meanwhile.
    assert len(frames) > 4
    assert set(frames[:-1]) == {Frame(PING)}
    assert ends == [(1006, "ping timed out")]
    # Tornado's setting is cut to the interval with a warning; nothing is cut here.
    assert not [record for record in log.records if record.levelno >= logging.WARNING]


@pytest.mark.gen_test
@pytest.mark.parametrize("side", ["server", "client"])
async def test_keepalive_timeout_may_be_shorter_than_the_interval_and_goes_first(side: str) -> None:
    ends: list[Any] = []
    options = {"ping_interval": 0.5, "ping_timeout": 0, "keepalive_timeout": 0.05}
    async with either_end(side, ends, **options) as peer:
        assert await peer.receive() == Frame(PING)
        before = now()
        assert await peer.receive_rest() == [GIVEN_UP]
        assert now() - before < 0.4
    assert ends == [(1006, "ping timed out")]


@pytest.mark.gen_test
async def test_a_late_pong_is_life() -> None:
    settings: dict[str, Any] = {"websocket_ping_interval": 0.1, "websocket_keepalive_timeout": 0.8}
    async with serving(Echo, **settings) as url, raw_client(url) as client:
        started = now()
        while now() - started < 2:
            assert await client.receive() == Frame(PING)
            if now() - started > 0.5:
                await client.send_frame(PONG, b"late")
        await client.send_frame(CLOSE)
        assert GIVEN_UP not in await client.receive_rest()


@pytest.mark.gen_test
async def test_a_single_byte_is_life() -> None:
    async with serving(Echo, **LONG) as url, raw_client(url) as client:
        header = client.frame(BINARY, bytes(70_000))
        for index in range(10):
            await client.send(header[index : index + 1])
            await asyncio.sleep(0.1)
        await client.send(header[10:], client.frame(CLOSE))
        frames = await client.receive_rest()
    assert len([frame for frame in frames if frame == Frame(PING)]) >= 3
    assert frames[-1] == Frame(CLOSE)


# Whom we do not hear


@pytest.mark.gen_test
async def test_a_peer_that_we_did_not_read_from_gets_the_time_to_answer() -> None:
    """It could not be heard while reading was paused, and what it had to say may still be on its way."""

    class Busy(Echo):
        websocket_read_ahead_messages = 2

        async def on_message(self, message: str | bytes) -> None:
            if message == "0":
                await asyncio.sleep(0.4)

    settings: dict[str, Any] = {"websocket_ping_interval": 0.2, "websocket_keepalive_timeout": 0.4}
    async with serving(Busy, **settings) as url, raw_client(url) as client:
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(10)])
        started = now()
        assert await client.receive() == Frame(PING)
        # The application is done at 0.4, the timeout would be at 0.6.
        await asyncio.sleep(0.75 - (now() - started))
        await client.send(client.frame(PONG), client.frame(CLOSE))
        assert GIVEN_UP not in await client.receive_rest()


@pytest.mark.gen_test
async def test_a_peer_whose_answer_is_there_unread_is_kept() -> None:
    """After a blocked loop timers are due with sockets unread, of which no more than 256 are served at once."""
    calls: list[Any] = []

    class Filler(Echo):
        ping_interval = None

    routes: list[Any] = [("/", Recording, {"calls": calls}), ("/filler", Filler)]
    settings: dict[str, Any] = {"websocket_ping_interval": 0.5, "websocket_keepalive_timeout": 0.1}
    async with serving(routes, **settings) as url, contextlib.AsyncExitStack() as stack:
        fillers = [await stack.enter_async_context(raw_client(url + "/filler")) for _ in range(400)]
        client = await stack.enter_async_context(raw_client(url))
        assert await client.receive() == Frame(PING)
        for filler in fillers:
            await filler.send_frame(TEXT, b"x")
        await client.send_frame(PONG)
        time.sleep(0.2)
        await asyncio.sleep(0.05)
        await client.send_frame(TEXT, b"still here")
        assert await client.receive() == Frame(TEXT, b"still here")


class Answering8MiB(Recording):
    """Waits until the peer has taken a long answer, and reads on then."""

    websocket_read_ahead_messages = 2

    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(bytes(8 << 20), binary=True)


@pytest.mark.gen_test
async def test_a_dead_peer_is_given_up_though_we_wait_for_it_and_do_not_read() -> None:
    """Its messages fill what is read ahead, and the application awaits a write that it never takes."""
    calls: list[Any] = []
    settings: dict[str, Any] = {"websocket_ping_interval": 0.1, "websocket_keepalive_timeout": 0.2}
    async with (
        serving([("/", Answering8MiB, {"calls": calls})], **settings) as url,
        raw_client(url, stalling=True) as client,
    ):
        await client.send(*[client.frame(TEXT, b"x")] * 10)
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 1006, "ping timed out")]


@pytest.mark.gen_test
async def test_a_slow_peer_is_kept_though_we_wait_for_it_and_do_not_read() -> None:
    calls: list[Any] = []
    settings: dict[str, Any] = {"websocket_ping_interval": 0.1, "websocket_keepalive_timeout": 0.3}
    async with (
        serving([("/", Answering8MiB, {"calls": calls})], **settings) as url,
        raw_client(url, stalling=True) as client,
    ):
        await client.send(*[client.frame(TEXT, b"x")] * 10)
        started = now()
        # A kernel tells of room when there is a good deal of it: the pieces may not be too small.
        while now() - started < 1.5:
            taken = 0
            while taken < 1 << 19:
                taken += len(await client.receive_bytes())
            await asyncio.sleep(0.05)
        assert calls == ["open"]
