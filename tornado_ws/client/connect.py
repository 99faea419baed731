"""`websocket_connect`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from tornado import httpclient
from tornado.concurrent import Future
from tornado.ioloop import IOLoop
from tornado.netutil import Resolver

from tornado_ws.client.connection import WebSocketClientConnection
from tornado_ws.client.futures import ConnectFuture
from tornado_ws.compat.versions import accepts_io_loop
from tornado_ws.connection.interfaces import DEFAULT_MAX_MESSAGE_SIZE
from tornado_ws.options import OptionArguments

if TYPE_CHECKING:
    from typing_extensions import Unpack


@accepts_io_loop
def websocket_connect(
    url: str | httpclient.HTTPRequest,
    callback: Callable[[Future[WebSocketClientConnection]], Any] | None = None,
    connect_timeout: float | None = None,
    on_message_callback: Callable[[str | bytes | None], Any] | None = None,
    compression_options: dict[str, Any] | None = None,
    ping_interval: float | None = None,
    ping_timeout: float | None = None,
    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE,
    subprotocols: list[str] | None = None,
    resolver: Resolver | None = None,
    **options: Unpack[OptionArguments],
) -> ConnectFuture[WebSocketClientConnection]:
    """Connect to a WebSocket server.

    To close the connection whatever happens: ``async with websocket_connect(...) as conn``. Cancelling the Future
    closes the socket.

    :param url: a ``ws://`` or ``wss://`` URL, or an `.HTTPRequest` with one, which stays as it is. User and password in
        the URL are sent as Basic authentication (RFC 7617), a host in other letters as A-labels (IDNA 2003), and what
        may not stand in a path or a query is percent-encoded (RFC 3986).
    :param callback: is called with the Future; deprecated as in Tornado 6.5.
    :param connect_timeout: seconds for all steps: name resolution, TCP, TLS and the opening handshake. 20 by default,
        as Tornado's.
    :param on_message_callback: is called with each message, and with None at the end. Without it
        `~WebSocketClientConnection.read_message` gives them.
    :param compression_options: as in `.WebSocketHandler.get_compression_options`; None, the default, offers no
        compression.
    :param ping_interval: seconds between pings, as `.WebSocketHandler.ping_interval`.
    :param ping_timeout: seconds, as `.WebSocketHandler.ping_timeout`.
    :param max_message_size: bytes, as `.WebSocketHandler.max_message_size`.
    :param subprotocols: a list of names, which are offered in order.
    :param resolver: the `.Resolver` to use.
    :param options: what Tornado does not have. ``close_timeout`` is how many seconds the server has to answer a close
        frame (5). ``keepalive_timeout`` is how many seconds of silence after a ping the server may keep; it goes before
        ``ping_timeout`` and may be longer than ``ping_interval`` (None). The others are those of `.WebSocketHandler`,
        without their prefix.
    :returns: a Future of a `WebSocketClientConnection`. It fails with what follows from `HandshakeRejectedError` on.
    :raises ValueError: for a URL that cannot be connected to, for an `.HTTPRequest` with a body or another method than
        GET, and for a wrong option.
    :raises HandshakeRejectedError: (an `.HTTPError`) when the server answers with an error status.
    :raises HandshakeError: for any other status but 101. Both have at most 64 KiB of the body, and what had come of it
        when the server is silent for a second.
    :raises InvalidHandshakeError: (a `.StreamClosedError`) for a 101 that breaks RFC 6455.
    :raises HTTPTimeoutError: at the timeout.
    :raises OSError: when there is no connection or it ends inside the answer; `.StreamClosedError` and
        `.HTTPStreamClosedError` in the place of some.

    The ``io_loop`` argument of Tornado 4 is accepted, in its old place or by name, and not used.
    """
    if isinstance(url, httpclient.HTTPRequest):
        assert connect_timeout is None, "connect_timeout belongs into the HTTPRequest"
        request = url
    else:
        request = httpclient.HTTPRequest(url, connect_timeout=connect_timeout)
    conn = WebSocketClientConnection(
        cast(httpclient.HTTPRequest, httpclient._RequestProxy(request, httpclient.HTTPRequest._DEFAULTS)),
        on_message_callback=on_message_callback,
        compression_options=compression_options,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        max_message_size=max_message_size,
        subprotocols=subprotocols,
        resolver=resolver,
        **options,
    )
    if callback is not None:
        warnings.warn(
            "The callback argument to websocket_connect is deprecated. Use the returned Future instead.",
            DeprecationWarning,
            stacklevel=3,
        )
        IOLoop.current().add_future(conn.connect_future, callback)
    return conn.connect_future
