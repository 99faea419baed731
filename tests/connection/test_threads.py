"""Calls from other threads than the connection's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tornado.platform.asyncio import AsyncIOLoop

import tornado_ws.connection.threads as threads
from tests.peer import raw_client, raw_pair
from tests.support import Echo, connected, serving, until
from tests.wire import TEXT, Frame
from tornado_ws import WebSocketClientConnection, WebSocketClosedError, websocket_connect
from tornado_ws.testing import expect

SAYS = r"in thread 'worker_0'.* write_message_threadsafe\(\), .* IOLoop.add_callback\(\)"
DEFLATE: dict[str, Any] = {"compression_options": {}}


@pytest.fixture
def worker() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """A thread that is no loop's."""
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="worker") as executor:
        yield executor


class Kept(Echo):
    """Keeps itself where the test finds it."""

    def initialize(self, kept: list[Kept]) -> None:
        kept.append(self)


class DeflatedKept(Kept):
    def get_compression_options(self) -> dict[str, Any]:
        return {}


CALLS: list[Callable[[Any], object]] = [
    lambda end: end.write_message("from the wrong thread"),
    lambda end: end.write_message(b"from the wrong thread", binary=True),
    lambda end: end.ping(),
    lambda end: end.close(),
]


@pytest.mark.gen_test
@pytest.mark.parametrize("call", CALLS, ids=["text", "binary", "ping", "close"])
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
async def test_a_call_from_another_thread_is_an_error_and_changes_nothing(
    call: Callable[[Any], object], deflate: bool, worker: concurrent.futures.ThreadPoolExecutor
) -> None:
    kept: list[Kept] = []
    routes = [("/", DeflatedKept if deflate else Kept, {"kept": kept})]
    async with serving(routes) as url, connected(url, **DEFLATE if deflate else {}) as conn:
        for end in (kept[0], conn):
            with pytest.raises(RuntimeError, match=SAYS):
                await asyncio.wrap_future(worker.submit(call, end))
        # With a compressor, what it had taken from the refused message would garble this one.
        for text in ("the first", "the first again"):
            await conn.write_message(text)
            await expect(conn, text)
        assert conn.close_code is None


@pytest.mark.gen_test
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
async def test_messages_from_threads_arrive_in_the_order_of_each(deflate: bool) -> None:
    kept: list[Kept] = []
    sent: list[concurrent.futures.Future[None]] = []

    def write(end: Any, name: str) -> None:
        for number in range(200):
            sent.append(end.write_message_threadsafe({"from": name, "number": number}))

    routes = [("/", DeflatedKept if deflate else Kept, {"kept": kept})]
    async with serving(routes) as url, connected(url, **DEFLATE if deflate else {}) as conn:
        writers = [
            threading.Thread(target=write, args=(end, f"{index} {name}"))
            for index, end in enumerate([kept[0], conn])
            for name in ("one", "two")
        ]
        for thread in writers:
            thread.start()
        numbers: dict[str, list[int]] = {}
        for _ in range(800):
            # Those of the client come back as an echo.
            message: Any = await conn.read_message()
            _, name, _, number = message.strip("{}").replace(":", ",").split(", ")
            numbers.setdefault(name, []).append(int(number))
        for thread in writers:
            thread.join()
    assert len(numbers) == 4
    assert all(of_one == list(range(200)) for of_one in numbers.values())
    assert [future.result(0) for future in sent] == [None] * 800


@pytest.mark.gen_test
async def test_a_message_is_what_it_was_when_the_thread_gave_it(worker: concurrent.futures.ThreadPoolExecutor) -> None:
    message = bytearray(b"before")
    mapping = {"it": "was before"}

    def write(conn: WebSocketClientConnection) -> None:
        conn.write_message_threadsafe(message)
        conn.write_message_threadsafe(mapping)
        message[:] = b"after!"
        mapping["it"] = "is after"

    async with raw_pair() as (conn, peer):
        # Not awaited: the loop has its turn only when the thread is done.
        worker.submit(write, conn).result()
        for payload in (b"before", b'{"it": "was before"}'):
            received = await peer.receive()
            assert received is not None
            assert received.payload == payload


@pytest.mark.gen_test
async def test_the_future_fails_as_write_message_does(worker: concurrent.futures.ThreadPoolExecutor) -> None:
    kept: list[Kept] = []

    async def fails(end: Any, message: Any, error: type[Exception]) -> None:
        writing = await asyncio.wrap_future(worker.submit(end.write_message_threadsafe, message))
        with pytest.raises(error):
            await asyncio.wrap_future(writing)

    async with serving([("/", Kept, {"kept": kept})]) as url:
        async with connected(url) as conn:
            await fails(conn, b"\xff", ValueError)
            await fails(conn, 1, TypeError)
        await until(lambda: kept[0].ws_connection is None)
        for end in (kept[0], conn):
            await fails(end, "late", WebSocketClosedError)


@pytest.mark.gen_test
async def test_a_write_that_waits_ends_with_the_connection(worker: concurrent.futures.ThreadPoolExecutor) -> None:
    async with raw_pair(stalling=True) as (conn, peer):
        writing = worker.submit(conn.write_message_threadsafe, bytes(1 << 24), True).result()
        await asyncio.sleep(0.01)
        assert not writing.done()
        peer.reset()
        with pytest.raises(WebSocketClosedError):
            await asyncio.wrap_future(writing)


async def closed_connection() -> WebSocketClientConnection:
    async with serving(Echo) as url:
        conn = await websocket_connect(url)
        conn.close()
        await until(conn.stream.closed)
        return conn


def test_a_closed_loop_is_a_closed_connection() -> None:
    loop = AsyncIOLoop(make_current=False)
    conn = loop.run_sync(closed_connection)
    conn.protocol = cast(Any, SimpleNamespace(stream=conn.stream))
    loop.close()
    with pytest.raises(WebSocketClosedError):
        conn.write_message_threadsafe("late").result(0)
    conn.protocol = None


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_loop_that_is_closed_before_a_calls_turn_ends_the_future(kind: str) -> None:
    """A loop that has stopped takes calls, and drops them when it is closed."""
    loop: asyncio.AbstractEventLoop = importlib.import_module(kind).new_event_loop()
    conn = loop.run_until_complete(closed_connection())
    conn.protocol = cast(Any, SimpleNamespace(stream=conn.stream))
    writings = [conn.write_message_threadsafe(text) for text in ("one", "two")]
    assert not any(writing.done() for writing in writings)
    loop.close()
    for writing in writings:
        with pytest.raises(WebSocketClosedError, match="event loop was closed before"):
            writing.result(0)
    conn.protocol = None


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("turns", range(1, 5))
def test_a_loop_that_is_closed_while_a_call_waits_ends_the_future(turns: int, kind: str) -> None:
    """However far it has come, and although the connection lives on, and the loop with it."""
    loop: asyncio.AbstractEventLoop = importlib.import_module(kind).new_event_loop()
    conn = loop.run_until_complete(closed_connection())
    waits_for: asyncio.Future[None] = loop.create_future()
    protocol: Any = SimpleNamespace(stream=conn.stream)

    async def write_message(message: Any, binary: bool) -> None:
        await waits_for

    async def go_on() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    writings = [threads.write_message_threadsafe(protocol, write_message, text, False) for text in ("one", "two")]
    loop.run_until_complete(go_on())
    # Called before one of the last turn, and waiting behind it.
    writings.append(threads.write_message_threadsafe(protocol, write_message, "three", False))
    assert not any(writing.done() for writing in writings)
    loop.close()
    for writing in writings:
        with pytest.raises(WebSocketClosedError, match="event loop was closed before"):
            writing.result(0)
    for task in asyncio.all_tasks(loop):
        # Or CPython 3.10 complains that nobody has ended it.
        task._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_loop_that_stands_still_may_go_on_with_a_call(kind: str) -> None:
    loop: asyncio.AbstractEventLoop = importlib.import_module(kind).new_event_loop()
    conn = loop.run_until_complete(closed_connection())
    waits_for: asyncio.Future[None] = loop.create_future()
    protocol: Any = SimpleNamespace(stream=conn.stream)

    async def write_message(message: Any, binary: bool) -> None:
        await waits_for

    writing = threads.write_message_threadsafe(protocol, write_message, "text", False)
    loop.run_until_complete(asyncio.sleep(0))
    assert not writing.done()
    waits_for.set_result(None)
    loop.run_until_complete(until(writing.done))
    assert writing.result(0) is None
    loop.close()


def test_a_loop_that_is_closed_as_a_call_comes_ends_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is taken by a loop that has dropped all others already, and keeps this one."""
    loop = asyncio.new_event_loop()
    conn = loop.run_until_complete(closed_connection())
    take_call: Any = loop.call_soon_threadsafe

    def close_first(call: Any) -> None:
        loop.close()
        monkeypatch.setattr(loop, "_check_closed", lambda: None)
        monkeypatch.setattr(loop, "_write_to_self", lambda: None)
        take_call(call)

    monkeypatch.setattr(loop, "call_soon_threadsafe", close_first)
    conn.protocol = cast(Any, SimpleNamespace(stream=conn.stream))
    with pytest.raises(WebSocketClosedError, match="event loop was closed before"):
        conn.write_message_threadsafe("late").result(0)
    conn.protocol = None


def test_a_call_that_waits_as_the_loop_ends_ends_with_it() -> None:
    """`asyncio.run` cancels the tasks that are left; who waits in a thread has not cancelled anything."""
    writings: list[concurrent.futures.Future[None]] = []

    async def end_while_it_waits() -> None:
        started = asyncio.Event()

        async def write_message(message: Any, binary: bool) -> None:
            started.set()
            await asyncio.Event().wait()

        conn = await closed_connection()
        protocol: Any = SimpleNamespace(stream=conn.stream)
        writings.append(threads.write_message_threadsafe(protocol, write_message, "text", False))
        await started.wait()

    asyncio.run(end_while_it_waits())
    with pytest.raises(WebSocketClosedError, match="event loop has ended"):
        writings[0].result(0)


@pytest.mark.gen_test
async def test_a_call_that_is_cancelled_sends_nothing(worker: concurrent.futures.ThreadPoolExecutor) -> None:
    def write_and_cancel(conn: WebSocketClientConnection) -> None:
        assert conn.write_message_threadsafe("cancelled").cancel()
        conn.write_message_threadsafe("sent")

    async with raw_pair() as (conn, peer):
        # Not awaited: the loop has its turn only when the thread is done.
        worker.submit(write_and_cancel, conn).result()
        received = await peer.receive()
        assert received is not None
        assert received.payload == b"sent"


@pytest.mark.gen_test
async def test_cancelling_a_call_cancels_a_write_message_that_waits() -> None:
    cancelled, started = asyncio.Event(), asyncio.Event()

    async def write_message(message: Any, binary: bool) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with raw_pair() as (conn, _):
        writing = threads.write_message_threadsafe(conn.protocol, write_message, "text", False)
        await started.wait()
        assert writing.cancel()
        await cancelled.wait()


def test_a_connection_moves_to_another_thread_with_its_loop(worker: concurrent.futures.ThreadPoolExecutor) -> None:
    loop = AsyncIOLoop(make_current=False)
    conns: list[WebSocketClientConnection] = []
    server = serving(Echo)

    async def connect() -> None:
        conns.append(await websocket_connect(await server.__aenter__()))

    async def echo(text: str) -> None:
        await conns[0].write_message(text)
        assert await conns[0].read_message() == text

    async def disconnect() -> None:
        conns[0].close()
        await until(conns[0].stream.closed)
        await server.__aexit__(None, None, None)

    loop.run_sync(connect)
    loop.run_sync(lambda: echo("here"))
    worker.submit(loop.run_sync, lambda: echo("there")).result()
    # While the loop stands still nobody is in the way.
    conns[0].write_message("between")
    loop.run_sync(lambda: echo_between(conns[0]))
    loop.run_sync(disconnect)
    loop.close()


async def echo_between(conn: WebSocketClientConnection) -> None:
    await expect(conn, "between")


@pytest.mark.gen_test
async def test_a_loop_of_another_thread_has_its_own_connections(worker: concurrent.futures.ThreadPoolExecutor) -> None:
    async def talk(url: str) -> None:
        async with connected(url) as conn:
            for number in range(10):
                await conn.write_message(str(number))
                await expect(conn, str(number))

    async with serving(Echo) as url:
        elsewhere = worker.submit(asyncio.run, talk(url))
        await talk(url)
        await asyncio.wrap_future(elsewhere)


@pytest.mark.gen_test
async def test_a_subclass_that_replaces_write_message_is_asked(worker: concurrent.futures.ThreadPoolExecutor) -> None:
    kept: list[Kept] = []

    class Shouting(Kept):
        async def write_message(self, message: Any, binary: bool = False) -> None:  # type: ignore[override]
            await super().write_message(message.upper(), binary)

    async with serving([("/", Shouting, {"kept": kept})]) as url, raw_client(url) as client:
        await until(lambda: kept[0].ws_connection is not None)
        await asyncio.wrap_future(worker.submit(kept[0].write_message_threadsafe, "hello").result())
        received = await client.receive()
        assert received is not None
        assert received == Frame(TEXT, b"HELLO")
