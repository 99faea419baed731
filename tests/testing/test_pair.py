"""A client and a handler in memory: what is the same as over TCP, what needs no descriptor, and what is known of it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from tornado.web import Application

import tornado_ws
from tests.peer import Recording
from tests.support import Echo, until
from tornado_ws import HandshakeRejectedError, WebSocketClosedError
from tornado_ws.testing import connected_pair, expect, expect_close
from tornado_ws.testing.memory import MemorySocket
from tornado_ws.testing.plugin import PairFactory

#: More than both buffers hold.
MUCH = b"x" * 3_000_000


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


async def test_messages_of_all_sizes_and_kinds_come_back(ws_pair: PairFactory) -> None:
    before = descriptors()
    client, handler = await ws_pair(Echo)
    assert descriptors() == before
    for size in (0, 1, 125, 126, 65535, 65536, 1_000_000):
        await client.write_message("t" * size)
        await client.write_message(b"b" * size, binary=True)
        await expect(client, "t" * size)
        await expect(client, b"b" * size)
    handler.write_message("from the server")
    await expect(client, "from the server")
    assert handler.request.remote_ip == "127.0.0.1"
    assert descriptors() == before


async def test_compression_pings_and_subprotocols_are_those_of_the_protocol(ws_pair: PairFactory) -> None:
    class Handler(Echo):
        def get_compression_options(self) -> dict[str, Any]:
            return {}

        def select_subprotocol(self, subprotocols: list[str]) -> str | None:
            return subprotocols[-1]

    client, handler = await ws_pair(
        Handler, "/room?x=1", compression_options={}, subprotocols=["a", "b"], headers={"X-Name": "value"}
    )
    assert client.selected_subprotocol == "b"
    assert handler.request.uri == "/room?x=1"
    assert handler.request.headers["X-Name"] == "value"
    await client.write_message("t" * 10_000)
    await expect(client, "t" * 10_000)
    connection: Any = handler.ws_connection
    assert connection.counters.wire_bytes_in < 1000
    client.ping(b"?")
    await until(lambda: client.latency.last is not None)


@pytest.mark.parametrize("buffer_size", [1, 1000, 65536])
async def test_what_does_not_fit_the_buffer_waits_and_is_counted(ws_pair: PairFactory, buffer_size: int) -> None:
    size = 20 * buffer_size
    client, handler = await ws_pair(Echo, buffer_size=buffer_size)
    future = handler.write_message(b"x" * size, binary=True)
    # Nothing has been read: no turn of the loop has passed.
    header = 2 if size < 126 else 4 if size < 65536 else 10
    assert handler.ws_connection is not None
    assert handler.ws_connection.buffered_amount == size + header - buffer_size
    assert not future.done()
    await expect(client, b"x" * size)
    await future
    assert handler.ws_connection.buffered_amount == 0
    client.write_message(MUCH, binary=True)
    assert client.buffered_amount == len(MUCH) + 14 - buffer_size


@pytest.mark.gen_test
async def test_either_end_closes_both() -> None:
    client, handler = await connected_pair(Echo)
    async with client:
        client.close(4000, "done")
        await expect_close(handler, 4000, "done")
    client, handler = await connected_pair(Echo)
    async with client:
        handler.close(4001)
        await expect_close(client, 4001)
        await handler.wait_closed()
    # As a peer that vanishes: what was sent can be read, and then there is an end without a close frame.
    client, handler = await connected_pair(Echo)
    handler.write_message("last words")
    connection: Any = handler.ws_connection
    connection._abort()
    await expect(client, "last words")
    await expect_close(client, 1006)
    await client.wait_closed()


async def test_writes_to_an_end_that_has_gone_fail(ws_pair: PairFactory) -> None:
    client, handler = await ws_pair(Echo, buffer_size=1000)
    future = client.write_message(MUCH, binary=True)
    connection: Any = handler.ws_connection
    connection._abort()
    with pytest.raises(WebSocketClosedError):
        await future
    await expect_close(client, 1006)


async def test_an_error_of_reading_ends_the_connection(ws_pair: PairFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> bytes:
        raise ConnectionResetError("of a test")

    client, handler = await ws_pair(Echo)
    monkeypatch.setattr(MemorySocket, "recv", fail)
    handler.write_message("not read")
    await expect_close(client, 1006)


async def test_close_all_closes_pairs_and_its_application_can_have_several(ws_pair: PairFactory) -> None:
    calls: list[Any] = []
    application = Application([("/", Recording, {"calls": calls})])
    pairs = [await ws_pair(application) for _ in range(3)]
    assert len({pair.handler for pair in pairs}) == 3
    assert await tornado_ws.close_all(application, timeout=60) == (3, 0)
    for pair in pairs:
        await expect_close(pair.client, 1001)
    assert calls == ["open"] * 3 + [("close", 1001, None)] * 3


async def test_messages_are_counted_and_broadcast(ws_pair: PairFactory) -> None:
    pairs = [await ws_pair(Echo) for _ in range(2)]
    open_before = tornado_ws.counters().open_connections
    assert open_before >= 4
    tornado_ws.broadcast([pair.handler for pair in pairs], "to all")
    for pair in pairs:
        await expect(pair.client, "to all")


@pytest.mark.gen_test
async def test_a_refusal_is_what_it_is_over_tcp_and_leaves_nothing() -> None:
    class Refusing(Echo):
        def check_origin(self, origin: str) -> bool:
            return False

    with pytest.raises(HandshakeRejectedError, match="403"):
        await connected_pair(Refusing, headers={"Origin": "http://elsewhere.example"})
    with pytest.raises(HandshakeRejectedError, match="404"):
        await connected_pair([("/here", Echo)], "/elsewhere")


@pytest.mark.gen_test
async def test_a_handler_that_ends_in_open_is_an_error() -> None:
    class Failing(Echo):
        def open(self) -> None:
            raise OSError("of a test")

    with pytest.raises(WebSocketClosedError, match=r"open\(\) of the handler has ended"):
        await connected_pair(Failing)


@pytest.mark.gen_test
async def test_a_connect_that_is_cancelled_leaves_nothing() -> None:
    class Slow(Echo):
        async def prepare(self) -> None:
            started.set()
            await released.wait()

    started, released = asyncio.Event(), asyncio.Event()
    before = asyncio.all_tasks()
    connecting = asyncio.ensure_future(connected_pair(Slow))
    await started.wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    released.set()
    await until(lambda: asyncio.all_tasks() == before)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"buffer_size": 0}, "buffer_size is 0; it has to be a number of bytes from 1"),
        ({"buffer_size": "1"}, "buffer_size is '1'"),
        ({"path": "here"}, "path is 'here'; it has to begin with a slash"),
        ({"close_timeout": -1}, "close_timeout is -1"),
        ({"ping_intervall": 1}, "ping_intervall"),
    ],
)
async def test_wrong_arguments_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        await connected_pair(Echo, **arguments)
