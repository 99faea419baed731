"""`HTTPServer`: Tornado's, with a shorter way from a new connection to the handler of an opening handshake.

Tornado reads each request with three coroutines, two Futures and a timer. For an upgrade request that is there as a
whole nothing of that has to wait. Such a request is taken from the socket and given to the application at once, with
Tornado's own objects, in the state that they have there. That state is private to Tornado, as there is no public way
to an `.HTTP1Connection` that has read its request: all surgery on it is here.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Coroutine
from typing import Any

from tornado import httpserver
from tornado.http1connection import (
    HTTP1Connection,
    HTTP1ConnectionParameters,
    HTTP1ServerConnection,
    _ExceptionLoggingContext,
    _QuietException,
)
from tornado.httputil import HTTPInputError, HTTPMessageDelegate, HTTPServerConnectionDelegate
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError
from tornado.log import app_log, gen_log
from tornado.web import Application

from tornado_ws.server.settings import check_settings
from tornado_ws.server.upgrade_request import parse_upgrade_request
from tornado_ws.transport.stream import give_back, is_used, stop_watching, tell_of_end, watch_as, watch_for_end

#: Bytes that are read at first. A browser's request has about 500, and up to 4 KiB of cookies.
_FIRST_READ = 8192
#: Whether a delegate whose ``finish`` has raised hears that the connection is closed: from Tornado 6.6 on.
_TELLS_OF_FAILED_FINISH = hasattr(HTTP1Connection, "_read_message_inner")


class HTTPServer(httpserver.HTTPServer):
    """An HTTP server in which WebSocket connections are opened at less cost, for many that come at once.

    It takes what `tornado.httpserver.HTTPServer` takes, and does the same. The first request of a connection goes a
    shorter way if it is a whole opening handshake (RFC 6455 section 4.1) without TLS. Everything else is read and
    answered by Tornado's own code: another request, a part of one, one that is malformed, and all that follow on the
    same connection::

        server = tornado_ws.HTTPServer(application, xheaders=True)
        server.listen(8888)

    Follows Tornado 6.2 to 6.6. The constructor raises what Tornado's does, and ValueError for a wrong setting of the
    application, see `check_settings`.
    """

    def initialize(self, request_callback: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(request_callback, Application):
            check_settings(request_callback)
        super().initialize(request_callback, *args, **kwargs)

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Begin with a new connection; called by `.TCPServer`.

        :param stream: the connection; one with TLS goes Tornado's way.
        :param address: the peer's address as ``accept`` gives it.
        """
        # One of another class may have methods for reading of its own.
        if type(stream) is not IOStream:
            super().handle_stream(stream, address)
            return
        context = httpserver._HTTPRequestContext(stream, address, self.protocol, self.trusted_downstream)
        connection = _ServerConnection(self, stream, self.conn_params, context)
        self._connections.add(connection)
        connection.begin()


class _ServerConnection(HTTP1ServerConnection):
    """A connection whose first request may go the shorter way. After that it is one of Tornado's."""

    #: What is left of the first request when `start_serving` is called.
    _first: Coroutine[Any, Any, bool] | None = None
    #: The first request until it is known whether its handler takes the stream.
    _answering: Any = None
    #: Since when the first byte is waited for, in the loop's time; None if it was there.
    _began: float | None = None
    _is_waiting = _is_over = False
    _timeout: object | None = None

    def __init__(
        self,
        server: HTTPServerConnectionDelegate,
        stream: IOStream,
        params: HTTP1ConnectionParameters,
        context: object,
    ) -> None:
        super().__init__(stream, params, context)
        self._server = server
        self._loop: asyncio.AbstractEventLoop = stream.io_loop.asyncio_loop  # type: ignore[attr-defined]

    # Before there is a request

    def begin(self) -> None:
        # Tornado begins in the next turn of the loop too. Until then the request has come, mostly.
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Take what has arrived; wait for it where nothing has."""
        if self._serving_future is not None:
            return
        if is_used(self.stream):
            # A server has used it before, to read what a proxy puts in front of the request for example.
            self._serve()
            return
        data = None if self.stream.closed() else self._receive()
        if data is not None:
            self._take(data)
        elif self.stream.closed():
            self._serve()
        else:
            self._wait()

    def _receive(self) -> bytes | None:
        try:
            return self.stream.socket.recv(min(_FIRST_READ, self.stream.read_chunk_size))
        except BlockingIOError:
            return None
        except OSError as error:
            # The kernel says it once.
            self.stream.close(exc_info=error.with_traceback(None))
            return None

    def _wait(self) -> None:
        io_loop = self.stream.io_loop
        try:
            io_loop.add_handler(self.stream.socket, self._on_events, IOLoop.READ)
        except OSError as error:
            # The kernel has no room to watch it. Nobody else would close it.
            gen_log.error("Connection from %s closed: cannot watch its socket: %s", self.context, error)
            self.stream.close(exc_info=error.with_traceback(None))
            self._serve()
            return
        watch_as(self.stream, self._on_close)
        self._is_waiting = True
        self._began = self._loop.time()
        if self.params.header_timeout is not None:
            self._timeout = io_loop.call_later(self.params.header_timeout, self._on_timeout)

    def _stop_waiting(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            tell_of_end(self.stream, None)
            stop_watching(self.stream)
        if self._timeout is not None:
            self.stream.io_loop.remove_timeout(self._timeout)
            self._timeout = None

    def _on_timeout(self) -> None:
        self._stop_waiting()
        self.stream.close()
        self._serve()

    def _on_close(self) -> None:
        if self._is_waiting:
            self._stop_waiting()
            self._serve()

    def _on_events(self, fd: object, events: int) -> None:
        self._stop_waiting()
        # Nothing is there after all, or no more: that is Tornado's to find out.
        self._take(self._receive() or b"")

    # A request

    def _take(self, data: bytes) -> None:
        request = parse_upgrade_request(data, self.params.max_header_size)
        give_back(self.stream, data if request is None else data[request[2] :])
        if request is None:
            self._serve(self._read_first() if self._began is not None else None)
            return
        start_line, headers, _ = request
        http: Any = HTTP1Connection(self.stream, False, self.params, self.context)
        # What follows is what `HTTP1Connection.read_response` does with a request that has no body.
        delegate: HTTPMessageDelegate | None = None
        received: Awaitable[None] | None = None
        is_finished = False
        try:
            delegate = self._server.start_request(self, http)
            http._request_start_line = start_line
            http._request_headers = headers
            http._disconnect_on_finish = not http._can_keep_alive(start_line, headers)
            received = delegate.headers_received(start_line, headers)
            if received is None and http.stream is not None and not http._write_finished:
                http._read_finished = True
                delegate.finish()
                is_finished = True
        except (Exception, asyncio.CancelledError) as error:
            self._serve(_fail(http, delegate, error))
            return
        if not is_finished:
            self._serve(_receive_headers(http, delegate, received))
        elif _watch(http):
            self._answering = http
            # Behind the first step of the handler's task, in which it accepts the handshake.
            self._loop.call_soon(self._look_after)
        else:
            self._serve(_await_answer(http, False))

    def _look_after(self) -> None:
        """End if the handler has taken the stream; otherwise go on as Tornado does."""
        http, self._answering = self._answering, None
        if http is None:
            return
        if http.stream is None:
            self._is_over = True
            self._server.on_close(self)
        else:
            self._serve(_await_answer(http, True))

    async def _read_first(self) -> bool:
        """Read the first request as Tornado does, in the time that is left for it."""
        params = self.params
        timeout: float | None = params.header_timeout
        if timeout is not None and self._began is not None:
            params = copy.copy(params)
            waited = self._loop.time() - self._began
            params.header_timeout = timeout - waited
        http = HTTP1Connection(self.stream, False, params, self.context)
        return await http.read_response(self._server.start_request(self, http))

    # From the first request on

    def _serve(self, first: Coroutine[Any, Any, bool] | None = None) -> None:
        """Go on in a task, as Tornado does from the beginning; ``first`` is what is left of the first request."""
        self._first = first
        self.start_serving(self._server)

    async def _server_request_loop(self, delegate: HTTPServerConnectionDelegate) -> None:
        first, self._first = self._first, None
        if first is None or await self._finish_first(first, delegate):
            await super()._server_request_loop(delegate)

    async def _finish_first(self, first: Coroutine[Any, Any, bool], delegate: HTTPServerConnectionDelegate) -> bool:
        goes_on = False
        try:
            goes_on = await first
        except (StreamClosedError, UnsatisfiableReadError, asyncio.CancelledError):
            pass
        except Exception as error:
            # Tornado 6.2 lets it come to here.
            if not isinstance(error, _QuietException):
                gen_log.error("Uncaught exception", exc_info=True)
            self.stream.close()
        finally:
            if not goes_on:
                delegate.on_close(self)
        return goes_on

    async def close(self) -> None:
        self._stop_waiting()
        self.stream.close()
        self._look_after()
        if self._serving_future is None and not self._is_over:
            self._serve()
        if self._serving_future is not None:
            await super().close()


async def _fail(http: HTTP1Connection, delegate: HTTPMessageDelegate | None, error: BaseException) -> bool:
    """End a request for which ``delegate`` has raised ``error``."""
    if delegate is None:
        raise error
    try:
        try:
            # It logs all but an HTTPInputError, from Tornado 6.5 on.
            with _ExceptionLoggingContext(app_log):
                raise error
        except HTTPInputError:
            gen_log.info("Malformed HTTP message from %s: %s", http.context, error)
            if http.stream is not None:
                await http.stream.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        except _QuietException:
            pass
        http.close()
    finally:
        if _TELLS_OF_FAILED_FINISH or not http._read_finished:
            with _ExceptionLoggingContext(app_log):
                delegate.on_connection_close()
        http._clear_callbacks()
    return False


async def _receive_headers(http: Any, delegate: HTTPMessageDelegate, received: Awaitable[None] | None) -> bool:
    """Go on with a request whose headers ``delegate`` has got: it is busy with them, or has answered already."""
    try:
        if received is not None:
            await received
        if http.stream is None:
            return False
        http._read_finished = True
        is_answered = http._write_finished
        if not is_answered:
            delegate.finish()
    except (Exception, asyncio.CancelledError) as error:
        return await _fail(http, delegate, error)
    return await _await_answer(http, _watch(http), delegate if is_answered else None)


def _watch(http: Any) -> bool:
    """Have ``http`` told of the end of the connection while there is an answer to wait for; return whether there is."""
    if http._finish_future.done() or http.stream is None or http.stream.closed():
        return False
    # Who closes the stream itself is heard of from here on. The socket is watched when that pays.
    tell_of_end(http.stream, http._on_connection_close)
    return True


async def _await_answer(http: Any, is_watched: bool, unfinished: HTTPMessageDelegate | None = None) -> bool:
    """Wait for the answer to a request that was read; return whether there may be another request.

    ``is_watched`` is what `_watch` has returned, ``unfinished`` a delegate whose ``finish`` was not called.
    """
    try:
        if is_watched:
            if http.stream is not None:
                watch_for_end(http.stream)
            await http._finish_future
        return http.stream is not None
    finally:
        if unfinished is not None:
            with _ExceptionLoggingContext(app_log):
                unfinished.on_connection_close()
        http._clear_callbacks()
