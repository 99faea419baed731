"""The client's end of a connection."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import os
import warnings
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from tornado import httpclient, httputil, simple_httpclient
from tornado.concurrent import Future
from tornado.escape import utf8
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.log import app_log
from tornado.netutil import Resolver

from tornado_ws import handshake
from tornado_ws.client.answers import AnsweredConnection
from tornado_ws.client.arguments import check_names
from tornado_ws.client.futures import ConnectFuture
from tornado_ws.client.reach import DIRECT, Reach
from tornado_ws.client.read_queue import MessageQueue
from tornado_ws.client.request import add_handshake, forget_proxy, websocket_request
from tornado_ws.client.tcp import AbortableTCPClient
from tornado_ws.close_codes import ABNORMAL_CLOSURE, GOING_AWAY, NORMAL_CLOSURE
from tornado_ws.compat.versions import accepts_io_loop
from tornado_ws.connection import interfaces
from tornado_ws.connection.interfaces import (
    DEFAULT_MAX_MESSAGE_SIZE,
    Observation,
    WebSocketParams,
    WebSocketProtocol,
)
from tornado_ws.connection.protocol13 import WebSocketProtocol13
from tornado_ws.connection.threads import write_message_threadsafe
from tornado_ws.coroutines import value_of
from tornado_ws.errors import InvalidHandshakeError, WebSocketClosedError
from tornado_ws.escaping import plain, shown
from tornado_ws.observing.latency import UNKNOWN, Latency
from tornado_ws.options import OptionArguments, client_options, whole_only
from tornado_ws.transport.stream import stop_watching

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tornado_ws.client.read_stream import StreamQueue, StreamReading
    from tornado_ws.connection.message_stream import MessageStream
    from tornado_ws.connection.write_stream import WriteStream

#: The close codes (RFC 6455 section 7.4.1) of a connection that has served its purpose; None is a close frame without.
_GOOD_ENDS = (None, NORMAL_CLOSURE, GOING_AWAY)


class WebSocketClientConnection(AnsweredConnection):
    """WebSocket client connection.

    Made by `websocket_connect`, or by subclasses that override ``on_ping``, ``on_message`` and the like and await
    ``connect_future``.

    ``async with conn`` closes it at the end, with 1000, or with 1001 when the block is left by an exception, and waits
    until it is closed. ``async for message in conn`` reads messages up to the end; see `__anext__`.
    """

    protocol: WebSocketProtocol | None = None
    """The connection, from the opening handshake to its end; None before, and once `close` was called."""
    #: The same one, kept.
    _ws_protocol: WebSocketProtocol13 | None = None
    tcp_client: AbortableTCPClient
    #: As in `.WebSocketHandler`.
    _ws_observation: Observation | None = None

    @accepts_io_loop
    # Long by Tornado's arguments and ours.
    def __init__(
        self,
        request: httpclient.HTTPRequest,
        on_message_callback: Callable[[str | bytes | None], Any] | None = None,
        compression_options: dict[str, Any] | None = None,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
        max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE,
        subprotocols: list[str] | None = None,
        resolver: Resolver | None = None,
        *,
        reach: Reach = DIRECT,
        message_streams: bool = False,
        **options: Unpack[OptionArguments],
    ) -> None:
        check_names("WebSocketClientConnection", options)
        self.connect_future: ConnectFuture[WebSocketClientConnection] = ConnectFuture()
        self.read_queue = MessageQueue()
        self.key = base64.b64encode(os.urandom(16))
        self._on_message_callback = on_message_callback
        self._ended = False
        self.close_code: int | None = None
        """Why it ended (RFC 6455 section 7.4): as `.WebSocketHandler.on_close` has it, of the server. None before."""
        self.close_reason: str | None = None
        """The text beside `close_code`; None where there is none."""
        self.params = WebSocketParams(
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_message_size=max_message_size,
            compression_options=compression_options,
            options=client_options(options),
        )

        #: What reads messages in parts, None where they are read as a whole.
        self._streams: StreamQueue | None = None
        if message_streams:
            for name, value in (("codec", self.params.options.codec), ("on_message_callback", on_message_callback)):
                if value is not None:
                    raise ValueError(whole_only(name, value))
            # What few clients need is imported for those.
            from tornado_ws.client.read_stream import StreamQueue

            self._streams = StreamQueue(self.read_queue.get, self.read_queue.put_back)

        request = websocket_request(request)
        add_handshake(request, self.key, subprotocols, compression_options)

        self.tcp_client = AbortableTCPClient(
            resolver, reach.connector(request), reach.source_address, reach.server_hostname
        )
        forget_proxy(request)
        # Tornado's limit covers the steps up to TLS only (all of them since 6.6).
        limits = [limit for limit in (request.connect_timeout, request.request_timeout) if limit]
        io_loop = IOLoop.current()
        self._connect_timer = io_loop.call_later(min(limits), self._on_connect_timeout) if limits else None
        if interfaces.observer is not None:
            self._ws_observation = interfaces.observer.connecting(request)
        self.connect_future.add_done_callback(self._on_connect_done)
        super().__init__(
            None,
            request,
            lambda: None,
            self._on_http_response,
            104857600,
            self.tcp_client,
            65536,
            104857600,
        )

    def __del__(self) -> None:
        if self.protocol is not None and not self._ended:
            warnings.warn("Unclosed WebSocketClientConnection", ResourceWarning, stacklevel=2)

    # Connecting

    def _on_connect_timeout(self) -> None:
        if self._answered:
            self._fail_with_answer()
        elif not self.connect_future.done():
            self.connect_future.set_exception(
                simple_httpclient.HTTPTimeoutError(f"Timeout while {self.tcp_client.phase}")
            )

    def _on_connect_done(self, future: asyncio.Future[Any]) -> None:
        if self._connect_timer is not None:
            self.io_loop.remove_timeout(self._connect_timer)
            self._connect_timer = None
        if future.cancelled() or future.exception() is not None:
            if self._ws_observation is not None:
                error = asyncio.CancelledError() if future.cancelled() else future.exception()
                assert error is not None
                self._ws_observation.failed(error)
                self._ws_observation.answered(getattr(error, "status", None))
            # Nobody has this connection, so nobody else can close it.
            self._stop_http()
            self.tcp_client.abort()
            self.tcp_client.close()

    def _get_ssl_options(self, scheme: str) -> Any:
        try:
            return super()._get_ssl_options(scheme)
        except OSError as error:
            # The ssl module does not say which file is missing or wrong.
            names = ("ca_certs", "client_cert", "client_key")
            files = [f"{name} is {shown(value)}" for name in names if (value := getattr(self.request, name))]
            text = f"{', '.join(files)}; that cannot be used: {error.strerror or error}"
            raise type(error)(error.errno, text) from error

    def _stop_http(self) -> None:
        """Keep the HTTP client's own error handling from what is no longer its business."""
        self.final_callback = None  # type: ignore[assignment]
        if self._timeout is not None:
            self.io_loop.remove_timeout(self._timeout)
            self._timeout = None

    async def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> None:
        assert isinstance(start_line, httputil.ResponseStartLine)
        if start_line.code != 101:
            await super().headers_received(start_line, headers)
            return
        self._stop_http()
        self.headers = headers
        stream = self.connection.detach()
        if self.connect_future.done():
            stream.close()
            return
        try:
            protocol = value_of(self, "get_websocket_protocol", self.get_websocket_protocol())
        except TypeError as error:
            stream.close()
            self.connect_future.set_exception(error)
            return
        offered = handshake.list_tokens(self.request.headers.get("Sec-WebSocket-Protocol", ""))
        try:
            protocol._process_server_headers(self.key, headers)
            handshake.check_selected_subprotocol(headers, offered)
        except ValueError as error:
            self.connect_future.set_exception(InvalidHandshakeError(start_line.code, headers, str(error)))
            return
        # Receiving begins in the next turn of the loop, and the server may have sent its last message by then.
        stop_watching(stream)
        self.protocol = protocol
        protocol.stream = stream
        self._ws_protocol = cast(WebSocketProtocol13, protocol)
        if self._ws_observation is not None:
            protocol._observation = self._ws_observation
            self._ws_observation.answered(start_line.code)
        self.io_loop.add_callback(protocol._receive_frame_loop)
        protocol.start_pinging()
        self.connect_future.set_result(self)

    def get_websocket_protocol(self) -> WebSocketProtocol:
        return WebSocketProtocol13(self, mask_outgoing=True, params=self.params)

    # Messages

    def write_message(self, message: Any, binary: bool = False, *, compress: bool = True) -> Future[None]:
        """Send a message to the server; all is as in `.WebSocketHandler.write_message`."""
        if self.protocol is None:
            raise WebSocketClosedError("Client connection has been closed")
        if not compress:
            return self.protocol.write_message(message, binary=binary, compress=False)
        return self.protocol.write_message(message, binary=binary)

    def write_stream(self, binary: bool = False, *, compress: bool = True) -> WriteStream:
        """Send one message in parts; all is as in `.WebSocketHandler.write_stream`."""
        if self.protocol is None:
            raise WebSocketClosedError("Client connection has been closed")
        protocol: Any = self.protocol
        stream: WriteStream = protocol.write_stream(binary, compress=compress)
        return stream

    def write_message_threadsafe(self, message: Any, binary: bool = False) -> concurrent.futures.Future[None]:
        """Send a message from any thread; all is as in `.WebSocketHandler.write_message_threadsafe`."""
        has_codec = self.params.options.codec is not None
        return write_message_threadsafe(self.protocol, self.write_message, message, binary, has_codec)

    @property
    def buffered_amount(self) -> int:
        """This is how many bytes of frames wait for the kernel to take them; 0 on a closed connection."""
        return self.protocol.buffered_amount if self.protocol is not None else 0

    def read_message(
        self, callback: Callable[[Future[str | bytes | None]], Any] | None = None
    ) -> Awaitable[str | bytes | None]:
        """Wait for the next message.

        :param callback: is called with the Future.
        :returns: a Future of the message: a str, bytes, what a codec makes of them, or None when the connection is
            closed, then and after. If
            ``on_message_callback`` was given there is never a message here.
        """
        future: asyncio.Future[Any]
        if self._streams is None:
            future = self.read_queue.get()
        else:
            future = asyncio.ensure_future(self._streams.next_message())
        if callback is not None:
            self.io_loop.add_future(future, callback)
        return future

    def read_stream(self) -> StreamReading:
        """Read the next message in parts: ``async for part in conn.read_stream()``; see docs/streams.md.

        It may be mixed with `read_message` and ``async for message in conn``. Whichever reads the next message leaves
        the rest of the one before.

        :returns: what can be awaited too, for a `MessageStream` or, when the connection is closed, None.
        :raises RuntimeError: unless the connection was made with ``message_streams=True``.
        """
        if self._streams is None:
            raise RuntimeError("read_stream() needs a connection made with message_streams=True; this one is not")
        return self._streams.reading()

    @property
    def on_message_stream(self) -> Callable[[MessageStream], Any] | None:
        """What gets messages in parts; None where they are read as a whole."""
        return self.read_queue.put if self._streams is not None else None

    def __aiter__(self) -> WebSocketClientConnection:
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message, a str or bytes.

        :raises StopAsyncIteration: after a closing handshake that `close` of this side began, or that came with code
            1000, 1001 or none.
        :raises WebSocketClosedError: with ``close_code`` and ``close_reason``, after any other end. The code is 1006
            when there was no close frame (RFC 6455 section 7.1.5).
        """
        message = await self.read_message()
        if message is not None:
            return message
        code, reason = self.close_code, self.close_reason
        if self._ws_protocol is None or not self._ws_protocol.was_clean:
            code = code or ABNORMAL_CLOSURE
        elif self.protocol is None or code in _GOOD_ENDS:
            raise StopAsyncIteration
        raise WebSocketClosedError(
            f"connection closed with {code}{f': {plain(reason)}' if reason else ''}",
            close_code=code,
            close_reason=reason,
        )

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        return self._on_message(message)

    def _on_message(self, message: str | bytes | None) -> Awaitable[None] | None:
        if self._on_message_callback is None:
            return self.read_queue.put(message)
        self._on_message_callback(message)
        return None

    def ping(self, data: str | bytes = b"") -> None:
        """Send a ping frame (RFC 6455 section 5.5.2).

        :param data: at most 125 bytes; a str is sent as UTF-8.
        :raises ValueError: for more than 125 bytes.
        :raises WebSocketClosedError: on a closed connection.
        """
        data = utf8(data)
        if self.protocol is None:
            raise WebSocketClosedError()
        self.protocol.write_ping(data)

    def on_pong(self, data: bytes) -> None:
        """Override this to hear of pong frames.

        :param data: the payload, at most 125 bytes.
        """

    def on_ping(self, data: bytes) -> None:
        """Override this to hear of ping frames; the pong is sent already.

        :param data: the payload, at most 125 bytes.
        """

    # Closing

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the connection; all is as in `.WebSocketHandler.close`."""
        if self.protocol is not None:
            self.protocol.close(code, reason)
            self.protocol = None

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, by whichever side. Cancelling this cancels nothing else."""
        if self._ws_protocol is not None:
            await self._ws_protocol.wait_closed()

    async def __aenter__(self) -> WebSocketClientConnection:
        return self

    async def __aexit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close(NORMAL_CLOSURE if typ is None else GOING_AWAY)
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self._ws_abort()
            raise

    def _ws_abort(self) -> None:
        if self._ws_protocol is not None:
            self._ws_protocol._abort()

    def on_connection_close(self) -> None:
        if self.protocol is not None and not self.stream.closed():
            # Older Tornados say so when their HTTP ends with a 101 behind a 103.
            return
        if self._answered:
            self._fail_with_answer()
            return
        if not self.connect_future.done():
            self.connect_future.set_exception(StreamClosedError(self.stream.error))
        if not self._ended:
            self._ended = True
            self._on_message(None)
            self.read_queue.put(None)
        self.tcp_client.close()

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None:
        self.close_code = close_code
        self.close_reason = close_reason
        result: Any = self.on_connection_close()  # type: ignore[func-returns-value]
        if self._ws_protocol is not None:
            self._ws_protocol._run_to_end("on_connection_close", result)

    @property
    def latency(self) -> Latency:
        """This is the round trip from a ping of ours to its pong: a `Latency`, in seconds.

        Pings are sent every ``ping_interval`` seconds, and by `ping`.
        """
        return self._ws_protocol.latency if self._ws_protocol is not None else UNKNOWN

    @property
    def selected_subprotocol(self) -> str | None:
        """This is the subprotocol that the server has selected, a str or None."""
        assert self.protocol is not None
        return self.protocol.selected_subprotocol

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert typ is not None
        assert value is not None
        app_log.error("Uncaught exception %s", plain(value), exc_info=(typ, value, tb))
