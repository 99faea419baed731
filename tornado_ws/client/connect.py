"""`websocket_connect`."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tornado import httpclient
from tornado.concurrent import Future
from tornado.ioloop import IOLoop
from tornado.netutil import Resolver

from tornado_ws.client.arguments import (
    Headers,
    add_arguments,
    check_names,
    checked_redirects,
    checked_ssl,
    make_request,
    take_unix_path,
)
from tornado_ws.client.connection import WebSocketClientConnection
from tornado_ws.client.connectors import SslOptions
from tornado_ws.client.futures import ConnectFuture
from tornado_ws.client.reach import checked_reach
from tornado_ws.compat.versions import accepts_io_loop
from tornado_ws.connection.interfaces import DEFAULT_MAX_MESSAGE_SIZE
from tornado_ws.options import OptionArguments

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from typing_extensions import Unpack


@accepts_io_loop
# Long by Tornado's arguments and ours.
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
    *,
    headers: Headers | None = None,
    user_agent_header: str | None = None,
    cookies: CookieJar | None = None,
    ssl_options: SslOptions | None = None,
    server_hostname: str | None = None,
    proxy: str | bool | None = None,
    proxy_ssl_options: SslOptions | None = None,
    unix: str | bytes | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    source_address: tuple[str, int] | None = None,
    follow_redirects: bool = False,
    max_redirects: int = 10,
    message_streams: bool = False,
    **options: Unpack[OptionArguments],
) -> ConnectFuture[WebSocketClientConnection]:
    """Connect to a WebSocket server.

    To close the connection whatever happens: ``async with websocket_connect(...) as conn``. Cancelling the Future
    closes the socket.

    :param url: a ``ws://`` or ``wss://`` URL, or an `.HTTPRequest` with one, which stays as it is. User and password in
        the URL are sent as Basic authentication (RFC 7617), a host in other letters as A-labels (IDNA 2003), and what
        may not stand in a path or a query is percent-encoded (RFC 3986). ``ws+unix:///path/of/socket:/path?query`` is
        the same as ``unix=``. An `.HTTPRequest` with ``auth_mode="digest"`` answers a challenge (RFC 7616: MD5,
        SHA-256), and its ``proxy_host``, ``proxy_port``, ``proxy_username`` and ``proxy_password`` are those of an HTTP
        proxy.
    :param callback: is called with the Future; deprecated as in Tornado 6.5.
    :param connect_timeout: seconds for all steps: name resolution, TCP, proxy, TLS, the opening handshake, and the same
        again for each redirect. 20 by default, as Tornado's.
    :param on_message_callback: is called with each message, and with None at the end. Without it
        `~WebSocketClientConnection.read_message` gives them.
    :param compression_options: as in `.WebSocketHandler.get_compression_options`; None, the default, offers no
        compression.
    :param ping_interval: seconds between pings, as `.WebSocketHandler.ping_interval`.
    :param ping_timeout: seconds, as `.WebSocketHandler.ping_timeout`.
    :param max_message_size: bytes, as `.WebSocketHandler.max_message_size`.
    :param subprotocols: a list of names, which are offered in order.
    :param resolver: the `.Resolver` to use, for a proxy too.
    :param headers: a mapping or pairs of names and values, both str; they go before those of an `.HTTPRequest`.
    :param user_agent_header: a str, in the place of "Tornado/" and its version.
    :param cookies: an `http.cookiejar.CookieJar`: its cookies for the URL are sent, and what answers set is kept.
    :param ssl_options: an `ssl.SSLContext` or a dict, as in `.HTTPRequest`: what to trust, and a client certificate.
    :param server_hostname: the name that a ``wss`` server is asked for and its certificate has to be for (SNI); by
        default the URL's host.
    :param proxy: ``http://``, ``https://``, ``socks5://``, ``socks5h://`` or ``socks4://``, with user and password
        if it wants them; SOCKS needs ``pip install 'tornado_ws[proxy]'``. True is the environment's, by
        the rules of `urllib.request`; False is none; None, the default, is that of an `.HTTPRequest` or none.
    :param proxy_ssl_options: as ``ssl_options``, for TLS with an ``https://`` proxy.
    :param unix: the path of a Unix socket to connect to; the URL says what is asked for there.
    :param sock: a connected `socket.socket` to use. It is closed with the connection, and when connecting fails.
    :param source_address: an IP address of this machine and a port, 0 for any, to connect from.
    :param follow_redirects: whether to follow 301, 302, 303, 307 and 308 (RFC 9110 section 15.4), to ws, wss, http and
        https URLs but never from wss to ws. To another origin go no Authorization, Cookie, user and password.
    :param max_redirects: how many of them (10).
    :param message_streams: whether `~WebSocketClientConnection.read_stream` may read messages in parts, of any size.
    :param options: what Tornado does not have either. ``close_timeout`` is how many seconds the server has to answer a
        close frame (5). ``keepalive_timeout`` is how many seconds of silence after a ping the server may keep; it goes
        before ``ping_timeout`` and may be longer than ``ping_interval`` (None). The others are those of
        `.WebSocketHandler`, without their prefix.
    :returns: a Future of a `WebSocketClientConnection`. It fails with what follows from `HandshakeRejectedError` on.
    :raises ValueError: for a URL that cannot be connected to, for an `.HTTPRequest` with a body or another method than
        GET, and for a wrong option.
    :raises TypeError: for an argument that there is not; it names the one that may be meant.
    :raises ImportError: for a SOCKS proxy where python-socks is missing.
    :raises HandshakeRejectedError: (an `.HTTPError`) when the server answers with an error status.
    :raises RedirectError: (a `HandshakeRejectedError`) for a redirect that is not followed, a loop for example.
    :raises HandshakeError: for any other status but 101. Both have at most 64 KiB of the body, and what had come of it
        when the server is silent for a second.
    :raises InvalidHandshakeError: (a `.StreamClosedError`) for a 101 that breaks RFC 6455.
    :raises HTTPTimeoutError: at the timeout.
    :raises ProxyError: (an OSError) when a proxy cannot be reached or refuses.
    :raises OSError: when there is no connection or it ends inside the answer; `.StreamClosedError` and
        `.HTTPStreamClosedError` in the place of some.

    The ``io_loop`` argument of Tornado 4 is accepted, in its old place or by name, and not used.
    """
    check_names("websocket_connect", options)
    request = make_request(url, connect_timeout)
    add_arguments(request, headers, user_agent_header, ssl_options)
    path = take_unix_path(request)
    if path is not None and unix is not None:
        raise ValueError("URL is that of a Unix socket, and unix= is given; only one of them can be")
    reach = checked_reach(
        proxy, checked_ssl("proxy_ssl_options", proxy_ssl_options), path or unix, sock, source_address, server_hostname
    )
    if server_hostname is not None and not request.url.lower().startswith("wss:"):
        raise ValueError("server_hostname is given and the URL is not wss; it is for TLS only")
    redirects = checked_redirects(follow_redirects, max_redirects)
    wants_digest = request.auth_mode == "digest"
    if sock is not None and (redirects is not None or wants_digest):
        raise ValueError("sock is given with redirects or digest authentication, which may need a second connection")

    def connect(request: Any, is_elsewhere: bool) -> WebSocketClientConnection:
        return WebSocketClientConnection(
            request,
            on_message_callback=on_message_callback,
            compression_options=compression_options,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_message_size=max_message_size,
            subprotocols=subprotocols,
            resolver=resolver,
            reach=reach.elsewhere() if is_elsewhere else reach,
            message_streams=message_streams,
            **options,
        )

    if redirects is not None or wants_digest or cookies is not None:
        # What it imports is for who asks for that.
        from tornado_ws.client.attempts import Attempts

        connect_future = Attempts(request, connect, redirects, cookies, reach.is_bound).connect_future
    else:
        connect_future = connect(request, False).connect_future
    if callback is not None:
        warnings.warn(
            "The callback argument to websocket_connect is deprecated. Use the returned Future instead.",
            DeprecationWarning,
            stacklevel=3,
        )
        IOLoop.current().add_future(connect_future, callback)
    return connect_future
