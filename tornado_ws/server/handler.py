"""`WebSocketHandler`, the server's end: what `tornado.web.Application` routes to and applications subclass.

State of the connection lives on ``ws_connection``. Subclasses out there have taken every likely name, so what is
private here starts with ``_ws_``, save what Tornado's own class has. The file is long by what applications read here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import urllib.parse
from collections.abc import Awaitable, Callable, Container
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import tornado.web
from tornado import httputil
from tornado.concurrent import Future
from tornado.escape import json_encode, utf8
from tornado.iostream import IOStream
from tornado.log import app_log, gen_log

from tornado_ws import handshake
from tornado_ws.codecs import Codec, codec_of
from tornado_ws.compat.versions import TORNADO_CHECKS_ORIGIN
from tornado_ws.connection import interfaces
from tornado_ws.connection.interfaces import Observation, WebSocketParams, WebSocketProtocol
from tornado_ws.connection.protocol13 import WebSocketProtocol13
from tornado_ws.connection.registry import connections_of
from tornado_ws.connection.threads import write_message_threadsafe
from tornado_ws.coroutines import nothing, run_in_task, run_to_end, value_of, values_of
from tornado_ws.deflate.options import deflate_options
from tornado_ws.errors import WebSocketClosedError
from tornado_ws.escaping import plain, shown
from tornado_ws.options import check_attributes, handler_options, whole_only
from tornado_ws.server.admission import seconds_to_wait
from tornado_ws.transport.http_answer import clear_answer

if TYPE_CHECKING:
    from tornado_ws.connection.message_stream import MessageStream
    from tornado_ws.connection.write_stream import WriteStream

#: What a WebSocket handler cannot do after the upgrade.
_HTTP_METHODS = ("write", "redirect", "set_header", "set_cookie", "set_status", "flush", "finish")


class _NoHeaders(httputil.HTTPHeaders):
    """What is left of headers that are sent. Another one goes nowhere."""

    def add(self, name: str, value: str, **kwargs: Any) -> None:
        pass

    def __setitem__(self, name: str, value: str) -> None:
        pass


_NO_HEADERS = _NoHeaders()


class WebSocketHandler(tornado.web.RequestHandler):
    """Subclass this class to create a basic WebSocket handler.

    Override `on_message` to handle incoming messages, and use `write_message` to send messages to the client. You can
    also override `open` and `on_close` to handle opened and closed connections. Response headers of the upgrade can be
    set in `~tornado.web.RequestHandler.set_default_headers` or `~tornado.web.RequestHandler.prepare`::

        class EchoWebSocket(tornado_ws.WebSocketHandler):
            def open(self):
                print("WebSocket opened")

            def on_message(self, message):
                self.write_message("You said: " + message)

            def on_close(self):
                print("WebSocket closed", self.close_code, self.close_reason)

    After the opening handshake the HTTP methods of the handler raise RuntimeError. Browsers let any site connect to
    any other: see `check_origin`.

    Application settings: ``websocket_ping_interval`` and ``websocket_ping_timeout`` (seconds, see `ping_interval` and
    `ping_timeout`), ``websocket_max_message_size`` (bytes, 10 MiB). Those that Tornado does not have can be class
    attributes too, of the same name, which go before the application's; a wrong one is a ValueError, when the class is
    made if it is an attribute:

    - ``websocket_close_timeout``: seconds that the client has to answer a close frame, 5;
    - ``websocket_keepalive_timeout``: seconds of silence after a ping at which the client is given up. It goes before
      `ping_timeout`, and may be longer than `ping_interval`. Default: None, and `ping_timeout` holds;
    - ``websocket_read_ahead_messages`` and ``websocket_read_ahead_bytes``: what may wait while a coroutine `on_message`
      is busy, 64 and 1 MiB;
    - ``websocket_write_high_watermark`` and ``websocket_write_low_watermark``: bytes between which a writer that awaits
      is held, 0 and a quarter of the other;
    - ``websocket_write_limit``: bytes that may wait to be sent, 1 GiB, None for no limit;
    - ``websocket_write_stall_limit`` and ``websocket_write_stall_timeout``: bytes that may wait for a client that takes
      nothing for so many seconds, 64 MiB and 30;
    - ``websocket_write_limit_policy``: beyond those "close" with 1013, "drop" the message, "raise" `WriteLimitError`,
      or "latest": keep the newest message of each topic of `Topics`, and close for any other message;
    - ``websocket_max_lifetime``: seconds after which the connection is closed with 1001, or up to a tenth less, so that
      those which came together do not come back together. None, the default, is never;
    - ``websocket_idle_timeout``: the same for seconds without a message, either way, or up to a quarter more;
    - ``websocket_error_close_code``: the code that the client is sent after an exception in `open`, `on_message`,
      `on_ping` or `on_pong`, 1011 for example (RFC 6455 section 7.4.1). None, the default, closes the socket without a
      close frame, as Tornado does;
    - ``websocket_codec``: what turns values into messages and back, "json", "orjson", "msgspec", "msgpack" or an object
      (see `tornado_ws.codecs`). None, the default, leaves messages as they are;
    - ``websocket_decode_text``: False gives text to `on_message` as bytes, which are UTF-8. True by default;
    - ``websocket_max_part_size`` and ``websocket_max_stream_size``: bytes of a part, 64 KiB, and of the whole message,
      None for any number, where `on_message_stream` reads messages;
    - ``websocket_message_rate_limit`` and ``websocket_byte_rate_limit``: messages, pings among them, and bytes on the
      wire that the client may send in a second; None, the default, for any number. ``websocket_message_rate_burst`` and
      ``websocket_byte_rate_burst`` are how many may come at once, by default those of a second;
    - ``websocket_rate_limit_policy``: beyond those "pause" reading, the default, or "close" with 1008.

    Two are of the application alone, None by default. Beyond them an opening handshake is answered with 503 and
    Retry-After: ``websocket_max_connections``, the most that are open at a time, and
    ``websocket_max_handshakes_per_second``. `.check_settings` finds wrong settings before there is a client.
    """

    #: The connection from `close` to its end.
    _ws_closing: WebSocketProtocol | None = None
    #: What the connection encodes messages with; None leaves them as they are.
    _ws_codec: Codec | None = None
    #: What is told of the handshake and the connection, if anybody wants to know.
    _ws_observation: Observation | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_attributes(vars(cls))
        if "get_compression_options" in vars(cls):
            _check_compression_options(cls)

    def __init__(
        self, application: tornado.web.Application, request: httputil.HTTPServerRequest, **kwargs: Any
    ) -> None:
        super().__init__(application, request, **kwargs)
        self.ws_connection: WebSocketProtocol | None = None
        """The connection, from the opening handshake to its end; None before, and once `close` was called."""
        self.close_code: int | None = None
        """Why it ended (RFC 6455 section 7.4), when `on_close` is called: see there. None before."""
        self.close_reason: str | None = None
        """The text beside `close_code`, when `on_close` is called; None where there is none."""
        self._on_close_called = False
        self._ws_opened = False

    def clear(self) -> None:
        if not clear_answer(self):
            super().clear()

    # Not a coroutine, as `get`.
    def _execute(self, transforms: Any, *args: bytes, **kwargs: bytes) -> Any:
        handling = super()._execute(transforms, *args, **kwargs)
        if interfaces.observer is None:
            # As Tornado does with a coroutine, with half of its calls.
            return run_in_task(handling) if type(handling) is CoroutineType else handling
        self._ws_observation = interfaces.observer.accepting(self)
        return self._ws_observation.run(handling)

    def _handle_request_exception(self, e: BaseException) -> None:
        if self._ws_observation is not None:
            self._ws_observation.failed(e)
        super()._handle_request_exception(e)

    # Not a coroutine: it would live as long as the connection.
    def get(self, *args: Any, **kwargs: Any) -> Awaitable[None]:
        self.open_args = args
        self.open_kwargs = kwargs
        protocol = self._ws_protocol()
        if protocol is None:
            return nothing()
        if self._ws_observation is not None:
            protocol._observation = self._ws_observation
        self.ws_connection = protocol
        return protocol.accept_connection(self)

    def _ws_protocol(self) -> WebSocketProtocol | None:
        """Return the protocol that answers the request; None where it is refused, which is said to the client."""
        if not handshake.has_token(self.request.headers, "Upgrade", "websocket"):
            # A page is not told why its handshake was refused; it can only ask with a plain request.
            if self._ws_is_refused_for_now(is_handshake=False):
                return None
            self._ws_refuse(400, 'Can "Upgrade" only to "WebSocket".')
            return None
        if not handshake.has_token(self.request.headers, "Connection", "upgrade"):
            self._ws_refuse(400, '"Connection" must be "Upgrade".')
            return None
        if self._ws_is_refused_for_now(is_handshake=True):
            return None
        error = self._ws_check_origin()
        if error is not None:
            gen_log.debug("Cross origin websockets not allowed: %s", plain(error))
            self._ws_refuse(403, "Cross origin websockets not allowed")
            return None

        protocol = self.get_websocket_protocol()
        if type(protocol) is not WebSocketProtocol13:
            protocol = value_of(self, "get_websocket_protocol", protocol)
        if not protocol:
            self.set_status(426, "Upgrade Required")
            self.set_header("Sec-WebSocket-Version", handshake.VERSION)
        return protocol or None

    def _ws_is_refused_for_now(self, *, is_handshake: bool) -> bool:
        connections = connections_of(self.application)
        if not connections.are_settings_checked:
            # For the first request of an application alone.
            from tornado_ws.server.settings import log_wrong_settings

            connections.are_settings_checked = True
            log_wrong_settings(self.settings)
        if connections.listeners:
            self._ws_refuse(503, "Shutting down")
            return True
        wait = seconds_to_wait(connections, self.settings, is_handshake)
        if wait:
            self.set_header("Retry-After", str(wait))
            self._ws_refuse(503, "Too many connections")
        return bool(wait)

    def _ws_refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self.finish(message)
        gen_log.debug(message)

    def _ws_check_origin(self) -> str | None:
        """Return why the request's origin is refused, None where it is not."""
        if TORNADO_CHECKS_ORIGIN:
            return self._check_cross_origin(self._ws_allows_origin)
        headers = self.request.headers
        origin = headers.get("Origin", headers.get("Sec-Websocket-Origin"))
        if origin is None or self._ws_allows_origin(origin):
            return None
        return f"Origin {shown(origin)} not allowed"

    def _ws_allows_origin(self, origin: str) -> bool:
        allowed = self.check_origin(origin)
        try:
            return value_of(self, "check_origin", allowed)
        except TypeError as error:
            app_log.error("%s; the origin %s is refused", error, shown(origin))
            return False

    @property
    def ping_interval(self) -> float | None:
        """This is the number of seconds between the pings that we send; None or 0 sends none.

        It is the ``websocket_ping_interval`` setting, None by default. Override it for another one (Tornado 6.3).
        """
        seconds: float | None = self.settings.get("websocket_ping_interval")
        return seconds

    @property
    def ping_timeout(self) -> float | None:
        """This is the number of seconds after a ping within which the peer has to be heard; 0 is no limit.

        At the timeout `on_close` is called with ``close_code`` 1006 and a reason. The time cannot be longer than
        `ping_interval`, and is equal to it by default, as in Tornado 6.5; ``websocket_keepalive_timeout`` can be
        longer. It is the ``websocket_ping_timeout`` setting.
        """
        seconds: float | None = self.settings.get("websocket_ping_timeout")
        return seconds

    @property
    def max_message_size(self) -> int:
        """This is the number of bytes that a message may have, after inflating; a larger one is refused with 1009.

        It is the ``websocket_max_message_size`` setting, 10 MiB by default.
        """
        # Applications assign to this module's public face, as they do to tornado.websocket.
        default = sys.modules["tornado_ws"]._default_max_message_size
        size: int = self.settings.get("websocket_max_message_size", default)
        return size

    def write_message(self, message: Any, binary: bool = False, *, compress: bool = True) -> Future[None]:
        """Send a message to the client.

        :param message: a str, bytes, bytearray or memoryview; a dict is sent as JSON. With ``websocket_codec`` anything
            that the codec encodes.
        :param binary: send it as a binary message. Otherwise it goes as text, and bytes have to be UTF-8. A codec
            decides that by itself.
        :param compress: compress it, if that was agreed on (RFC 7692). False is for what is compressed already, and for
            secrets beside text that others choose.
        :returns: a `.Future` for flow control. It is done when the operating system has taken the message, or earlier
            as the watermarks allow. It fails with `WebSocketClosedError` when the connection is lost before, and may be
            ignored.
        :raises WebSocketClosedError: when the connection is closed or closing.
        :raises WriteLimitError: when too much waits already, under the policy "raise".
        :raises ValueError: for bytes that are to go as text and are not UTF-8.
        :raises TypeError: for any other type.
        :raises RuntimeError: in another thread than the one that runs the connection's IOLoop.
        """
        connection = self.ws_connection
        if connection is None or connection.is_closing():
            raise WebSocketClosedError()
        if isinstance(message, dict) and self._ws_codec is None:
            message = json_encode(message)
        # Protocols of others do not have the argument.
        if not compress:
            return connection.write_message(message, binary=binary, compress=False)
        return connection.write_message(message, binary=binary)

    def write_stream(self, binary: bool = False, *, compress: bool = True) -> WriteStream:
        """Send one message in parts: ``async with self.write_stream() as stream: await stream.write(part)``.

        See `WriteStream` and docs/streams.md. A codec has no part in it.

        :param binary: send it as a binary message. Otherwise it goes as text, and parts of bytes have to be UTF-8.
        :param compress: as `write_message` has it; ``threshold`` of the compression options does not count here.
        :raises WebSocketClosedError: when the connection is closed or closing.
        """
        if self.ws_connection is None:
            raise WebSocketClosedError()
        connection: Any = self.ws_connection
        stream: WriteStream = connection.write_stream(binary, compress=compress)
        return stream

    def write_message_threadsafe(self, message: Any, binary: bool = False) -> concurrent.futures.Future[None]:
        """Have the connection's own thread call `write_message`, from any thread.

        Messages of one thread keep their order. A thread that sends much has to wait for the Futures (``result``, with
        a timeout), or its messages pile up; in the connection's own thread waiting would block its IOLoop.

        :param message: as `write_message` has it.
        :param binary: as `write_message` has it.
        :returns: a `concurrent.futures.Future` that ends as the one of `write_message` does, with what that raises too:
            `WebSocketClosedError` when the connection is closed by then, or the loop has ended.
        """
        has_codec = self._ws_codec is not None
        return write_message_threadsafe(self.ws_connection, self.write_message, message, binary, has_codec)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Override this to choose one of the subprotocols that the client offers (RFC 6455 section 1.9).

        It is called exactly once before `open` (Tornado 5.1).

        :param subprotocols: the offered names, in the client's order; empty when it offers none.
        :returns: one of them, or None, the default.
        """
        return None

    @property
    def selected_subprotocol(self) -> str | None:
        """This is the subprotocol that `select_subprotocol` returned, a str or None."""
        assert self.ws_connection is not None
        return self.ws_connection.selected_subprotocol

    def get_compression_options(self) -> dict[str, Any] | None:
        """Override this to agree to permessage-deflate (RFC 7692).

        :returns: a dict of options; an empty one has the defaults. None, the default, leaves compression off.
            ``compression_level`` (0 to 9, default 6) and ``mem_level`` (1 to 9, default 8) are those of
            `zlib.compressobj`. All that can be set is in `.DeflateOptions`, and what it is good for in
            docs/compression.md.

        A wrong option is a ValueError that names it: when the class is made, if this method can be called without a
        request then (it is called once to see), else a 500 at the opening handshake.
        """
        return None

    def _open(self, *args: str, **kwargs: str) -> Awaitable[None] | None:
        """Override this to begin; it is called when the WebSocket is open, with what the `.URLSpec` took from the URL.

        It may be a coroutine; `on_message` is not called before it has returned (Tornado 5.1).
        """

    # Whoever overrides it may name its arguments.
    open: Callable[..., Awaitable[None] | None] = _open

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """Handle a message; this has to be overridden.

        It may be a coroutine; the next message waits for it (Tornado 4.5).

        :param message: a str for text, bytes for binary.
        """
        raise NotImplementedError

    if TYPE_CHECKING:
        # A method for those who override it; there is none, so that it need not be called to see.
        def on_message_stream(self, stream: MessageStream) -> Awaitable[None] | None: ...

    else:
        on_message_stream = None
        """Define this, as a method, to read every message in parts; `on_message` is not called then.

        It is called with a `MessageStream` when a message begins, and may be a coroutine. The next message waits for
        it; what it leaves of its own is dropped. See docs/streams.md.
        """

    def ping(self, data: str | bytes = b"") -> None:
        """Send a ping frame (RFC 6455 section 5.5.2).

        :param data: at most 125 bytes; a str is sent as UTF-8.
        :raises ValueError: for more than 125 bytes.
        :raises WebSocketClosedError: when the connection is closed or closing.
        """
        data = utf8(data)
        if self.ws_connection is None or self.ws_connection.is_closing():
            raise WebSocketClosedError()
        self.ws_connection.write_ping(data)

    def on_pong(self, data: bytes) -> None:
        """Override this to hear of pong frames.

        :param data: the payload, at most 125 bytes.
        """

    def on_ping(self, data: bytes) -> None:
        """Override this to hear of ping frames; the pong is sent already (Tornado 5.1).

        :param data: the payload, at most 125 bytes.
        """

    def on_close(self) -> Awaitable[None] | None:
        """Override this to hear of the end; it is called exactly once, if `open` was called.

        It may be a coroutine: it runs as a task, an exception is logged, and `wait_closed` and `.close_all` wait for
        it. ``self.close_code`` and ``self.close_reason`` are those of the client's close frame, or of ours if we
        refused what the client sent, or 1006 with a reason if we gave the client up. Both are None when the client went
        away without a close frame, and whatever a close frame left out.
        """

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the WebSocket: send a close frame, and close the socket when the client has answered.

        The client has ``websocket_close_timeout`` seconds for that, 5 by default.

        :param code: a close code that may be sent (RFC 6455 section 7.4): 1000-1003, 1007-1014 or 3000-4999; None sends
            none.
        :param reason: a text of at most 123 bytes of UTF-8.
        :raises ValueError: for any other code or reason, with nothing changed.
        """
        if self.ws_connection:
            self.ws_connection.close(code, reason)
            self._ws_closing, self.ws_connection = self.ws_connection, None

    async def wait_closed(self) -> None:
        """Wait until the connection is closed and `on_close` has returned; return at once where it is not open.

        A coroutine `on_close` is waited for. This is not to be awaited in `on_message`: `on_close` is called when that
        has returned. Cancelling this cancels nothing else.
        """
        connection = self.ws_connection or self._ws_closing
        if self._ws_opened and connection is not None:
            await connection.wait_closed()

    def check_origin(self, origin: str) -> bool:
        """Override this to allow other origins (RFC 6455 section 10.2).

        It is a protection against scripts of other sites: browsers let any page open a WebSocket to any host, with that
        host's cookies, and do not use CORS headers for it.

        As in the Tornado that is installed: since 6.6 this is called only for requests that are not same-origin
        (Sec-Fetch-Site, else Origin against Host), and by default asks `.RequestHandler.check_trusted_origin`; before,
        it is called for every request that has an Origin, and by default compares that with Host.

        It cannot be a coroutine, whose answer nobody would wait for: then every origin is refused, with an error in the
        log. To ask somebody first, do so in a coroutine `~tornado.web.RequestHandler.prepare`.

        :param origin: the value of the Origin header.
        :returns: True to accept the connection; otherwise the client gets a 403.
        """
        if TORNADO_CHECKS_ORIGIN:
            return self.check_trusted_origin(origin)
        return urllib.parse.urlparse(origin).netloc.lower() == self.request.headers.get("Host")

    def set_nodelay(self, value: bool) -> None:
        """Set the no-delay flag of the stream; see `.BaseIOStream.set_nodelay`.

        :param value: True sends small messages at once; it is True from the opening handshake on.
        """
        assert self.ws_connection is not None
        self.ws_connection.set_nodelay(value)

    def on_connection_close(self) -> None:
        if self._ws_observation is not None:
            # It may have no answer yet.
            self._ws_observation.answered(None)
        connection = self.ws_connection or self._ws_closing
        if self.ws_connection:
            # May come back here before it returns.
            self.ws_connection.on_connection_close()
            self.ws_connection = None
        if not self._on_close_called:
            self._ws_closing = None
        if self._ws_opened and not self._on_close_called:
            self._on_close_called = True
            result: Any = self.on_close()
            ending = None if result is None else self._ws_run(connection, "on_close", result)
            if ending is None:
                self._break_cycles()
            else:
                # What `wait_closed` waits for.
                self._ws_closing = connection
                ending.add_done_callback(self._ws_on_close_done)

    def _ws_run(self, connection: WebSocketProtocol | None, hook: str, result: Any) -> asyncio.Future[Any] | None:
        return run_to_end(self, hook, result) if connection is None else connection._run_to_end(hook, result)

    def _ws_on_close_done(self, ending: asyncio.Future[Any]) -> None:
        self._ws_closing = None
        self._break_cycles()

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None:
        self.close_code = close_code
        self.close_reason = close_reason
        connection = self.ws_connection or self._ws_closing
        result: Any = self.on_connection_close()  # type: ignore[func-returns-value]
        if result is not None:
            self._ws_run(connection, "on_connection_close", result)

    def _break_cycles(self) -> None:
        if self._ws_observation is not None:
            # The last step of an answer; those before it are applications' to override.
            self._ws_observation.answered(self._status_code)
        # finish() calls this at the handshake, but a WebSocket handler lives on (render_string needs its namespace).
        if self._status_code != 101 or self._on_close_called:
            super()._break_cycles()

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        """Return the protocol for this request, None for a version that is not supported."""
        if self.request.headers.get("Sec-WebSocket-Version") != handshake.VERSION:
            return None
        ping_interval, ping_timeout, max_message_size, compression_options = values_of(
            self,
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            max_message_size=self.max_message_size,
            get_compression_options=self.get_compression_options(),
        )
        options = handler_options(self, self.settings)
        params = WebSocketParams(ping_interval, ping_timeout, max_message_size, compression_options, options)
        if params.options.codec is not None:
            if getattr(self, "on_message_stream", None) is not None:
                raise ValueError(whole_only("websocket_codec", params.options.codec))
            self._ws_codec = codec_of(params.options.codec)
        return WebSocketProtocol13(self, False, params)

    def _detach_stream(self) -> IOStream:
        for method in _HTTP_METHODS:
            setattr(self, method, raise_not_supported_for_websockets)
        # They are sent, and nobody may set others: even empty ones take half a kilobyte.
        self._headers = _NO_HEADERS
        self._write_buffer = ()  # type: ignore[assignment]
        return self.detach()

    def _ws_let_go(self) -> None:
        # Each refers to the other.
        self.ws_connection = None
        if self._finished:
            super()._break_cycles()


def _check_compression_options(cls: type[WebSocketHandler]) -> None:
    """Raise ValueError for wrong options, where they can be told before there is a request."""
    try:
        handler = object.__new__(cls)
        options = value_of(handler, "get_compression_options", handler.get_compression_options())
    except Exception:
        # It asks for the request or the application: then they are checked at the opening handshake.
        return
    if isinstance(options, Container):
        deflate_options(options)


def raise_not_supported_for_websockets(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("Method not supported for Web Sockets")
