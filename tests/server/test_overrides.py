"""What published packages override in ``WebSocketHandler``, each overridden as the package does it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest
from tornado import httpclient, locks, web
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop

import tornado_ws
from tests.peer import RawPeer, raw_client
from tests.support import Echo, connected, serving, until
from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, Frame
from tornado_ws import WebSocketHandler, WebSocketProtocol13

HTTP_METHODS = ("write", "redirect", "set_header", "set_cookie", "set_status", "flush", "finish")


# overriding `get_websocket_protocol` and `accept_connection`


@pytest.mark.gen_test
@pytest.mark.parametrize("allowed", [True, False])
async def test_get_websocket_protocol_may_return_a_subclass_with_its_own_accept_connection(allowed: bool) -> None:
    """turbo-tunnel and relay-tunnel: the protocol asks the handler first, and masks what the server sends."""

    class Protocol(WebSocketProtocol13):
        async def accept_connection(self, handler: WebSocketHandler) -> None:
            if await self.handler.may_connect():  # type: ignore[attr-defined]
                await super().accept_connection(handler)

    class Handler(Echo):
        async def may_connect(self) -> bool:
            await asyncio.sleep(0)
            if not allowed:
                self.set_status(403, "Forbidden")
            return allowed

        def get_websocket_protocol(self) -> WebSocketProtocol13 | None:
            if self.request.headers.get("Sec-WebSocket-Version") not in ("7", "8", "13"):
                return None
            params = tornado_ws._WebSocketParams(
                ping_interval=self.ping_interval,
                ping_timeout=self.ping_timeout,
                max_message_size=self.max_message_size,
                compression_options=self.get_compression_options(),
            )
            return Protocol(self, mask_outgoing=True, params=params)

    async with serving(Handler) as url, raw_client(url) as client:
        assert client.status == (101 if allowed else 403)
        if allowed:
            await client.send_frame(BINARY, b"through the tunnel")
            assert await client.receive(masked=True) == Frame(BINARY, b"through the tunnel")
            await client.send_frame(CLOSE)
            assert await client.receive(masked=True) == Frame(CLOSE)


@pytest.mark.gen_test
async def test_accept_connection_may_refuse_with_an_answer_of_its_own() -> None:
    """A web terminal: ``handler.set_status(403)`` and ``handler.finish(message)`` instead of the upgrade."""

    class Protocol(WebSocketProtocol13):
        async def accept_connection(self, handler: WebSocketHandler) -> None:
            handler.set_status(403)
            handler.finish("Authorization Failed")

    class Handler(Echo):
        def get_websocket_protocol(self) -> WebSocketProtocol13:
            return Protocol(self, False, tornado_ws._WebSocketParams())

    async with serving(Handler) as url:
        with pytest.raises(httpclient.HTTPError) as refused:
            await tornado_ws.websocket_connect(url)
    assert refused.value.code == 403


# overriding the properties `max_message_size`, `ping_interval`, `ping_timeout`


@pytest.mark.gen_test
async def test_max_message_size_may_be_overridden_as_a_property() -> None:
    """distributed and jupyter-collaboration raise it to gigabytes; it is the property that counts, not the setting."""

    class Handler(Echo):
        @property
        def max_message_size(self) -> int:
            return 100

    async with serving(Handler, websocket_max_message_size=10) as url, connected(url) as conn:
        await conn.write_message("x" * 100)
        assert await conn.read_message() == "x" * 100
        await conn.write_message("x" * 101)
        assert await conn.read_message() is None
        assert conn.close_code == 1009


@pytest.mark.gen_test
async def test_ping_interval_and_ping_timeout_may_be_overridden_as_properties() -> None:
    """jupyter_server gives them in milliseconds, of a setting of its own; a peer that is silent is given up."""
    closed: list[Any] = []

    class Handler(Echo):
        @property
        def ping_interval(self) -> float:
            return float(self.settings.get("ws_ping_interval", 30000))

        @property
        def ping_timeout(self) -> float:
            return float(self.settings.get("ws_ping_timeout", 2 * self.ping_interval))

        def on_close(self) -> None:
            closed.append(True)

    async with serving(Handler, ws_ping_interval=0.5, ws_ping_timeout=0.4) as url, raw_client(url) as client:
        assert await client.receive() == Frame(PING, b"")
        await client.send_frame(PONG)
        assert await client.receive() == Frame(PING, b"")
        last = await client.receive()
        assert last is not None
        assert last.opcode == CLOSE
        # Tornado waits five seconds more for the answer to that.
        await client.send_frame(CLOSE)
        await until(lambda: closed)


# overriding `get`, `_execute`, `close`, `write_message`, `on_connection_close`


class PollingAndWebSocket(WebSocketHandler):
    """The handler of python-engineio: one URL for long polling and for the WebSocket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.receive_queue: asyncio.Queue[str | bytes | None] = asyncio.Queue()

    async def get(self, *args: Any, **kwargs: Any) -> None:
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            answer = super().get(*args, **kwargs)
            assert asyncio.iscoroutine(answer)
            await answer
        else:
            await self.handle_request()

    async def post(self, *args: Any, **kwargs: Any) -> None:
        await self.handle_request()

    async def open(self, *args: Any, **kwargs: Any) -> None:
        # What is awaited here would keep on_message from being called.
        self.serving = asyncio.ensure_future(self.handle_request())

    async def on_message(self, message: str | bytes) -> None:
        await self.receive_queue.put(message)

    def on_close(self) -> None:
        self.receive_queue.put_nowait(None)

    async def handle_request(self) -> None:
        try:
            self.set_status(200)
        except RuntimeError:
            while (message := await self.receive_queue.get()) is not None:
                self.write_message(message, binary=isinstance(message, bytes))
        else:
            self.set_header("Content-Type", "text/plain")
            self.write(f"{self.request.method} polled")
            self.finish()


@pytest.mark.gen_test
async def test_get_may_serve_http_and_websocket_on_one_url() -> None:
    """python-engineio: ``set_status`` works for a polling request and raises RuntimeError after the 101."""
    async with serving(PollingAndWebSocket) as url:
        client = AsyncHTTPClient(force_instance=True)
        polled = url.replace("ws", "http", 1)
        for method, body in (("GET", None), ("POST", "x")):
            response = await client.fetch(polled, method=method, body=body)
            assert response.body.decode() == f"{method} polled"
        client.close()
        async with connected(url) as conn:
            for message in ("one", b"two"):
                await conn.write_message(message, binary=isinstance(message, bytes))
                assert await conn.read_message() == message


class ReenablingMixin(WebSocketHandler):
    """As in jupyter-server-proxy: HTTP methods put back on the instance, and the constructor run twice."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mro = type(self).__mro__
        parent: Any = mro[mro.index(ReenablingMixin) + 1]
        for name in HTTP_METHODS:
            setattr(self, name, functools.partial(getattr(parent, name), self))
        parent.__init__(self, *args, **kwargs)

    async def get(self, *args: Any, **kwargs: Any) -> None:
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            self.set_header("X-Http", "yes")
            self.finish("over HTTP")
            return
        await super().get(*args, **kwargs)


@pytest.mark.gen_test
async def test_http_methods_may_be_put_on_the_instance_before_the_upgrade() -> None:
    """jupyter-server-proxy: they work for HTTP, and are taken away by the upgrade all the same."""
    raised: list[type[BaseException] | None] = []

    class Handler(ReenablingMixin, Echo):
        def on_message(self, message: str | bytes) -> Any:
            for name in HTTP_METHODS:
                try:
                    getattr(self, name)()
                except Exception as error:
                    raised.append(type(error))
                else:
                    raised.append(None)
            return super().on_message(message)

    async with serving(Handler) as url:
        client = AsyncHTTPClient(force_instance=True)
        response = await client.fetch(url.replace("ws", "http", 1))
        client.close()
        assert (response.body, response.headers["X-Http"]) == (b"over HTTP", "yes")
        async with connected(url) as conn:
            await conn.write_message("x")
            assert await conn.read_message() == "x"
    assert raised == [RuntimeError] * len(HTTP_METHODS)


@pytest.mark.gen_test
async def test_execute_may_be_overridden() -> None:
    """sockjs-tornado checks the request in ``_execute`` and hands on what the original returns."""
    executed: list[str | None] = []

    class Handler(Echo):
        def _execute(self, transforms: Any, *args: bytes, **kwargs: bytes) -> Any:
            executed.append(self.request.method)
            return super()._execute(transforms, *args, **kwargs)

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("x")
        assert await conn.read_message() == "x"
    assert executed == ["GET"]


Ending = Callable[[RawPeer], Any]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda client: client.send_frame(CLOSE, b"\x03\xe8"), id="close frame"),
        pytest.param(lambda client: client.send_frame(TEXT, b"close"), id="handler closes"),
        pytest.param(lambda client: client.send_frame(TEXT, b"abort"), id="handler aborts"),
        pytest.param(lambda client: client.send_frame(TEXT, b"raise"), id="on_message raises"),
        pytest.param(lambda client: client.send_frame(TEXT, b"x", masked=False), id="violation"),
        pytest.param(lambda client: client.send_frame(TEXT, b"x" * 100), id="too big"),
        pytest.param(lambda client: client.reset(), id="reset"),
    ],
)
async def test_close_without_arguments_and_on_connection_close_may_be_overridden(
    end: Ending, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """distributed's ``close`` takes no arguments; turbo-tunnel's ``on_connection_close`` may run once only.

    Neither Tornado's calls of them nor ours may ask for more, whichever way the connection ends.
    """
    calls: list[str] = []

    class Handler(Echo):
        def close(self) -> None:  # type: ignore[override]
            super().close()
            calls.append("close")

        def on_message(self, message: str | bytes) -> Any:
            if message == "close":
                return self.close()
            if message == "abort":
                assert self.ws_connection is not None
                return self.ws_connection._abort()
            if message == "raise":
                raise ZeroDivisionError
            return super().on_message(message)

        def on_connection_close(self) -> None:
            super().on_connection_close()
            calls.append("on_connection_close")

        def on_close(self) -> None:
            calls.append("on_close")

    async with serving(Handler, websocket_max_message_size=50) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"hello")
        assert await client.receive() == Frame(TEXT, b"hello")
        if (ending := end(client)) is not None:
            await ending
        if client.sock.fileno() >= 0 and (frame := await client.receive()) is not None and frame.opcode == CLOSE:
            await client.send_frame(CLOSE)
        await until(lambda: "on_connection_close" in calls)
        await asyncio.sleep(0.01)
    closed_by_handler = request.node.callspec.id == "handler closes"
    assert calls == ["close"] * closed_by_handler + ["on_close", "on_connection_close"]
    assert ("ZeroDivisionError" in caplog.text) == (request.node.callspec.id == "on_message raises")


class Locked(Echo):
    """The handler of bokeh: ``write_message`` is a coroutine that takes a lock first."""

    def initialize(self, opened: list[Locked]) -> None:
        self.opened = opened
        self.write_lock = locks.Lock()

    def open(self) -> None:
        self.opened.append(self)

    async def write_message(self, message: Any, binary: bool = False, locked: bool = True) -> None:  # type: ignore[override]
        if locked:
            with await self.write_lock.acquire():
                await super().write_message(message, binary)
        else:
            await super().write_message(message, binary)


@pytest.mark.gen_test
async def test_write_message_may_be_overridden_by_a_coroutine() -> None:
    """bokeh: several messages go out under one lock, each awaited."""
    opened: list[Locked] = []
    async with serving([("/", Locked, {"opened": opened})]) as url, connected(url) as conn:
        await conn.write_message("echoed")
        assert await conn.read_message() == "echoed"
        with await opened[0].write_lock.acquire():
            late = asyncio.ensure_future(opened[0].write_message("late"))
            await opened[0].write_message("header", locked=False)
            await opened[0].write_message(b"payload", True, locked=False)
        await late
        assert [await conn.read_message() for _ in range(3)] == ["header", b"payload", "late"]


# `WebSocketHandler.write_message(socket, ...)` called unbound


@pytest.mark.gen_test
async def test_write_message_may_be_called_unbound() -> None:
    """panel dispatches past bokeh's coroutine, several messages at a time, and gathers the Futures."""
    opened: list[Locked] = []
    async with serving([("/", Locked, {"opened": opened})]) as url, connected(url) as conn:
        await until(lambda: opened)
        with await opened[0].write_lock.acquire():
            futures = [
                WebSocketHandler.write_message(opened[0], "header"),
                WebSocketHandler.write_message(opened[0], {"meta": 1}),
                WebSocketHandler.write_message(opened[0], b"payload", binary=True),
            ]
            await asyncio.gather(*futures)
        assert [await conn.read_message() for _ in range(3)] == ["header", '{"meta": 1}', b"payload"]


# a second subprotocol that carries a token


@pytest.mark.gen_test
async def test_a_second_subprotocol_may_carry_a_token() -> None:
    """bokeh: the first of two is selected, the second kept, ``selected_subprotocol`` read in ``open``.

    streamlit reads the header itself, where a third one is the session to take up.
    """
    seen: list[Any] = []

    class Handler(Echo):
        _token: str | None = None

        @web.authenticated
        def open(self) -> None:
            header = self.request.headers["Sec-Websocket-Protocol"]
            seen.append((self.selected_subprotocol, self._token, [part.strip() for part in header.split(",")][2]))

        def get_current_user(self) -> str:
            return "default_user"

        def select_subprotocol(self, subprotocols: list[str]) -> str:
            self._token = subprotocols[1]
            return subprotocols[0]

    # A token is base64 with its padding cut off, so that it is a token of RFC 9110 too.
    offered = ["bokeh", "eyJzZXNzaW9uX2lkIjogIngifQ.c2ln_-", "session-1"]
    async with serving(Handler) as url, connected(url, subprotocols=offered) as conn:
        assert conn.selected_subprotocol == "bokeh"
        await until(lambda: seen)
    assert seen == [tuple(offered)]


@pytest.mark.gen_test
async def test_open_may_close_and_raise() -> None:
    """bokeh: no token is a ``self.close()`` followed by an exception out of ``open``."""
    closed: list[bool] = []

    class Handler(Echo):
        def open(self) -> None:
            self.close()
            raise LookupError("No token received in subprotocol header")

        def on_close(self) -> None:
            closed.append(True)

        def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
            assert typ is LookupError

    async with serving(Handler) as url, connected(url) as conn:
        assert await conn.read_message() is None
        await until(lambda: closed)
    assert closed == [True]


@pytest.mark.gen_test
async def test_an_own_ioloop_callback_may_open_later() -> None:
    """bokeh: ``open`` only schedules ``_async_open``, which sends the first message."""

    class Handler(Echo):
        def open(self) -> None:
            IOLoop.current().add_callback(self._async_open, "token")

        async def _async_open(self, token: str) -> None:
            await self.write_message(f"ACK {token}")

    async with serving(Handler) as url, connected(url) as conn:
        assert await conn.read_message() == "ACK token"
