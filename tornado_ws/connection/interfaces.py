"""Interfaces between an endpoint (a handler or a client connection) and its protocol, under Tornado's names."""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from tornado import gen, httputil
from tornado.concurrent import Future
from tornado.iostream import IOStream
from tornado.web import Application, RequestHandler

from tornado_ws.coroutines import log_error, run_to_end
from tornado_ws.engine.encoding import Sendable
from tornado_ws.observing.latency import UNKNOWN, Latency
from tornado_ws.options import DEFAULT_OPTIONS, Options, checked_message_size, checked_seconds

if TYPE_CHECKING:
    from tornado_ws.engine.contract import Tap
    from tornado_ws.observing.counters import Counters

DEFAULT_MAX_MESSAGE_SIZE = 10 * 1024 * 1024


class WebSocketDelegate(Protocol):
    """What a protocol calls: `WebSocketHandler` on the server side, `WebSocketClientConnection` on the client side."""

    def on_ws_connection_close(
        self, close_code: int | None = None, close_reason: str | None = None
    ) -> Awaitable[None] | None: ...

    def on_message(self, message: str | bytes) -> Awaitable[None] | None: ...

    def on_ping(self, data: bytes) -> None: ...

    def on_pong(self, data: bytes) -> None: ...

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class ServerEnd(WebSocketDelegate, Protocol):
    """What a protocol asks of `WebSocketHandler` beside: the request, the answer to it, and ``open``."""

    application: Application
    request: httputil.HTTPServerRequest
    open_args: tuple[Any, ...]
    open_kwargs: dict[str, Any]
    open: Callable[..., Awaitable[None] | None]
    #: Whether ``open`` is to be called, or was.
    _ws_opened: bool

    def select_subprotocol(self, subprotocols: list[str]) -> str | None: ...

    def set_status(self, status_code: int, reason: str | None = None) -> None: ...

    def set_header(self, name: str, value: str) -> None: ...

    def clear_header(self, name: str) -> None: ...

    def finish(self, chunk: str | None = None) -> Future[None]: ...

    def _detach_stream(self) -> IOStream: ...

    def _ws_let_go(self) -> None:
        """There will be no open connection."""


class Turn:
    """The time that an application has with a message which it reads, and is not given: from then until it reads on.

    In the place of the Future of a coroutine ``on_message``.
    """

    __slots__ = ()

    #: Whether it has begun and not ended.
    is_open: bool

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call ``callback`` when the turn ends."""
        raise NotImplementedError

    def hurry(self) -> None:
        """Let the turn end soon: the connection has an end to handle."""
        raise NotImplementedError

    def end_turn(self) -> None:
        """Let the connection deliver what comes next."""
        raise NotImplementedError


class Observed(Protocol):
    """What an `Observation` asks of an open connection."""

    @property
    def counters(self) -> Counters: ...

    @property
    def selected_subprotocol(self) -> str | None: ...


class Observation(Protocol):
    """What is told of one opening handshake, and of the connection that comes of it. It raises nothing."""

    def run(self, coroutine: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """Run the handling of the request, which a server is about to begin."""

    def failed(self, error: BaseException) -> None:
        """``error`` has ended the handshake, or was raised by a callback of the open connection."""

    def answered(self, status: int | None) -> None:
        """The handshake is over, with this status; None without an answer. The first call counts."""

    def opened(self, connection: Observed) -> Tap | None:
        """The connection begins; called in the context of its callbacks. Returns what is to be shown its bytes."""

    def closed(self, code: int | None, reason: str | None) -> None:
        """``on_close`` is about to be called with these."""


class Observer(Protocol):
    """Who is told of all opening handshakes of the process while it is `observer`."""

    def accepting(self, handler: RequestHandler) -> Observation:
        """A server has a request; its handler has not begun."""

    def connecting(self, request: Any) -> Observation:
        """A client is about to send ``request``, an `.HTTPRequest` with headers of its own: more may be set."""


#: Set by `tornado_ws.opentelemetry`.
observer: Observer | None = None


class WebSocketParams:
    """Settings of one connection, under Tornado's names: seconds and bytes. ``options`` is all that is ours.

    Raises ValueError for a setting that is no number, and for a ``max_message_size`` below 0.
    """

    __slots__ = ("compression_options", "max_message_size", "options", "ping_interval", "ping_timeout")

    def __init__(
        self,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
        max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE,
        compression_options: dict[str, Any] | None = None,
        options: Options = DEFAULT_OPTIONS,
    ) -> None:
        self.ping_interval = None if ping_interval is None else checked_seconds("ping_interval", ping_interval)
        self.ping_timeout = None if ping_timeout is None else checked_seconds("ping_timeout", ping_timeout)
        self.max_message_size = checked_message_size("max_message_size", max_message_size)
        self.compression_options = compression_options
        self.options = options


class WebSocketProtocol(abc.ABC):
    """Base class for WebSocket protocol versions."""

    #: What ``on_close`` and the callbacks around it have returned and what still runs.
    _endings: tuple[asyncio.Future[Any], ...] = ()
    _observation: Observation | None = None
    client_terminated: bool = False
    server_terminated: bool = False

    def __init__(self, handler: WebSocketDelegate) -> None:
        self.handler = handler
        self.stream: IOStream | None = None

    def _run_callback(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call into the application; an exception is logged and aborts the connection.

        Returns None when the callback is done, else something with ``add_done_callback``.
        """
        try:
            result = callback(*args, **kwargs)
        except (Exception, asyncio.CancelledError) as error:
            self._log_and_abort(error)
            return None
        return self._check_result(result)

    def _check_result(self, result: Any) -> Any:
        """Return what is still busy, of what a callback has returned."""
        if result is None or isinstance(result, Turn):
            return result
        try:
            return self._begin_result(result)
        except (Exception, asyncio.CancelledError) as error:
            self._log_and_abort(error)
        return None

    def _begin_result(self, result: Any) -> Any:
        """Let a coroutine begin; return what is still busy. Raises what it raises."""
        future: Any = gen.convert_yielded(result)
        if isinstance(future, concurrent.futures.Future):
            # It tells of its end in the thread that has ended it.
            future = asyncio.wrap_future(future)
        if not future.done():
            return future
        future.result()
        return None

    def _run_to_end(self, hook: str, result: Any) -> asyncio.Future[Any] | None:
        """Run what ``on_close`` or a callback around it has returned; the end of the connection waits for it."""
        ending = run_to_end(self.handler, hook, result)
        if ending is not None:
            self._endings += (ending,)
            ending.add_done_callback(self._on_ending_done)
        return ending

    def _on_ending_done(self, ending: asyncio.Future[Any]) -> None:
        self._endings = tuple(other for other in self._endings if other is not ending)

    def _log_and_abort(self, error: BaseException) -> None:
        if self._observation is not None:
            self._observation.failed(error)
        log_error(self.handler, error)
        self._abort()

    def on_connection_close(self) -> None:
        self._abort()

    def _abort(self) -> None:
        """Close the socket at once, without a closing handshake."""
        self.client_terminated = True
        self.server_terminated = True
        if self.stream is not None:
            self.stream.close()
        self.close()

    @abc.abstractmethod
    def close(self, code: int | None = None, reason: str | None = None) -> None: ...

    @abc.abstractmethod
    def is_closing(self) -> bool: ...

    @abc.abstractmethod
    # Any: those that override it name a WebSocketHandler, which a floor below the server's cannot.
    def accept_connection(self, handler: Any) -> Awaitable[None]: ...

    # What Tornado's does not have: a protocol of others counts nothing.

    @property
    def connection_id(self) -> int:
        """This is a number that no other connection of the process has, for the log; 0 where there is none."""
        return 0

    @property
    def peer_name(self) -> str:
        """This is the address of the other end, for the log; a str."""
        return ""

    @property
    def counters(self) -> Counters:
        """This is what went over the connection so far: a `Counters`."""
        from tornado_ws.observing.counters import Counters

        return Counters()

    @property
    def latency(self) -> Latency:
        """This is the round trip from a ping of ours to its pong: a `Latency`, in seconds."""
        return UNKNOWN

    @property
    def buffered_amount(self) -> int:
        """This is how many bytes wait to be sent; 0 on a closed connection."""
        return 0

    def flush(self) -> None:
        """Give the operating system all that was written and waits for more."""
        raise NotImplementedError

    @abc.abstractmethod
    def write_message(self, message: Sendable, binary: bool = False, *, compress: bool = True) -> Future[None]: ...

    @property
    @abc.abstractmethod
    def selected_subprotocol(self) -> str | None: ...

    @abc.abstractmethod
    def write_ping(self, data: bytes) -> None: ...

    @abc.abstractmethod
    def _process_server_headers(self, key: str | bytes, headers: httputil.HTTPHeaders) -> None: ...

    @abc.abstractmethod
    def start_pinging(self) -> None: ...

    @abc.abstractmethod
    def _receive_frame_loop(self) -> Awaitable[None]: ...

    async def wait_closed(self) -> None:
        """Wait until the connection is closed and ``on_close`` has been called."""
        raise NotImplementedError

    @abc.abstractmethod
    def set_nodelay(self, x: bool) -> None: ...
