"""A server on loopback, and clients of it: started, and ended whatever happens in between."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import AsyncHTTPSTestCase, bind_unused_port
from tornado.web import Application, RequestHandler

from tornado_ws import WebSocketClientConnection, WebSocketHandler, close_all, websocket_connect
from tornado_ws.close_codes import GOING_AWAY
from tornado_ws.connection.registry import connections_of
from tornado_ws.escaping import shown
from tornado_ws.options import handler_options
from tornado_ws.testing.raw_ends import RawServer

#: What is served: a handler's class for all paths, an application, routes, or what is called with a connection (a
#: `WebSocketHandler`) and each message.
Served: TypeAlias = "type[RequestHandler] | Application | list[Any] | Callable[[Any, Any], Any]"

#: Where a client connects to.
Target: TypeAlias = "Server | RawServer | str | HTTPRequest"

#: Seconds that connections have to close at the end of a test, before they are cut off.
END_TIMEOUT = 5.0


class Server:
    """A server that runs; `serve` makes it.

    ``url`` (str) is its ``ws://`` or ``wss://`` URL without a path, ``port`` (int) its port of 127.0.0.1,
    ``application`` the `.Application`, and ``client_arguments`` (dict) what `websocket_connect` needs to trust it.
    """

    def __init__(self, application: Application, port: int, over_tls: bool) -> None:
        self.application = application
        self.port = port
        self.url = f"{'wss' if over_tls else 'ws'}://127.0.0.1:{port}"
        self.client_arguments: dict[str, Any] = {"ssl_options": _trusting_context()} if over_tls else {}

    @property
    def connections(self) -> list[WebSocketHandler]:
        """The handlers of the connections that are open, in the order of their opening."""
        found: Any = connections_of(self.application).open
        return [connection.handler for connection in found]


@contextlib.asynccontextmanager
async def serve(
    served: Served,
    *,
    tls: bool | ssl.SSLContext | dict[str, Any] = False,
    http_server: type[HTTPServer] = HTTPServer,
    **settings: Any,
) -> AsyncIterator[Server]:
    """Serve WebSockets at a free port of 127.0.0.1.

    At the end connections that are still open are closed with 1001, and after 5 seconds cut off.

    :param served: a handler's class, which gets all paths; an `.Application`; a list of its routes; or a function that
        is called with the connection (a `WebSocketHandler`) and each message, and may be a coroutine.
    :param tls: True serves with the certificate of Tornado's own tests, which nobody else trusts; an `ssl.SSLContext`
        or a dict is as in `.HTTPServer`.
    :param http_server: the class of the server.
    :param settings: those of the application.
    :raises TypeError: for anything else that is served, or given as ``tls``.
    :raises ValueError: for a wrong setting, and for any beside an `.Application`.
    """
    if not isinstance(tls, bool | ssl.SSLContext | dict):
        raise TypeError(f"tls is {shown(tls)}; it has to be True, False, an ssl.SSLContext or a dict of ssl_options")
    application = application_of(served, settings)
    ssl_options = AsyncHTTPSTestCase.default_ssl_options() if tls is True else tls or None
    sock, port = bind_unused_port()
    try:
        server = http_server(application, ssl_options=ssl_options)
        server.add_sockets([sock])
    except BaseException:
        sock.close()
        raise
    try:
        yield Server(application, port, ssl_options is not None)
    finally:
        server.stop()
        try:
            await close_all(application, timeout=END_TIMEOUT)
        finally:
            # There are some if this is cancelled.
            for connection in list(connections_of(application).open):
                connection.abort_with(GOING_AWAY, None)
            await server.close_all_connections()


@contextlib.asynccontextmanager
async def connected(target: Target, path: str = "", **arguments: Any) -> AsyncIterator[WebSocketClientConnection]:
    """Connect a client.

    At the end the connection is closed, if it is still open, and after 5 seconds cut off.

    :param target: a `Server`, a `RawServer`, a URL or an `.HTTPRequest`.
    :param path: what is asked for there, with the query.
    :param arguments: those of `websocket_connect`.
    :raises TypeError: for any other target.
    """
    if isinstance(target, Server):
        arguments = {**target.client_arguments, **arguments}
    elif isinstance(target, HTTPRequest) and path:
        raise ValueError(f"path is {shown(path)}; beside an HTTPRequest it has to be empty: the request has one")
    elif not isinstance(target, RawServer | HTTPRequest | str):
        raise TypeError(f"target is {shown(target)}; it has to be a Server, a RawServer, a URL or an HTTPRequest")
    if isinstance(target, HTTPRequest):
        url: str | HTTPRequest = target
    else:
        base = target if isinstance(target, str) else target.url
        url = base if not path else _joined(base, path)
    conn = await websocket_connect(url, **arguments)
    try:
        yield conn
    finally:
        await end(conn)


async def end(conn: WebSocketClientConnection) -> None:
    """Close a client's connection, and cut it off when the server does not answer within 5 seconds."""
    conn.close()
    try:
        await asyncio.wait_for(conn.wait_closed(), END_TIMEOUT)
    except asyncio.TimeoutError:
        pass
    finally:
        # Does nothing to one that is closed.
        conn._ws_abort()


def application_of(served: Served, settings: dict[str, Any]) -> Application:
    """Return the application that serves; see `serve`."""
    if isinstance(served, Application):
        if settings:
            raise ValueError(f"{', '.join(settings)} given beside an Application; its settings are its own")
        return served
    handler_options(None, settings)
    if isinstance(served, list):
        return Application(served, **settings)
    if isinstance(served, type):
        if issubclass(served, RequestHandler):
            return Application([("/.*", served)], **settings)
    elif callable(served):
        return Application([("/.*", _handler_calling(served))], **settings)
    raise TypeError(
        f"served is {shown(served)}; it has to be a WebSocketHandler's class, an Application, a list of routes, or a "
        "function of a connection and a message"
    )


def _handler_calling(function: Callable[[Any, Any], Any]) -> type[WebSocketHandler]:
    class Handler(WebSocketHandler):
        def on_message(self, message: str | bytes) -> Any:
            return function(self, message)

    return Handler


def _joined(base: str, path: str) -> str:
    if not path.startswith(("/", "?")):
        raise ValueError(f"path is {shown(path)}; it has to begin with a slash")
    return base.rstrip("/") + path


def _trusting_context() -> ssl.SSLContext:
    # A certificate of a test says nothing about who serves it.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
