"""What is written outside callbacks: the first message of a turn goes at once, the others leave together."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.conftest import Log, Tls
from tests.peer import RawPeer, raw_client, raw_pair, raw_server, tls_client
from tests.support import PATIENCE, Echo, run_side_by_side, serving, standing_loop, until
from tests.wire import BINARY, CLOSE, PING, TEXT, Frame
from tornado_ws import WebSocketClosedError, WebSocketHandler, broadcast, websocket_connect
from tornado_ws.pubsub.fan_out import protocol_of
from tornado_ws.transport.transport import Transport

#: More than the kernel takes for a peer that does not read.
MUCH = 1 << 24


class Handler(Echo):
    """Shows itself to the test."""

    def initialize(self, calls: list[Any]) -> None:
        calls.append(self)


@contextlib.asynccontextmanager
async def server_side(**settings: Any) -> AsyncIterator[tuple[Any, RawPeer]]:
    handlers: list[Any] = []
    async with serving(Handler, calls=handlers, **settings) as url, raw_client(url) as client:
        await until(lambda: handlers and handlers[0].ws_connection)
        yield handlers[0], client


@pytest.fixture(params=[raw_pair, server_side], ids=["client", "server"])
def side(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Give what is entered for (a connection of ours, its peer)."""
    made: Callable[..., Any] = request.param
    return made


async def messages(peer: RawPeer, count: int) -> list[str]:
    return [(await peer.receive()).payload.decode() for _ in range(count)]  # type: ignore[union-attr]


def write(conn: Any, *numbers: int) -> list[asyncio.Future[None]]:
    return [conn.write_message(f"{number}") for number in numbers]


@pytest.mark.gen_test
async def test_the_first_goes_at_once_and_the_others_at_the_end_of_the_turn(side: Callable[..., Any]) -> None:
    async with side() as (conn, peer):
        futures = write(conn, 0)
        assert peer.has_unread(PATIENCE)
        peer.sock.recv(100)
        futures += write(conn, 1, 2, 3)
        assert [future.done() for future in futures] == [True, False, False, False]
        assert protocol_of(conn).buffered_amount > 0
        assert not peer.has_unread()
        await asyncio.sleep(0)
        assert all(future.done() for future in futures)
        assert protocol_of(conn).buffered_amount == 0
        assert peer.has_unread(PATIENCE)
        assert await messages(peer, 3) == ["1", "2", "3"]


@pytest.mark.gen_test
async def test_the_first_one_of_each_turn_goes_at_once(side: Callable[..., Any]) -> None:
    async with side() as (conn, peer):
        for number in range(5):
            assert write(conn, number)[0].done()
            assert peer.has_unread(PATIENCE)
            assert await messages(peer, 1) == [f"{number}"]
            await asyncio.sleep(0)


class Waiting(Handler):
    """Writes in each step of its task."""

    async def on_message(self, message: str | bytes) -> None:
        self.done: list[list[bool]] = []
        for step in range(3):
            await asyncio.sleep(0)
            futures = write(self, 10 * step + 1, 10 * step + 2, 10 * step + 3)
            self.done.append([future.done() for future in futures])
            if step == 2:
                await futures[-1]
                self.done.append([future.done() for future in futures])


@pytest.mark.gen_test
async def test_in_each_step_of_the_connection_s_task_the_first_one_goes_at_once() -> None:
    handlers: list[Any] = []
    async with serving(Waiting, calls=handlers) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"x"))
        assert await messages(client, 9) == [f"{number}" for number in (1, 2, 3, 11, 12, 13, 21, 22, 23)]
        (handler,) = handlers
        await until(lambda: len(handler.done) == 4)
        assert all(done[0] and not done[-1] for done in handler.done[:3])
        assert handler.done[3] == [True] * 3


@pytest.mark.gen_test
async def test_writes_of_tasks_callbacks_and_threads_leave_together(side: Callable[..., Any]) -> None:
    loop = asyncio.get_running_loop()

    async def in_task(number: int) -> None:
        await write(conn, number)[0]

    async with side() as (conn, peer):
        run_side_by_side([threading.Thread(target=conn.write_message_threadsafe, args=("0",))])
        loop.call_soon(write, conn, 1)
        tasks = [asyncio.create_task(in_task(number)) for number in (2, 3, 4)]
        loop.call_soon(write, conn, 5)
        sends: list[bytes] = []
        await asyncio.gather(*tasks)
        while sum(map(len, sends)) < sum(len(peer.frame(TEXT, b"x", masked=side is raw_pair)) for _ in range(6)):
            assert peer.has_unread(PATIENCE)
            sends.append(peer.sock.recv(1000))
        # The first one, those up to the first one that is awaited, the rest; or fewer, if this was slow to read.
        assert len(sends) <= 3


@pytest.mark.gen_test
async def test_a_task_that_awaits_each_write_has_it_with_the_kernel(side: Callable[..., Any]) -> None:
    turns: list[int] = []
    async with side() as (conn, peer):
        asyncio.get_running_loop().call_soon(turns.append, 1)
        done = []
        for number in range(5):
            (future,) = write(conn, number)
            done.append(future.done())
            await future
            assert peer.has_unread(PATIENCE)
            assert peer.sock.recv(100)
        # A stream is no slower for it: it does not wait for the turn's end, and no longer does what waiting needs.
        assert not turns
        assert done == [True, False, True, True, True]


@pytest.mark.gen_test
async def test_tasks_that_await_one_write_each_wait_for_the_end_of_the_turn(side: Callable[..., Any]) -> None:
    seen: list[bool] = []

    async def in_task(number: int) -> None:
        future = write(conn, number)[0]
        await future
        seen.append(future.done())

    async with side() as (conn, peer):
        tasks = [asyncio.create_task(in_task(number)) for number in range(10)]
        await asyncio.sleep(0)
        # The first one went at once, and the first one that had to wait.
        assert len(seen) == 2
        await asyncio.gather(*tasks)
        assert seen == [True] * 10
        assert await messages(peer, 10) == [f"{number}" for number in range(10)]


@pytest.mark.gen_test
async def test_sixty_four_kib_do_not_wait(side: Callable[..., Any]) -> None:
    async with side() as (conn, peer):
        futures = [conn.write_message(bytes(10_000), binary=True) for _ in range(10)]
        assert [future.done() for future in futures].index(False) == 7
        await futures[-1]
        assert [len((await peer.receive()).payload) for _ in range(10)] == [10_000] * 10


@pytest.mark.gen_test
@pytest.mark.parametrize("compression", [None, {"threshold": 0}], ids=["plain", "deflate"])
@pytest.mark.parametrize("of_server", [True, False], ids=["server", "client"])
async def test_everything_keeps_its_order(compression: dict[str, Any] | None, of_server: bool) -> None:
    received: list[Any] = []
    handlers: list[Any] = []

    class Receiving(Handler):
        def get_compression_options(self) -> dict[str, Any] | None:
            return compression

        def on_message(self, message: str | bytes) -> None:
            received.append(message)

    async with serving(Receiving, calls=handlers) as url:
        conn = await websocket_connect(url, on_message_callback=received.append, compression_options=compression)
        await until(lambda: handlers and handlers[0].ws_connection)
        writer: Any = handlers[0] if of_server else conn
        sent: list[Any] = []
        for size in (1, 2, 20_000, 3, 70_000, 4):
            sent += [bytes(size), "text"]
            writer.write_message(bytes(size), binary=True)
            writer.write_message("text")
        writer.ping(b"")
        writer.write_message("behind a ping")
        broadcast([writer, writer], "to all")
        writer.write_message("last")
        await until(lambda: received and received[-1] == "last")
        assert received == [*sent, "behind a ping", "to all", "to all", "last"]
        conn.close()
        await until(conn.stream.closed)


@pytest.mark.gen_test
async def test_tls_too(tls: Tls) -> None:
    handlers: list[Any] = []
    sizes = (1, 2, 20_000, 3, 4)
    async with serving(Handler, calls=handlers, ssl_options=tls.server) as url, tls_client(url, tls.client) as client:
        await until(lambda: handlers and handlers[0].ws_connection)
        futures = [handlers[0].write_message(bytes(size), binary=True) for size in sizes]
        assert not futures[-1].done()
        await asyncio.gather(*futures)
        assert [await client.receive() for _ in sizes] == [Frame(BINARY, bytes(size)) for size in sizes]


@pytest.mark.gen_test
async def test_the_close_frame_follows_what_waits(side: Callable[..., Any]) -> None:
    async with side() as (conn, peer):
        futures = write(conn, 0, 1, 2)
        conn.close(1000)
        assert await messages(peer, 3) == ["0", "1", "2"]
        assert (await peer.receive()).opcode == CLOSE
        await asyncio.gather(*futures)
        await peer.send_frame(CLOSE, b"\x03\xe8")


@pytest.mark.gen_test
async def test_what_waits_goes_out_before_the_socket_is_closed(side: Callable[..., Any]) -> None:
    async with side() as (conn, peer):
        futures = write(conn, 0, 1, 2)
        protocol_of(conn).stream.close()
        assert await messages(peer, 3) == ["0", "1", "2"]
        assert await peer.receive() is None
        await asyncio.gather(*futures)


@pytest.mark.gen_test
async def test_futures_end_with_what_the_kernel_does_not_take(side: Callable[..., Any]) -> None:
    async with side(stalling=True) if side is raw_pair else side() as (conn, peer):
        conn.write_message("first")
        futures = [conn.write_message(bytes(10_000), binary=True)]
        # It is sent behind what waits, and fills the kernel's buffers.
        large = conn.write_message(bytes(MUCH), binary=True)
        assert futures[0].done()
        assert not large.done()
        futures = write(conn, 1, 2)
        await asyncio.sleep(0)
        assert not any(future.done() for future in futures)
        peer.close()
        for future in [large, *futures]:
            with pytest.raises(WebSocketClosedError):
                await future


@pytest.mark.gen_test
async def test_the_gathered_ones_wait_for_a_peer_that_is_slow(side: Callable[..., Any]) -> None:
    async with side(stalling=True) if side is raw_pair else side() as (conn, peer):
        size = 15_000
        futures: list[asyncio.Future[None]] = []
        while not futures or futures[-1].done():
            futures = [conn.write_message(bytes(size), binary=True) for _ in range(4)]
            await asyncio.sleep(0)
        # The kernel has taken a part of what left together, or nothing.
        await peer.receive()
        while not all(future.done() for future in futures):
            await peer.receive()
        assert not any(future.exception() for future in futures)


@pytest.mark.gen_test
async def test_a_ping_does_not_wait_and_sends_what_does(side: Callable[..., Any]) -> None:
    async with side() as (conn, peer):
        futures = write(conn, 0, 1)
        conn.ping(b"")
        assert all(future.done() for future in futures)
        assert await messages(peer, 2) == ["0", "1"]
        assert (await peer.receive()).opcode == PING


@pytest.mark.gen_test
async def test_flush_sends_what_waits(side: Callable[..., Any]) -> None:
    async with side() as (conn, peer):
        futures = write(conn, 0, 1, 2)
        protocol_of(conn).flush()
        assert all(future.done() for future in futures)
        assert await messages(peer, 3) == ["0", "1", "2"]


@pytest.mark.gen_test
async def test_each_write_has_a_future_of_its_own(side: Callable[..., Any]) -> None:
    done: list[tuple[int, bool]] = []
    async with side() as (conn, peer):
        futures = write(conn, 0, 1, 2, 3)
        futures[1].cancel()
        for number in range(4, 8):
            future = conn.write_message(f"{number}")
            future.add_done_callback(lambda future, number=number: done.append((number, future.cancelled())))
            del future
        conn.write_message("8").cancel()
        futures += write(conn, 9)
        assert await messages(peer, 10) == [f"{number}" for number in range(10)]
        assert done == [(number, False) for number in range(4, 8)]
        assert [future.cancelled() for future in futures] == [False, True, False, False, False]
        del futures
        gc.collect()


@pytest.mark.gen_test
async def test_watermarks_need_no_future() -> None:
    async with raw_pair(write_high_watermark=1000) as (conn, peer):
        futures = [conn.write_message("x" * 400) for _ in range(4)]
        assert [future.done() for future in futures] == [True, True, True, False]
        await futures[-1]
        await messages(peer, 4)


@pytest.mark.gen_test
async def test_another_connections_callback(side: Callable[..., Any]) -> None:
    seen: list[bool] = []

    class Relay(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            write(conn, 0)
            seen.append(peer.has_unread(PATIENCE))
            write(conn, 1, 2)

    async with serving(Relay) as url, side() as (conn, peer), raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert await messages(peer, 3) == ["0", "1", "2"]
    assert seen == [True]


@pytest.mark.gen_test
async def test_a_loop_inside_a_callback_sends_what_waits() -> None:
    """As with nest_asyncio."""
    seen: list[bool] = []

    class Nested(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            write(conn, 0, 1)
            loop: Any = asyncio.get_running_loop()
            assert peer.has_unread(PATIENCE)
            peer.sock.recv(100)
            loop._run_once()
            seen.append(peer.has_unread(PATIENCE))

    async with serving(Nested) as url, raw_pair() as (conn, peer), raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        await until(lambda: seen)
    assert seen == [True]


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
def test_a_failure_at_the_end_of_the_turn_ends_that_connection_alone(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    settle = Transport._settle

    def fail_one(self: Transport, futures: Any) -> None:
        if self._owner is failing[0]:
            raise error
        settle(self, futures)

    async def fail() -> None:
        async with raw_pair() as (other, other_peer), raw_pair() as (conn, _), raw_pair() as (third, third_peer):
            failing.append(conn.protocol)
            for each in (third, conn, other):
                write(each, 0, 1, 2)
            for peer in (other_peer, third_peer):
                received.append(await messages(peer, 3))
            await until(conn.stream.closed)

    async def ends() -> None:
        await asyncio.wait_for(failed, PATIENCE)

    failing: list[Any] = []
    received: list[list[str]] = []
    monkeypatch.setattr(Transport, "_settle", fail_one)
    with standing_loop() as loop:
        failed = loop.create_task(fail())
        with contextlib.nullcontext() if isinstance(error, Exception) else pytest.raises(type(error)):
            loop.run_until_complete(failed)
        loop.run_until_complete(ends())
    assert received == [["0", "1", "2"]] * 2


_EXITS = """
import asyncio, signal, sys
from tornado.ioloop import IOLoop
from tornado_ws import websocket_connect

async def connect():
    conn = await websocket_connect(sys.argv[1])
    for number in range(3):
        conn.write_message(str(number))
    {end}

IOLoop.current().add_callback(connect)
IOLoop.current().start()
"""


@pytest.mark.gen_test
@pytest.mark.parametrize("end", ["sys.exit()", "signal.raise_signal(signal.SIGINT)", "await conn.write_message('3')"])
async def test_the_end_of_the_process_loses_nothing(end: str) -> None:
    if end.startswith("await"):
        end += "; import os; os._exit(0)"
    async with raw_server() as server:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _EXITS.format(end=end), server.url, stderr=asyncio.subprocess.DEVNULL
        )
        peer = await server.accept()
        count = 4 if end.startswith("await") else 3
        assert await messages(peer, count) == [f"{number}" for number in range(count)]
        await program.wait()


def test_where_the_loop_stands_still_everything_goes_at_once() -> None:
    async def begin() -> tuple[Any, Any, contextlib.AsyncExitStack]:
        stack = contextlib.AsyncExitStack()
        conn, peer = await stack.enter_async_context(raw_pair())
        return conn, peer, stack

    async def end() -> None:
        assert await messages(peer, 6) == ["0", "1", "2", "3", "4", "5"]
        await stack.aclose()

    async def write_in_the_last_turn() -> None:
        write(conn, 3, 4, 5)

    with standing_loop() as loop:
        conn, peer, stack = loop.run_until_complete(begin())
        assert all(future.done() for future in write(conn, 0, 1, 2))
        loop.run_until_complete(write_in_the_last_turn())
        assert conn.buffered_amount == 0
        loop.run_until_complete(end())
