"""The nested poller on another loop than asyncio's own."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.conftest import Tls
from tests.peer import end, exchange, raw_client, raw_pair
from tests.support import PATIENCE, Echo, connected, serving, until
from tests.transport.test_tls import wss_request
from tornado_ws import websocket_connect
from tornado_ws.testing import expect
from tornado_ws.transport import poller

uvloop: Any = importlib.import_module("uvloop")


def on_uvloop(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        await work()

    uvloop.run(main())


def test_many_connections_and_messages_of_all_sizes(each_poller: str) -> None:
    async def work() -> None:
        async with serving(Echo) as url:
            conns = [await websocket_connect(url) for _ in range(30)]
            connection: Any = conns[0].protocol
            await conns[0].write_message("begin")
            assert await conns[0].read_message() == "begin"
            assert isinstance(connection._transport._poller, getattr(poller, each_poller))
            for size in (0, 32, 16384, 300_000, 2_000_000):
                for conn in conns:
                    conn.write_message(bytes(size), binary=True)
                for conn in conns:
                    await expect(conn, bytes(size))
            for conn in conns:
                conn.close()
            for conn in conns:
                assert await conn.read_message() is None

    on_uvloop(work)


def test_a_connection_that_is_alone_and_then_is_not(each_poller: str) -> None:
    async def work() -> None:
        async with serving(Echo) as url:
            for _ in range(3):
                async with raw_client(url) as first:
                    await exchange(first)
                    async with raw_client(url) as second:
                        await exchange(second, first, second)
                        await end(second)
                    await exchange(first)
                    await end(first)
            await until(lambda: not poller.poller_of(IOLoop.current()).connections())

    on_uvloop(work)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls(version: ssl.TLSVersion, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls.client, "maximum_version", version)

    async def work() -> None:
        async with serving(Echo, ssl_options=tls.server) as url, connected(wss_request(url, tls)) as conn:
            for size in (0, 32, 16384, 300_000):
                conn.write_message(bytes(size), binary=True)
                await expect(conn, bytes(size))

    on_uvloop(work)


def test_what_is_written_in_one_turn_leaves_at_its_end() -> None:
    async def work() -> None:
        async with raw_pair() as (conn, peer):
            futures = [conn.write_message(f"{number}") for number in range(4)]
            assert peer.has_unread(PATIENCE)
            assert [future.done() for future in futures] == [True, False, False, False]
            await asyncio.sleep(0)
            assert all(future.done() for future in futures)
            for number in range(4):
                frame = await peer.receive()
                assert frame is not None
                assert frame.payload == b"%d" % number

    on_uvloop(work)
