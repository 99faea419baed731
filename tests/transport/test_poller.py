"""Which sockets are ready: both pollers, connections that end in a batch of events, the end of the loop itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.platform.asyncio import AsyncIOLoop

from tests.peer import (
    RawServer,
    Recording,
    Sockets,
    StallingEcho,
    end,
    exchange,
    opening_request,
    raw_client,
    raw_server,
    unanswered_client,
)
from tests.support import Echo, run_loop_until, serving, until
from tests.wire import BINARY, CLOSE, TEXT, Frame
from tornado_ws import WebSocketHandler, websocket_connect
from tornado_ws.testing import expect
from tornado_ws.transport.poller import poller_of

pytestmark = pytest.mark.usefixtures("each_poller")


@pytest.mark.gen_test
async def test_many_connections() -> None:
    async with serving(Echo) as url:
        conns = [await websocket_connect(url) for _ in range(40)]
        for number, conn in enumerate(conns):
            conn.write_message(f"{number}")
        for number, conn in enumerate(conns):
            await expect(conn, f"{number}")
        for conn in conns[::2]:
            conn.close()
        for conn in conns[::2]:
            assert await conn.read_message() is None
        for conn in conns[1::2]:
            conn.write_message("again")
            await expect(conn, "again")
            conn.close()
            assert await conn.read_message() is None


@pytest.mark.gen_test
async def test_connections_made_while_others_are_closed_in_the_same_turn() -> None:
    """A descriptor that was closed may be another connection's before the batch of events is at its end."""
    async with serving(Echo) as url:
        for _ in range(5):
            async with raw_client(url) as first, raw_client(url) as second:
                await first.send_frame(TEXT, b"1")
                await second.send_frame(CLOSE)
                async with raw_client(url) as third:
                    await third.send_frame(TEXT, b"3")
                    assert await third.receive() == Frame(TEXT, b"3")
                assert await first.receive() == Frame(TEXT, b"1")
                assert await second.receive_rest() == [Frame(CLOSE)]


@pytest.mark.gen_test
async def test_every_connection_is_closed_by_the_first_one_that_is_served() -> None:
    handlers: list[WebSocketHandler] = []
    messages: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            handlers.append(self)

        def on_message(self, message: str | bytes) -> None:
            messages.append(message)
            for handler in handlers:
                protocol: Any = handler.ws_connection
                if protocol is not None:
                    protocol._abort()

    async with (
        serving(Handler) as url,
        raw_client(url) as first,
        raw_client(url) as second,
        raw_client(url) as third,
    ):
        await until(lambda: len(handlers) == 3)
        await asyncio.gather(*(client.send_frame(TEXT, b"x") for client in (first, second, third)))
        await until(lambda: all(handler.ws_connection is None for handler in handlers))
    assert messages == ["x"]


@pytest.mark.gen_test
async def test_a_handler_may_write_to_other_connections() -> None:
    handlers: list[WebSocketHandler] = []

    class Room(Echo):
        def open(self) -> None:
            handlers.append(self)

        def on_message(self, message: str | bytes) -> None:
            for handler in handlers:
                handler.write_message(message)

    async with serving(Room) as url, raw_client(url) as first, raw_client(url) as second:
        await until(lambda: len(handlers) == 2)
        await first.send(*[first.frame(TEXT, b"%d" % number) for number in range(100)])
        for client in (first, second):
            for number in range(100):
                assert await client.receive() == Frame(TEXT, b"%d" % number)


@pytest.mark.gen_test
@pytest.mark.parametrize("others", [0, 1, 3])
async def test_a_loop_inside_a_callback_serves_every_connection(others: int) -> None:
    """And no turn of it logs an error; as with nest_asyncio."""
    received: list[str | bytes] = []

    class Nested(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            received.append(message)
            if message == "outer":
                for client in clients:
                    client.sock.send(client.frame(TEXT, b"inner"))
                run_loop_until(lambda: len(received) == 2 + others)
                self.write_message("done")

    async with serving(Nested) as url, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(url)) for _ in range(1 + others)]
        await clients[0].send_frame(TEXT, b"outer")
        assert await clients[0].receive() == Frame(TEXT, b"done")
        assert received == ["outer"] + ["inner"] * len(clients)
        for client in clients:
            await end(client)


@pytest.mark.gen_test
@pytest.mark.parametrize("what", ["nothing", "a hang-up while we do not read"])
async def test_waiting_costs_no_processor_time(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that we do not read from must not be reported over and over because its peer is gone."""
    released = asyncio.Event()
    calls: list[Any] = []

    class Busy(Recording):
        websocket_read_ahead_messages = 1

        async def on_message(self, message: str | bytes) -> None:
            self.calls.append(message)
            await released.wait()

    async with serving(Busy, calls=calls) as url, raw_client(url) as client:
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(5)])
        await until(lambda: "0" in calls)
        if what != "nothing":
            client.reset()
        turns = 0
        loop: Any = asyncio.get_running_loop()
        select = loop._selector.select

        def counting(timeout: float | None = None) -> Any:
            nonlocal turns
            turns += 1
            return select(timeout)

        monkeypatch.setattr(loop._selector, "select", counting)
        await asyncio.sleep(0.1)
        assert turns < 10
        released.set()
        client.close()
        await until(lambda: calls[-1][0] == "close")


@pytest.fixture
def loop_of_its_own() -> Iterator[AsyncIOLoop]:
    """A loop that the test closes itself."""
    loop = AsyncIOLoop(make_current=False)
    asyncio.set_event_loop(loop.asyncio_loop)
    yield loop
    asyncio.set_event_loop(None)


@pytest.mark.filterwarnings("ignore:Unclosed WebSocketClientConnection:ResourceWarning")
def test_closing_the_loop_with_all_fds_closes_every_socket(loop_of_its_own: AsyncIOLoop) -> None:
    sockets = Sockets()
    streams: list[Any] = []

    async def connect() -> None:
        url = await server.__aenter__()
        for _ in range(2):
            conn = await websocket_connect(url)
            streams.append(conn.stream)
            await conn.write_message("x")
            await expect(conn, "x")
        # Tornado leaves these to whoever closes its loop. The server's connections end with theirs.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    server = serving(Echo)
    loop_of_its_own.run_sync(connect)
    assert len(sockets.new()) >= 3
    loop_of_its_own.close(all_fds=True)
    assert all(stream.closed() for stream in streams)
    assert not sockets.new()


@pytest.mark.gen_test
async def test_the_poller_goes_with_the_last_connection_and_comes_with_the_next() -> None:
    io_loop: Any = IOLoop.current()
    async with serving(Echo) as url:
        watched = len(io_loop.handlers)
        for _ in range(3):
            async with raw_client(url) as client:
                await client.send_frame(TEXT, b"x")
                assert await client.receive() == Frame(TEXT, b"x")
                assert len(io_loop.handlers) == watched + 1
            await until(lambda: len(io_loop.handlers) == watched)


# One socket is the loop's own; with a second one both are the selector's


def is_nested() -> bool:
    return getattr(poller_of(IOLoop.current()), "_selector", None) is not None


@pytest.mark.gen_test
async def test_a_selector_comes_with_the_second_connection_and_goes_with_the_last(each_poller: str) -> None:
    nests = each_poller != "LoopPoller"
    async with serving(Echo) as url:
        for _ in range(2):
            async with raw_client(url) as first:
                await exchange(first)
                assert not is_nested()
                async with raw_client(url) as second:
                    await exchange(second, first, second)
                    assert is_nested() is nests
                    await end(second)
                await exchange(first)
                assert is_nested() is nests
                await end(first)
            await until(lambda: not poller_of(IOLoop.current()).connections())
            assert not is_nested()


@pytest.mark.gen_test
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "with another"])
async def test_a_connection_that_waits_to_write_and_then_to_read(others: int) -> None:
    """What the socket is watched for changes, and goes along when it moves."""
    handlers: list[Any] = []
    released = asyncio.Event()
    messages: list[Any] = []
    large = bytes(3_000_000)

    class Handler(StallingEcho):
        websocket_read_ahead_messages = 1

        def open(self) -> None:
            super().open()
            handlers.append(self)

        async def on_message(self, message: str | bytes) -> None:
            messages.append(message)
            await released.wait()

    async with serving([("/", Handler), ("/echo", Echo)]) as url, raw_client(url, stalling=True) as client:
        await until(lambda: handlers)
        writing = handlers[0].write_message(large, binary=True)
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(3)])
        await until(lambda: not handlers[0].ws_connection._transport.reading)
        assert not writing.done()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(others):
                await exchange(await stack.enter_async_context(raw_client(url + "/echo")))
            assert await client.receive() == Frame(BINARY, large)
            await writing
            assert messages == ["0"]
            released.set()
            await until(lambda: messages == ["0", "1", "2"])
            await end(client)


@pytest.mark.gen_test
async def test_a_message_that_came_before_its_socket_moved_is_not_lost() -> None:
    """It is read after the second connection has come, in the same turn of the loop."""
    opened: list[Any] = []
    messages: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            opened.append(self)

        def on_message(self, message: str | bytes) -> None:
            messages.append((len(opened), message))

    async with serving(Handler) as url, raw_client(url) as first:
        await until(lambda: opened)
        async with unanswered_client(url) as second:
            # The listening socket, then the request, and the message are all ready by now.
            await second.send(opening_request(url))
            await first.send_frame(TEXT, b"x")
            await until(lambda: messages)
            await until(lambda: len(opened) == 2)
            await first.send_frame(TEXT, b"y")
            await until(lambda: len(messages) == 2)
    assert [message for _, message in messages] == ["x", "y"]


@pytest.mark.gen_test
@pytest.mark.parametrize("reading", [True, False], ids=["read", "not read"])
async def test_a_single_connection_is_reset(reading: bool) -> None:
    handlers: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            handlers.append(self)

        def on_close(self) -> None:
            handlers.clear()

    async with serving(Handler) as url, raw_client(url) as client:
        await until(lambda: handlers)
        if not reading:
            handlers[0].ws_connection._transport.pause_reading()
        client.reset()
        if not reading:
            await asyncio.sleep(0.01)
            assert handlers
            handlers[0].ws_connection._transport.resume_reading()
        await until(lambda: not handlers)
        assert not poller_of(IOLoop.current()).connections()


@pytest.mark.filterwarnings("ignore:Unclosed WebSocketClientConnection:ResourceWarning")
def test_closing_the_loop_closes_a_single_socket(loop_of_its_own: AsyncIOLoop) -> None:
    conns: list[Any] = []
    servers: list[RawServer] = []
    serving_raw = raw_server()

    async def connect() -> None:
        server = await serving_raw.__aenter__()
        connecting = websocket_connect(server.url)
        peer = await server.accept()
        conns.append(await connecting)
        servers.append(server)
        await peer.send_frame(TEXT, b"x")
        assert await conns[0].read_message() == "x"
        # Tornado leaves these to whoever closes its loop.
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    loop_of_its_own.run_sync(connect)
    assert len(poller_of(loop_of_its_own).connections()) == 1
    loop_of_its_own.close(all_fds=True)
    assert conns[0].stream.closed()
    (peer,) = servers[0].peers
    assert peer.sock.recv(100) == b""
    peer.close()
    servers[0].sock.close()


@pytest.mark.gen_test
async def test_an_open_connection_needs_nobody_to_hold_it() -> None:
    closed: list[bool] = []

    class Handler(Echo):
        def on_close(self) -> None:
            closed.append(True)

    async with serving(Handler) as url, raw_client(url) as client:
        for _ in range(3):
            await client.send_frame(TEXT, b"x")
            assert await client.receive() == Frame(TEXT, b"x")
            gc.collect()
        assert not closed
        client.half_close()
        await until(lambda: closed)
