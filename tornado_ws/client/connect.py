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
from tornado_ws.connection.interfaces import _default_max_message_size
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
    max_message_size: int = _default_max_message_size,
    subprotocols: list[str] | None = None,
    resolver: Resolver | None = None,
    **options: Unpack[OptionArguments],
) -> ConnectFuture[WebSocketClientConnection]:
    """Connect to a WebSocket server; returns a Future of a `WebSocketClientConnection`.

    To close the connection whatever happens: ``async with websocket_connect(...) as conn``.

    ``url`` is a ``ws://`` or ``wss://`` URL or an `.HTTPRequest` with one, which stays as it is. User and password in
    the URL are sent as Basic authentication (RFC 7617), a host in other letters as A-labels (IDNA 2003), and what may
    not stand in a path or a query is percent-encoded (RFC 3986). ``connect_timeout`` is in seconds and covers all
    steps: name resolution, TCP, TLS and the opening handshake; 20 by default, as Tornado's. With
    ``on_message_callback`` each message is given to it, and None at the end; without, `read_message` gives them.
    ``compression_options`` is as in `.WebSocketHandler.get_compression_options`, ``ping_interval`` and
    ``ping_timeout`` (seconds) and ``max_message_size`` (bytes) as the handler's. ``subprotocols`` are offered in order,
    and ``resolver`` is a `.Resolver` to use. Cancelling the Future closes the socket.

    What Tornado does not have: ``close_timeout`` is how many seconds the server has to answer a close frame (5).
    ``keepalive_timeout`` is how many seconds of silence after a ping the server may keep; it goes before
    ``ping_timeout`` and may be longer than ``ping_interval`` (None). The other options are those of
    `.WebSocketHandler`, without their prefix.

    Raises ValueError for a URL that cannot be connected to, and for an `.HTTPRequest` with a body or another method
    than GET.

    Raises `HandshakeRejectedError` (an `.HTTPError`) when the server answers with an error status, `HandshakeError` (a
    `WebSocketError`) for any other status but 101, both with at most 64 KiB of the body, and what had come of it when
    it is silent for a second, `InvalidHandshakeError` (a `.StreamClosedError`) for a 101 that
    breaks RFC 6455, `.HTTPTimeoutError` at the timeout, `.StreamClosedError`, `.HTTPStreamClosedError` or OSError when
    there is no connection or it ends inside the answer.

    The ``io_loop`` argument of Tornado 4 is accepted, in its old place or by name, and not used; ``callback`` is
    deprecated as in Tornado 6.5.
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
