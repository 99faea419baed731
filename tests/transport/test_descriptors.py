"""The kernel has no descriptor, no memory or no watch left; and a forked child that shares what the kernel watches."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import resource
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.conftest import Log, Tls
from tests.peer import (
    RawPeer,
    Recording,
    Sockets,
    StallingEcho,
    end,
    exchange,
    opening_request,
    raw_client,
    raw_server,
    tls_client,
    unanswered_client,
)
from tests.support import Echo, serving, until
from tests.wire import CLOSE, PING, PONG, TEXT, Frame
from tornado_ws import WebSocketClosedError, WebSocketHandler
from tornado_ws.transport import transport
from tornado_ws.transport.poller import poller_of

#: Seconds that a busy machine may take.
_PATIENCE = 20.0


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # What cyclic garbage would close could be opened again.
    gc.collect()
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def lay_off(monkeypatch: pytest.MonkeyPatch, name: str, error: int, begin: Callable[[], bool] = lambda: True) -> None:
    """Let the method ``name`` of an epoll fail with ``error`` for as long as ``begin()`` is true."""

    class Epoll:
        def __init__(self) -> None:
            self._epoll = real()

        def __getattr__(self, attribute: str) -> Any:
            if attribute == name and begin():
                return self._fail
            return getattr(self._epoll, attribute)

        def _fail(self, *args: Any) -> None:
            raise OSError(error, os.strerror(error))

    real = select.epoll
    monkeypatch.setattr(select, "epoll", Epoll)


async def is_ended(client: RawPeer) -> list[Frame]:
    """Return the frames up to the end of the connection, and close it."""
    frames = await client.receive_rest()
    client.close()
    return frames


# No descriptor


@pytest.mark.gen_test(timeout=_PATIENCE)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_connection_that_we_end_needs_no_descriptor(secure: bool, tls: Tls) -> None:
    calls: list[Any] = []
    sockets = Sockets()
    async with serving(
        Recording, calls=calls, ssl_options=tls.server if secure else None, websocket_max_message_size=100
    ) as url:
        async with (
            tls_client(url, tls.client) if secure else raw_client(url) as too_big,
            tls_client(url, tls.client) if secure else raw_client(url) as unmasked,
        ):
            await until(lambda: calls.count("open") == 2, _PATIENCE)
            with no_descriptors():
                await too_big.send_frame(TEXT, b"x" * 200)
                await unmasked.send_frame(TEXT, b"x", masked=False)
                await until(lambda: len(calls) == 4, _PATIENCE)
                assert [received.opcode for received in await is_ended(too_big)] == [CLOSE]
                assert [received.opcode for received in await is_ended(unmasked)] == [CLOSE]
        assert {call[1] for call in calls[2:]} == {1009, 1002}
        await until(lambda: not poller_of(IOLoop.current()).connections(), _PATIENCE)
    await until(lambda: not sockets.new(), _PATIENCE)


@pytest.mark.gen_test(timeout=_PATIENCE)
async def test_what_fails_while_lingering_is_begun_does_not_keep_the_stream_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any) -> None:
        raise MemoryError

    calls: list[Any] = []
    sockets = Sockets()
    async with serving(Recording, calls=calls) as url:
        async with raw_client(url) as client:
            monkeypatch.setattr(transport, "detach", fail)
            await client.send_frame(TEXT, b"x", masked=False)
            await until(lambda: len(calls) == 2, _PATIENCE)
        assert calls[-1][1] == 1002
    await until(lambda: not sockets.new(), _PATIENCE)


@pytest.mark.gen_test(timeout=_PATIENCE)
async def test_a_peer_that_cannot_be_watched_to_its_end_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sockets = Sockets()
    async with serving(Echo, websocket_close_timeout=0.5) as url, raw_client(url) as client:
        await exchange(client)
        monkeypatch.setattr(IOLoop.current(), "add_handler", fail)
        await client.send_frame(TEXT, b"x", masked=False)
        (received,) = await client.receive_rest()
        assert received.opcode == CLOSE
        await until(lambda: len(sockets.new()) == 2, _PATIENCE)
    await until(lambda: not sockets.new(), _PATIENCE)


@pytest.mark.gen_test(timeout=_PATIENCE)
@pytest.mark.usefixtures("each_poller")
async def test_without_a_descriptor_for_a_selector_all_connections_are_served() -> None:
    async with serving(Echo) as url, raw_client(url) as first, unanswered_client(url) as second:
        await exchange(first)
        async with unanswered_client(url) as third:
            # The server has accepted them.
            for client in (second, third):
                await client.send(opening_request(url)[:-2])
            await exchange(first, first)
            with no_descriptors():
                for client in (second, third):
                    await client.send(b"\r\n")
                    await client.receive_head()
                await exchange(first, second, third)
            await exchange(third, second, first)
            async with raw_client(url) as fourth:
                await exchange(first, second, third, fourth)
                await end(fourth)
            await exchange(first, second, third)
            for client in (first, second, third):
                await end(client)
        await until(lambda: not poller_of(IOLoop.current()).connections(), _PATIENCE)
        assert getattr(poller_of(IOLoop.current()), "_selector", None) is None


# No memory, no watch


needs_epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the kernel has no epoll")


@needs_epoll
@pytest.mark.gen_test(timeout=_PATIENCE)
async def test_a_selector_that_takes_nothing_is_given_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lay_off(monkeypatch, "register", errno.ENOMEM)
    async with serving(Echo) as url, raw_client(url) as first:
        await exchange(first)
        async with raw_client(url) as second:
            await exchange(first, second)
            assert poller_of(IOLoop.current())._selector is None  # type: ignore[union-attr]
            await end(second)
        await exchange(first)


@needs_epoll
@pytest.mark.gen_test(timeout=_PATIENCE)
async def test_a_connection_that_cannot_be_watched_is_closed_with_a_line(
    monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    full = False
    calls: list[Any] = []
    lay_off(monkeypatch, "register", errno.ENOSPC, lambda: full)
    async with (
        serving(Recording, calls=calls) as url,
        raw_client(url) as first,
        raw_client(url) as second,
    ):
        await exchange(first, second)
        full = True
        calls.clear()
        async with raw_client(url) as third:
            assert await third.receive_rest() == []
        assert "No space left on device" in log.only().getMessage()
        full = False
        await until(lambda: len(calls) == 2, _PATIENCE)
        assert calls == ["open", ("close", None, None)]
        await exchange(first, second)


@needs_epoll
@pytest.mark.gen_test(timeout=_PATIENCE)
async def test_a_write_that_cannot_be_waited_for_fails_and_closes(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    handlers: list[WebSocketHandler] = []

    class Keeping(StallingEcho):
        def open(self) -> None:
            super().open()
            handlers.append(self)

        def on_close(self) -> None:
            handlers.clear()

    lay_off(monkeypatch, "modify", errno.ENOMEM)
    async with serving(Keeping) as url, raw_client(url) as first:
        await exchange(first)
        handlers.clear()
        async with raw_client(url, stalling=True):
            await until(lambda: handlers, _PATIENCE)
            with pytest.raises(WebSocketClosedError):
                await handlers[0].write_message(b"x" * 8_000_000, binary=True)
            await until(lambda: not handlers, _PATIENCE)
        assert "Cannot allocate memory" in log.only().getMessage()
        await exchange(first)


@pytest.mark.gen_test(timeout=_PATIENCE)
@pytest.mark.parametrize("step", ["completed_future", "take_over", "poller_of", "add"])
async def test_a_connection_that_cannot_be_taken_over_leaves_no_socket(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise MemoryError

    sockets = Sockets()
    async with serving(Echo) as url, raw_client(url) as first:
        await exchange(first)
        with monkeypatch.context() as failing:
            if step == "add":
                failing.setattr(poller_of(IOLoop.current()), "add", fail)
            else:
                failing.setattr(transport, step, fail)
            async with unanswered_client(url) as second:
                await second.send(opening_request(url))
                await second.receive_head()
                assert await second.receive_rest() == []
        await exchange(first)
        await end(first)
    await until(lambda: not sockets.new(), _PATIENCE)


# A forked child


@needs_epoll
@pytest.mark.gen_test(timeout=_PATIENCE)
@pytest.mark.usefixtures("each_poller")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("others", [0, 2], ids=["alone", "with others"])
async def test_a_forked_child_that_closes_what_it_inherited_takes_nothing_from_its_parent(others: int) -> None:
    handlers: list[Forking] = []

    class Forking(Echo):
        def open(self) -> None:
            handlers.append(self)

        def on_message(self, message: str | bytes) -> None:
            self.write_message("before")
            if message == "fork" and os.fork() == 0:
                try:
                    for handler in handlers:
                        protocol: Any = handler.ws_connection
                        protocol.stream.close()
                finally:
                    os._exit(0)
            elif message == "fork":
                os.wait()
            self.write_message("after")

    async with serving(Forking) as url, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(url)) for _ in range(1 + others)]
        await clients[0].send_frame(TEXT, b"fork")
        clients += [await stack.enter_async_context(raw_client(url)) for _ in range(3)]
        for number, client in enumerate(clients):
            if number:
                await client.send_frame(TEXT, b"x")
            assert [await client.receive(), await client.receive()] == [Frame(TEXT, b"before"), Frame(TEXT, b"after")]
        for client in clients:
            await end(client)
        await until(lambda: not poller_of(IOLoop.current()).connections(), _PATIENCE)


_FORKS = """
import asyncio, os, sys
from tornado_ws import websocket_connect

def write_and_fork():
    for number in range(3):
        conn.write_message(str(number))
    if os.fork() == 0:
        raise SystemExit
    os.wait()

async def main():
    global conn
    conn = await websocket_connect(sys.argv[1], on_message_callback=lambda message: message and write_and_fork())
    if {inside}:
        await asyncio.Event().wait()
    write_and_fork()
    await asyncio.sleep(0)
    conn.close()
    await asyncio.Event().wait()

asyncio.run(main())
"""


@needs_epoll
@pytest.mark.gen_test(timeout=_PATIENCE)
@pytest.mark.parametrize("inside", [False, True], ids=["a turn", "a callback"])
async def test_a_forked_child_that_an_exception_ends_sends_nothing_again(inside: bool) -> None:
    async with raw_server() as server:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _FORKS.format(inside=inside), server.url, stderr=asyncio.subprocess.DEVNULL
        )
        peer = await server.accept()
        if inside:
            await peer.send_frame(TEXT, b"x")
        for number in range(3):
            assert await peer.receive() == Frame(TEXT, b"%d" % number)
        if inside:
            # What the child has sent is there before the parent goes on.
            await peer.send_frame(PING, b"x")
            assert await peer.receive() == Frame(PONG, b"x")
        else:
            assert await peer.receive() == Frame(CLOSE)
        program.kill()
        await program.wait()
