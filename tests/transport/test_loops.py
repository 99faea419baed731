"""Messages over each kind of loop that asyncio has on this platform.

On Windows these are the selector loop and the Proactor, for which Tornado has a thread that selects. Elsewhere the
Proactor is a loop that can watch no socket by itself either, so Tornado does the same.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from tests.support import Echo, connected, serving, until
from tornado_ws.transport import poller

SIZES = [0, 1, 125, 126, 65536, 3_000_000]


class WithoutSockets(asyncio.SelectorEventLoop):
    """Watches nothing but what wakes it up from other threads."""

    def _refuse(self, fd: object, callback: object, *args: object) -> None:
        raise NotImplementedError

    add_reader = add_writer = _refuse


def loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"selector": asyncio.SelectorEventLoop, "proactor": getattr(asyncio, "ProactorEventLoop", WithoutSockets)}


@pytest.fixture(params=sorted(loops()))
def io_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[AsyncIOLoop]:
    if sys.platform != "win32":
        monkeypatch.setattr(asyncio, "ProactorEventLoop", WithoutSockets, raising=False)
        monkeypatch.setattr(poller, "_make_poller", poller.LoopPoller)
    loop = AsyncIOLoop(asyncio_loop=loops()[request.param](), make_current=False)
    asyncio.set_event_loop(loop.asyncio_loop)
    yield loop
    loop.run_sync(_others_end)
    asyncio.set_event_loop(None)
    loop.close()


async def _others_end() -> None:
    """Wait for the server's end of connections, which ends a moment after the client's."""
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


def test_messages_of_all_sizes_to_two_clients_and_back(io_loop: AsyncIOLoop) -> None:
    async def exchange() -> None:
        async with serving(Echo, alone=False) as url, connected(url) as one, connected(url) as other:
            for size in SIZES:
                for client in (one, other):
                    # More than a socket takes at once is among it.
                    await client.write_message(bytes(size), binary=True)
                    await client.write_message("x" * size)
                assert [await client.read_message() for client in (one, other)] == [bytes(size)] * 2
                assert [await client.read_message() for client in (one, other)] == ["x" * size] * 2

    io_loop.run_sync(exchange)


def test_a_peer_that_is_gone_ends_the_connection(io_loop: AsyncIOLoop) -> None:
    async def leave() -> None:
        async with serving(Echo, alone=False) as url, connected(url) as client:
            client.stream.close()
            assert await client.read_message() is None

    io_loop.run_sync(leave)
