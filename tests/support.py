"""What tests over real sockets share: a server on loopback, connections to it, and waiting for what is asserted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import tornado.httpserver
from tornado.ioloop import IOLoop
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

import tornado_ws
from tornado_ws import WebSocketClientConnection, WebSocketHandler, websocket_connect
from tornado_ws.transport.poller import poller_of

#: Seconds after which a condition is taken never to come true. It passes only when a test fails, so it is far above
#: what a busy machine needs.
PATIENCE = 60.0

#: Seconds that no test takes, as a timeout that may not pass by itself.
FOREVER = 1e6


#: The server of the tests: Tornado's own, or ours where the environment says ``TESTED_HTTP_SERVER=tornado_ws``.
HTTPServer: type[tornado.httpserver.HTTPServer] = (
    tornado_ws.HTTPServer if os.environ.get("TESTED_HTTP_SERVER") == "tornado_ws" else tornado.httpserver.HTTPServer
)


class Echo(WebSocketHandler):
    def on_message(self, message: str | bytes) -> Any:
        return self.write_message(message, binary=isinstance(message, bytes))


async def until(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Wait for ``condition`` to become true."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.001)


@contextlib.contextmanager
def standing_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Give a loop that stands still where the test does not run it, and end it with the generators begun in it."""
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def run_loop_until(condition: Callable[[], object]) -> None:
    """Run the loop inside a callback of it, as with nest_asyncio."""
    loop: Any = asyncio.get_running_loop()
    task: Any = asyncio.current_task()
    asyncio.tasks._leave_task(loop, task)
    try:
        deadline = loop.time() + PATIENCE
        while not condition():
            assert loop.time() < deadline
            loop.call_later(0.001, int)
            loop._run_once()
    finally:
        asyncio.tasks._enter_task(loop, task)


def run_side_by_side(threads: list[threading.Thread]) -> None:
    """Run ``threads`` to their end, with a change between them at nearly every step."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


def _other_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@contextlib.asynccontextmanager
async def serving(
    routes: type[RequestHandler] | list[Any],
    *,
    calls: list[Any] | None = None,
    sockets: list[socket.socket] | None = None,
    ssl_options: Any = None,
    alone: bool = True,
    **settings: Any,
) -> AsyncIterator[str]:
    """Serve ``routes``, or one handler at ``/``, and give the server's ``ws://`` URL.

    The handler's ``initialize`` gets ``calls``, in which it writes down what was called.
    At the end nothing may be left running, if the server is ``alone`` in the loop.
    """
    if not isinstance(routes, list):
        routes = [("/", routes, {} if calls is None else {"calls": calls})]
    if sockets is None:
        sockets = [bind_unused_port()[0]]
    server = HTTPServer(Application(routes, **settings), ssl_options=ssl_options)
    server.add_sockets(sockets)
    address = sockets[0].getsockname()
    try:
        yield f"ws://127.0.0.1:{address[1]}" if isinstance(address, tuple) else "ws://localhost"
    finally:
        server.stop()
        await server.close_all_connections()
    await until(lambda: not alone or not (_other_tasks() or poller_of(IOLoop.current()).connections()))


@contextlib.asynccontextmanager
async def connected(url: Any, **options: Any) -> AsyncIterator[WebSocketClientConnection]:
    conn = await websocket_connect(url, **options)
    try:
        yield conn
    finally:
        await disconnect(conn)


async def disconnect(conn: WebSocketClientConnection) -> None:
    """Close ``conn`` and see its socket closed."""
    conn.close()
    await until(conn.stream.closed)
