"""The private things of ``tornado.websocket`` that published packages touch, each touched as the package does it.

What they override is in `tests.server.test_overrides` and `tests.client.test_subclasses`, and the names that they have
for themselves in `tests.test_names`.
"""

from __future__ import annotations

import socket
import types
from typing import Any
from unittest.mock import MagicMock

import pytest
from tornado import httputil, web
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import PeriodicCallback
from tornado.iostream import IOStream

from tests.peer import raw_client
from tests.support import Echo, connected, disconnect, serving, until
from tests.wire import BINARY, CLOSE, PING, TEXT, Frame
from tornado_ws import WebSocketClosedError, WebSocketHandler, WebSocketProtocol13

# `ws_connection is None` after close, and its truth value


@pytest.mark.gen_test
async def test_ws_connection_is_true_while_open_and_none_afterwards() -> None:
    """jupyter_server stops its pinging when it is None, distributed and PyWebIO take its truth for "open"."""
    seen: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            seen.append(bool(self.ws_connection))
            self.ping_callback = PeriodicCallback(self.send_ping, 5)
            self.ping_callback.start()

        def send_ping(self) -> None:
            if self.ws_connection is None:
                self.ping_callback.stop()
                seen.append("stopped")
                return
            self.ping(b"")

        def on_close(self) -> None:
            seen.append(self.ws_connection)

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("x")
        assert await conn.read_message() == "x"
        await disconnect(conn)
        await until(lambda: "stopped" in seen)
    assert seen == [True, None, "stopped"]


@pytest.mark.gen_test
async def test_ws_connection_is_none_as_soon_as_the_handler_has_closed() -> None:
    """distributed: ``not handler.ws_connection`` is asked right after ``handler.close()``."""
    seen: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            self.close()
            seen.append(self.ws_connection)
            with pytest.raises(WebSocketClosedError):
                self.write_message("too late")

    async with serving(Handler) as url, connected(url) as conn:
        assert await conn.read_message() is None
    assert seen == [None]


# `ws_connection.client_terminated`, `server_terminated`: read, and set


@pytest.mark.gen_test
async def test_client_terminated_and_server_terminated_tell_the_state() -> None:
    """jupyter_server and webtiles ask ``ws_connection.client_terminated`` before they write."""
    states: list[tuple[bool, bool]] = []
    protocols: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            protocols.append(self.ws_connection)
            self.look()

        def look(self) -> None:
            states.append((protocols[0].client_terminated, protocols[0].server_terminated))

        def on_message(self, message: str | bytes) -> None:
            self.close()
            self.look()

        def on_close(self) -> None:
            self.look()

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("close")
        assert await conn.read_message() is None
    assert states == [(False, False), (False, True), (True, True)]


@pytest.mark.gen_test
async def test_client_terminated_can_be_set() -> None:
    """jupyter_server's tests, and old forks of Tornado's module, set it; what follows is a close without a wait."""
    closed: list[bool] = []

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            assert self.ws_connection is not None
            self.ws_connection.client_terminated = True
            assert self.ws_connection.is_closing()
            with pytest.raises(WebSocketClosedError):
                self.write_message("x")
            self.close()

        def on_close(self) -> None:
            closed.append(True)

    async with serving(Handler) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"now")
        assert await client.receive() == Frame(CLOSE, b"")
        # This client never answers the close frame.
        assert await client.receive() is None
        await until(lambda: closed)


@pytest.mark.gen_test
async def test_server_terminated_can_be_set() -> None:
    """Setting it means that a close frame is out: nothing more may be written."""

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            assert self.ws_connection is not None
            self.ws_connection.server_terminated = True
            with pytest.raises(WebSocketClosedError):
                self.write_message("x")
            self.ws_connection._abort()

    async with serving(Handler) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"now")
        assert await client.receive() is None


@pytest.mark.gen_test
async def test_ws_connection_can_be_a_mock() -> None:
    """jupyter_server's tests put a MagicMock in its place and call the handler's methods."""
    start_line = httputil.RequestStartLine("GET", "/", "HTTP/1.1")
    headers = httputil.HTTPHeaders({"Host": "foo"})
    request = HTTPServerRequest(headers=headers, connection=MagicMock(), start_line=start_line)
    handler = WebSocketHandler(web.Application(), request)
    mock: Any = MagicMock()
    handler.ws_connection = mock
    mock.is_closing = lambda: False
    handler.write_message({"a": 1})
    mock.write_message.assert_called_once_with('{"a": 1}', binary=False)
    handler.ping(b"")
    mock.write_ping.assert_called_once_with(b"")
    mock.client_terminated = True
    handler.close()
    mock.close.assert_called_once_with(None, None)
    assert handler.ws_connection is None
    with pytest.raises(WebSocketClosedError):
        handler.write_message("hello")


# `ws_connection.is_closing()`; replaced on the instance by tests


@pytest.mark.gen_test
async def test_is_closing_is_asked_and_can_be_replaced_on_the_instance() -> None:
    """panel asks it before a dispatch; rosboard puts a method of its own there; jupyter_server's tests a lambda."""
    answers: list[bool] = []

    def polyfill(self: Any) -> bool:
        return bool(self.stream.closed() or self.client_terminated or self.server_terminated)

    class Handler(Echo):
        def open(self) -> None:
            connection: Any = self.ws_connection
            answers.append(connection.is_closing())
            connection.is_closing = types.MethodType(polyfill, connection)
            answers.append(connection.is_closing())
            connection.is_closing = lambda: True
            for write in (self.write_message, self.ping):
                with pytest.raises(WebSocketClosedError):
                    write("x")
            del connection.is_closing
            connection.close()
            answers.append(connection.is_closing())

    async with serving(Handler) as url, connected(url) as conn:
        assert await conn.read_message() is None
    assert answers == [False, False, True]


# `ws_connection.stream`


@pytest.mark.gen_test
async def test_stream_answers_and_closes() -> None:
    """Tutorials broadcast to those with ``ws_connection.stream.socket``; sockjs-tornado sets no-delay on the stream."""
    handlers: list[Handler] = []
    closed: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            handlers.append(self)

        def on_close(self) -> None:
            closed.append((self.close_code, self.close_reason))

    def live() -> list[Handler]:
        return [handler for handler in handlers if handler.ws_connection and handler.ws_connection.stream.socket]  # type: ignore[union-attr]

    async with serving(Handler) as url, connected(url) as conn:
        await until(lambda: handlers)
        connection = handlers[0].ws_connection
        assert connection is not None
        assert isinstance(connection.stream, IOStream)
        stream: Any = connection.stream
        assert live() == handlers
        stream.set_nodelay(True)
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not stream.closed()
        stream.close()
        assert stream.closed()
        assert stream.socket is None
        assert stream.error is None
        assert live() == []
        assert connection.is_closing()
        assert await conn.read_message() is None
        await until(lambda: closed)
    assert closed == [(None, None)]


@pytest.mark.gen_test
async def test_stream_error_says_why_the_connection_was_lost() -> None:
    """Terminals and distributed look at ``stream.error`` to tell a reset from an orderly end."""
    streams: list[IOStream] = []
    closed: list[bool] = []

    class Handler(Echo):
        def open(self) -> None:
            assert self.ws_connection is not None
            assert self.ws_connection.stream is not None
            streams.append(self.ws_connection.stream)

        def on_close(self) -> None:
            closed.append(True)

    async with serving(Handler) as url, raw_client(url) as client:
        await until(lambda: streams)
        client.reset()
        await until(lambda: closed)
    assert streams[0].closed()
    assert isinstance(streams[0].error, ConnectionResetError)


# `ws_connection._abort()`, `.write_message`, `.write_ping`, `.close`, `._compressor is not None`


@pytest.mark.gen_test
async def test_abort_closes_the_socket_without_a_close_frame() -> None:
    """sockjs-tornado: ``abort_connection`` calls ``ws_connection._abort()``."""
    closed: list[Any] = []

    class Handler(Echo):
        def abort_connection(self) -> None:
            if self.ws_connection:
                self.ws_connection._abort()

        def on_message(self, message: str | bytes) -> None:
            self.abort_connection()
            closed.append("aborted")

        def on_close(self) -> None:
            closed.append((self.close_code, self.close_reason))

    async with serving(Handler) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"go")
        assert await client.receive() is None
        await until(lambda: len(closed) > 1)
    assert closed == ["aborted", (None, None)]


@pytest.mark.gen_test
async def test_the_protocol_writes_pings_and_closes_by_itself() -> None:
    """Packages go past the handler: ``ws_connection.write_message``, ``.write_ping`` and ``.close(code, reason)``."""

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            assert self.ws_connection is not None
            self.ws_connection.write_message("text")
            self.ws_connection.write_message(b"\xff", binary=True)
            self.ws_connection.write_ping(b"payload")
            self.ws_connection.close(4001, "enough")

    async with serving(Handler) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"go")
        assert [await client.receive() for _ in range(4)] == [
            Frame(TEXT, b"text"),
            Frame(BINARY, b"\xff"),
            Frame(PING, b"payload"),
            Frame(CLOSE, b"\x0f\xa1enough"),
        ]


@pytest.mark.gen_test
@pytest.mark.parametrize("compression_options", [None, {}])
async def test_compressor_tells_whether_compression_was_negotiated(compression_options: Any) -> None:
    """A research tool logs ``ws_connection._compressor is not None`` in ``open``."""
    compressed: list[bool] = []

    class Handler(Echo):
        def get_compression_options(self) -> dict[str, Any]:
            return {}

        def open(self) -> None:
            connection: Any = self.ws_connection
            compressed.append(connection._compressor is not None)

    async with serving(Handler) as url, connected(url, compression_options=compression_options) as conn:
        await conn.write_message("x" * 1000)
        assert await conn.read_message() == "x" * 1000
    assert compressed == [compression_options is not None]


# `WebSocketProtocol13.compute_accept_value`


@pytest.mark.parametrize("key", ["dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ=="])
def test_compute_accept_value_is_a_static_method(key: str | bytes) -> None:
    """Vendored forks call it on the class; the value is the example of RFC 6455 section 1.3."""
    assert WebSocketProtocol13.compute_accept_value(key) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# what distributed reads of a client connection


@pytest.mark.gen_test
async def test_client_connection_answers_for_its_stream_url_code_protocol_and_headers() -> None:
    """distributed, and others: ``stream.closed()``, ``parsed.netloc``, ``close_code``, ``protocol``, ``headers``."""

    class Handler(Echo):
        def set_default_headers(self) -> None:
            self.set_header("X-Server", "mine")

        def on_message(self, message: str | bytes) -> None:
            self.close(4002)

    async with serving(Handler) as url, connected(url) as conn:
        assert not (conn.stream.closed() and conn.stream.error)
        assert conn.parsed.netloc == url.removeprefix("ws://")
        assert conn.protocol is not None
        assert conn.headers is not None
        assert conn.headers["X-Server"] == "mine"
        conn.stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        codes = [conn.close_code]
        await conn.write_message("close")
        assert await conn.read_message() is None
        assert [*codes, conn.close_code] == [None, 4002]
        assert conn.stream.closed()


# `handler.request.connection.stream` after the upgrade


@pytest.mark.gen_test
async def test_the_requests_http_connection_has_no_stream_after_the_upgrade() -> None:
    """distributed takes a stream there for a closed connection (it asks the truth of the method ``closed``)."""
    closed: list[Any] = []

    class Handler(Echo):
        def comm_closed(self) -> Any:
            stream = self.request.connection.stream  # type: ignore[union-attr]
            return not self.ws_connection or (stream and stream.closed)

        def open(self) -> None:
            closed.append(self.comm_closed())

        def on_message(self, message: str | bytes) -> None:
            closed.append(self.comm_closed())
            self.write_message("answer")

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("x")
        assert await conn.read_message() == "answer"
    assert closed == [None, None]


# `set_status` raising RuntimeError after the 101


@pytest.mark.gen_test
async def test_set_status_raises_runtime_error_after_the_upgrade() -> None:
    """python-engineio tells a WebSocket from a polling request by that, in ``open`` and later."""
    raised: list[str] = []

    class Handler(Echo):
        def open(self) -> None:
            self.try_to("open")

        def on_message(self, message: str | bytes) -> Any:
            self.try_to("on_message")
            return super().on_message(message)

        def try_to(self, where: str) -> None:
            with pytest.raises(RuntimeError):
                self.set_status(200)
            assert self.get_status() == 101
            raised.append(where)

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("x")
        assert await conn.read_message() == "x"
    assert raised == ["open", "on_message"]
