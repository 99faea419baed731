"""Servers and clients that end with their block: what is served, what is closed, and which arguments are wrong."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.web import Application, RequestHandler

import tornado_ws
from tests.conftest import Tls
from tests.peer import Recording
from tests.support import FOREVER, Echo
from tornado_ws.testing import connected, expect, expect_close, raw_client, raw_server, serve
from tornado_ws.testing.plugin import Connector, ServerFactory


async def shout(conn: tornado_ws.WebSocketHandler, message: str) -> None:
    await conn.write_message(message.upper())


def echo(conn: tornado_ws.WebSocketHandler, message: str) -> None:
    conn.write_message(message)


@pytest.mark.parametrize("served", [Echo, [("/path", Echo)], Application([("/path", Echo)]), echo])
async def test_whatever_can_be_served(ws_server: ServerFactory, ws_connect: Connector, served: Any) -> None:
    server = await ws_server(served)
    assert server.url == f"ws://127.0.0.1:{server.port}"
    for conn in (
        await ws_connect(server, "/path"),
        await ws_connect(server.url, "/path?x=1"),
        await ws_connect(f"{server.url}/path"),
        await ws_connect(HTTPRequest(f"{server.url}/path")),
    ):
        await conn.write_message("x")
        await expect(conn, "x")
    assert len(server.connections) == 4
    assert [handler.request.path for handler in server.connections] == ["/path"] * 4


async def test_a_coroutine_is_served_and_settings_hold(ws_server: ServerFactory, ws_connect: Connector) -> None:
    server = await ws_server(shout, websocket_max_message_size=10)
    conn = await ws_connect(server)
    await conn.write_message("loud")
    await expect(conn, "LOUD")
    await conn.write_message("x" * 11)
    await expect_close(conn, 1009)


@pytest.mark.parametrize("http_server", [None, tornado_ws.HTTPServer])
async def test_over_tls(ws_server: ServerFactory, ws_connect: Connector, http_server: Any) -> None:
    server = await ws_server(Echo, tls=True, **({"http_server": http_server} if http_server else {}))
    assert server.url.startswith("wss://")
    conn = await ws_connect(server)
    assert isinstance(conn.stream.socket, ssl.SSLSocket)
    await conn.write_message("secret")
    await expect(conn, "secret")
    with pytest.raises(ssl.SSLError):
        await ws_connect(server.url)


async def test_over_tls_with_a_context_of_ones_own(ws_server: ServerFactory, ws_connect: Connector, tls: Tls) -> None:
    server = await ws_server(Echo, tls=tls.server)
    conn = await ws_connect(server, ssl_options=tls.client)
    await conn.write_message("secret")
    await expect(conn, "secret")


@pytest.mark.gen_test
async def test_what_is_open_is_closed_at_the_end_whatever_happens() -> None:
    calls: list[Any] = []
    async with serve([("/", Recording, {"calls": calls})]) as server:
        async with connected(server) as conn:
            await conn.write_message("x")
            await expect(conn, "x")
        left_open = await tornado_ws.websocket_connect(server.url)
    await expect_close(left_open, 1001)
    assert conn.stream.closed()
    assert calls == ["open", "x", ("close", None, None), "open", ("close", 1001, None)]
    with pytest.raises(ConnectionRefusedError):
        await tornado_ws.websocket_connect(server.url)


@pytest.mark.gen_test
async def test_who_does_not_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tornado_ws.testing.serving.END_TIMEOUT", 0.01)
    async with contextlib.AsyncExitStack() as stack:
        async with serve(Echo, websocket_close_timeout=FOREVER) as server:
            peer = await stack.enter_async_context(raw_client(server.url))
            (handler,) = server.connections
        assert handler.close_code == 1006
        await expect_close(peer, 1001)


@pytest.mark.gen_test
async def test_a_client_whose_server_does_not_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tornado_ws.testing.serving.END_TIMEOUT", 0.01)
    async with raw_server() as server:
        accepting = asyncio.ensure_future(server.accept())
        async with connected(server, close_timeout=FOREVER) as conn:
            await accepting
        assert conn.stream.closed()


@pytest.mark.gen_test
async def test_cancelling_the_end_leaves_no_connection() -> None:
    class Busy(Echo):
        async def on_message(self, message: str | bytes) -> None:
            busy.set()
            await free.wait()

    async def serve_until_busy() -> None:
        async with serve(Busy) as server:
            conn = await tornado_ws.websocket_connect(server.url)
            conns.append(conn)
            await conn.write_message("x")
            await busy.wait()
            ending.set()

    busy, free, ending = asyncio.Event(), asyncio.Event(), asyncio.Event()
    conns: list[tornado_ws.WebSocketClientConnection] = []
    serving = asyncio.ensure_future(serve_until_busy())
    await ending.wait()
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    await expect_close(conns[0], 1001)
    free.set()
    await conns[0].wait_closed()


@pytest.mark.parametrize(
    ("served", "settings", "error", "says"),
    [
        (7, {}, TypeError, "served is 7; it has to be a WebSocketHandler's class, an Application, a list of routes"),
        (str, {}, TypeError, "served is <class 'str'>; it has to be"),
        (Application(), {"debug": True}, ValueError, "debug given beside an Application; its settings are its own"),
        (
            Echo,
            {"tls": "cert.pem"},
            TypeError,
            "tls is 'cert.pem'; it has to be True, False, an ssl.SSLContext or a dict",
        ),
        (Echo, {"websocket_close_timeout": -1}, ValueError, "websocket_close_timeout"),
    ],
)
@pytest.mark.gen_test
async def test_what_cannot_be_served_is_named(served: Any, settings: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        async with serve(served, **settings):
            pass


@pytest.mark.gen_test
async def test_a_server_that_cannot_be_made_leaves_no_socket() -> None:
    with pytest.raises(TypeError):
        async with serve(Echo, http_server=int):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize(
    ("target", "path", "error", "says"),
    [
        (7, "", TypeError, "target is 7; it has to be a Server, a RawServer, a URL or an HTTPRequest"),
        ("ws://127.0.0.1:1", "path", ValueError, "path is 'path'; it has to begin with a slash"),
        (HTTPRequest("ws://127.0.0.1:1"), "/path", ValueError, "beside an HTTPRequest it has to be empty"),
        (RequestHandler, "", TypeError, "it has to be a Server"),
    ],
)
async def test_what_cannot_be_connected_to_is_named(
    ws_connect: Connector, target: Any, path: str, error: Any, says: str
) -> None:
    with pytest.raises(error, match=says):
        await ws_connect(target, path)
