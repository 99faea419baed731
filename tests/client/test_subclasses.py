"""Subclasses of ``WebSocketClientConnection``, each made as a published package makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from tornado import httpclient, httputil
from tornado.iostream import IOStream
from tornado.tcpclient import TCPClient

import tornado_ws
from tests.peer import raw_client
from tests.support import Echo, disconnect, serving, until
from tests.wire import BINARY, CLOSE, PING, PONG, Frame
from tornado_ws import WebSocketClientConnection, WebSocketHandler, WebSocketProtocol13


class PingableConnection(WebSocketClientConnection):
    """As in jupyter-server-proxy, whose own attribute is set before Tornado's constructor runs."""

    def __init__(self, **kwargs: Any) -> None:
        self._on_ping_callback = kwargs.pop("on_ping_callback")
        super().__init__(**kwargs)

    def on_ping(self, data: bytes) -> None:
        if self._on_ping_callback:
            self._on_ping_callback(data)


def pingable_connect(request: Any, **kwargs: Any) -> Awaitable[WebSocketClientConnection]:
    request.headers = httputil.HTTPHeaders(request.headers)
    request = httpclient._RequestProxy(request, httpclient.HTTPRequest._DEFAULTS)
    size = tornado_ws._default_max_message_size
    return PingableConnection(request=request, compression_options={}, max_message_size=size, **kwargs).connect_future


class Proxy(WebSocketHandler):
    """The WebSocket half of jupyter-server-proxy."""

    ws: WebSocketClientConnection

    def initialize(self, backend: str, pings: list[bytes]) -> None:
        self.backend = backend
        self.pings = pings

    async def open(self) -> None:
        self.ws = await pingable_connect(
            httpclient.HTTPRequest(url=self.backend, headers={"X-Forwarded-Context": "/proxy"}),
            on_message_callback=self.message_cb,
            on_ping_callback=self.ping_cb,
            subprotocols=["chat"],
        )

    def message_cb(self, message: str | bytes | None) -> None:
        if message is None:
            self.close()
        else:
            self.write_message(message, binary=isinstance(message, bytes))

    def ping_cb(self, data: bytes) -> None:
        self.pings.append(data)
        self.ping(data)

    def on_message(self, message: str | bytes) -> None:
        self.ws.write_message(message, binary=isinstance(message, bytes))

    def on_ping(self, data: bytes) -> None:
        assert self.ws.protocol is not None
        self.ws.protocol.write_ping(data)

    def on_close(self) -> None:
        self.ws.close()


@pytest.mark.gen_test
async def test_client_connection_subclass_with_keyword_arguments_and_connect_future() -> None:
    """jupyter-server-proxy: a subclass, made with an ``httpclient._RequestProxy``, carries all of a connection on."""
    seen: list[Any] = []
    pings: list[bytes] = []

    class Backend(Echo):
        def open(self) -> None:
            seen.append(self.request.headers["X-Forwarded-Context"])

        def select_subprotocol(self, subprotocols: list[str]) -> str:
            return subprotocols[0]

        def on_ping(self, data: bytes) -> None:
            seen.append(data)
            self.ping(b"of the backend")

        def on_close(self) -> None:
            seen.append("closed")

    async with serving(Backend) as backend:
        routes = [("/", Proxy, {"backend": backend, "pings": pings})]
        async with serving(routes) as url, raw_client(url) as browser:
            await browser.send_frame(BINARY, b"there and back")
            assert await browser.receive() == Frame(BINARY, b"there and back")
            await browser.send_frame(PING, b"of the browser")
            assert await browser.receive() == Frame(PONG, b"of the browser")
            assert await browser.receive() == Frame(PING, b"of the backend")
            await browser.send_frame(CLOSE)
            assert await browser.receive() == Frame(CLOSE, b"")
        await until(lambda: "closed" in seen)
    assert seen == ["/proxy", b"of the browser", "closed"]
    assert pings == [b"of the backend"]


@pytest.mark.gen_test
async def test_client_connection_subclass_with_its_own_protocol_and_write_message() -> None:
    """Bots override ``get_websocket_protocol`` and ``write_message`` of the client connection."""

    class Protocol(WebSocketProtocol13):
        pass

    class Connection(WebSocketClientConnection):
        def get_websocket_protocol(self) -> Protocol:
            return Protocol(self, mask_outgoing=True, params=self.params)

        def write_message(self, message: Any, binary: bool = False) -> Any:  # type: ignore[override]
            return super().write_message({"wrapped": message}, binary)

    async with serving(Echo) as url:
        request: Any = httpclient._RequestProxy(httpclient.HTTPRequest(url), httpclient.HTTPRequest._DEFAULTS)
        conn = await Connection(request).connect_future
        assert isinstance(conn.protocol, Protocol)
        await conn.write_message("x")
        assert await conn.read_message() == '{"wrapped": "x"}'
        await disconnect(conn)


@pytest.mark.gen_test
async def test_client_connection_over_a_stream_that_is_connected_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """turbo-tunnel replaces ``TCPClient.connect``, overrides ``headers_received`` and passes its own ``on_message``."""

    class Connection(WebSocketClientConnection):
        def __init__(self, url: str) -> None:
            self._connected: bool | None = None
            self._closed = False
            self._buffer = b""
            self._read_event = asyncio.Event()
            request: Any = httpclient._RequestProxy(httpclient.HTTPRequest(url), httpclient.HTTPRequest._DEFAULTS)
            super().__init__(request, on_message_callback=self.on_message, compression_options=None)

        async def headers_received(self, first_line: Any, headers: httputil.HTTPHeaders) -> None:
            await super().headers_received(first_line, headers)
            self._connected = first_line.code == 101

        def on_message(self, message: Any) -> None:
            if not message:
                self._closed = True
            else:
                self._buffer += message
            self._read_event.set()

    async with serving(Echo) as url:
        port = int(url.rpartition(":")[2])
        stream = await TCPClient().connect("127.0.0.1", port)

        async def connect(tcp_client: TCPClient, host: str, port: int, **kwargs: Any) -> IOStream:
            return stream

        monkeypatch.setattr(TCPClient, "connect", connect)
        conn = Connection("ws://nowhere.invalid/")
        await until(lambda: conn._connected)
        await conn.write_message(b"a tunnel", True)
        await conn._read_event.wait()
        assert conn._buffer == b"a tunnel"
        await disconnect(conn)
        await until(lambda: conn._closed)
