"""The spans: what servers and clients tell of a handshake and its connection, by the semantic conventions for HTTP."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Coroutine
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue
from tornado.routing import PathMatches, RuleRouter
from tornado.web import Finish, HTTPError, RequestHandler

from tornado_ws.connection.interfaces import Observed
from tornado_ws.escaping import plain, without_password
from tornado_ws.opentelemetry.instruments import Instruments
from tornado_ws.opentelemetry.message_events import MessageEvents

#: What RFC 9110 and RFC 5789 have; a client may name others without end.
_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
_SCHEMES = {"http": "ws", "https": "wss"}
_HTTP: dict[str, AttributeValue] = {"network.protocol.name": "http", "network.protocol.version": "1.1"}

#: The counters of a connection, as attributes of its span.
_COUNTED = ("messages_in", "messages_out", "message_bytes_in", "message_bytes_out", "wire_bytes_in", "wire_bytes_out")


class SpanObserver:
    """Begins an `_Observation` for each handshake."""

    def __init__(
        self, tracer: trace.Tracer, instruments: Instruments, connection_spans: bool, message_events: int
    ) -> None:
        self.tracer = tracer
        self.instruments = instruments
        self.connection_spans = connection_spans
        self.message_events = message_events

    def accepting(self, handler: RequestHandler) -> _Observation:
        request = handler.request
        method = request.method if request.method in _METHODS else "_OTHER"
        route = _route(handler.application.default_router, handler)
        host, port = _host_and_port(request.host, request.protocol)
        attributes = {
            **_HTTP,
            "http.request.method": method,
            "url.scheme": _SCHEMES.get(request.protocol, request.protocol),
            "url.path": request.path,
            "server.address": host,
            "server.port": port,
            "client.address": str(request.remote_ip),
        }
        name = "HTTP" if method == "_OTHER" else method
        metric_attributes: dict[str, AttributeValue] = {"websocket.role": "server"}
        if route is not None:
            name = f"{name} {route}"
            attributes["http.route"] = metric_attributes["http.route"] = route
        parent = propagate.extract(request.headers)
        span = self.tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        return _Observation(self, span, trace.set_span_in_context(span, parent), route or "", metric_attributes)

    def connecting(self, request: Any) -> _Observation:
        scheme, _, rest = without_password(request.url).partition("://")
        host, port = _host_and_port(rest.partition("/")[0], scheme)
        attributes = {
            **_HTTP,
            "http.request.method": request.method,
            "url.full": f"{_SCHEMES[scheme]}://{rest}",
            "server.address": host,
            "server.port": port,
        }
        span = self.tracer.start_span(request.method, None, SpanKind.CLIENT, attributes)
        inside = trace.set_span_in_context(span)
        propagate.inject(request.headers, inside)
        metric_attributes: dict[str, AttributeValue] = {"websocket.role": "client"}
        metric_attributes |= {"server.address": host, "server.port": port}
        return _Observation(self, span, inside, "", metric_attributes)


class _Observation:
    """One handshake and the connection that comes of it."""

    def __init__(
        self,
        observer: SpanObserver,
        span: trace.Span,
        inside: context.Context,
        route: str,
        metric_attributes: dict[str, AttributeValue],
    ) -> None:
        self._observer = observer
        self._span = span
        #: What runs within the span.
        self._inside = inside
        self._connection_span: trace.Span | None = None
        self._connection: Observed | None = None
        self._route = route
        self._metric_attributes = metric_attributes
        self._begun = time.perf_counter()
        self._is_answered = False
        self._error_type: str | None = None

    @property
    def _is_server(self) -> bool:
        return self._metric_attributes["websocket.role"] == "server"

    def run(self, coroutine: Coroutine[Any, Any, None]) -> Awaitable[None]:
        # The task takes over the context that it is made in.
        return contextvars.copy_context().run(self._run, coroutine)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> Awaitable[None]:
        context.attach(self._inside)
        return asyncio.ensure_future(coroutine)

    # The handshake

    def answered(self, status: int | None) -> None:
        if self._is_answered:
            return
        self._is_answered = True
        attributes = dict(self._metric_attributes)
        if status is not None:
            attributes["http.response.status_code"] = status
            self._span.set_attribute("http.response.status_code", status)
        error = self._handshake_error(status)
        if error is not None:
            attributes["error.type"] = error
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
        duration = self._observer.instruments.handshake_duration
        duration.record(time.perf_counter() - self._begun, attributes)
        self._begun = time.perf_counter()
        self._error_type = None

    def _handshake_error(self, status: int | None) -> str | None:
        """Return what ``error.type`` is, None where there is no error: that of a server is not what it refuses."""
        if status is not None and status >= (500 if self._is_server else 400):
            return str(status)
        if status is None and self._error_type is None:
            return "connection_closed"
        return None if self._is_server and status is not None else self._error_type

    def failed(self, error: BaseException) -> None:
        is_answer = isinstance(error, Finish) or (isinstance(error, HTTPError) and error.status_code < 500)
        if is_answer and not self._is_answered:
            return
        self._error_type = _name_of(type(error))
        span = self._connection_span if self._is_answered else self._span
        if span is not None:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, plain(error)))

    # The connection

    def opened(self, connection: Observed) -> MessageEvents | None:
        self._connection = connection
        observer = self._observer
        if not observer.connection_spans:
            context.attach(self._inside)
            return None
        name = f"WebSocket {self._route}".rstrip()
        attributes = dict(self._metric_attributes)
        if connection.selected_subprotocol is not None:
            attributes["websocket.subprotocol"] = connection.selected_subprotocol
        self._connection_span = observer.tracer.start_span(name, self._inside, SpanKind.INTERNAL, attributes)
        context.attach(trace.set_span_in_context(self._connection_span, self._inside))
        most = observer.message_events
        return MessageEvents(self._connection_span, most) if most else None

    def closed(self, code: int | None, reason: str | None) -> None:
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        attributes = dict(self._metric_attributes)
        if code is not None:
            attributes["websocket.close.code"] = _code_class(code)
        if self._error_type is not None:
            attributes["error.type"] = self._error_type
        duration = self._observer.instruments.connection_duration
        duration.record(time.perf_counter() - self._begun, attributes)
        span = self._connection_span
        if span is None:
            return
        if code is not None:
            span.set_attribute("websocket.close.code", code)
        if reason:
            span.set_attribute("websocket.close.reason", plain(reason))
        if self._error_type is not None:
            span.set_attribute("error.type", self._error_type)
        counters = connection.counters
        span.set_attributes({f"websocket.{name}": getattr(counters, name) for name in _COUNTED})
        span.end()


def _route(router: Any, handler: RequestHandler) -> str | None:
    """Return the pattern that has led to ``handler``, of which there are few; None where there is none."""
    for rule in router.rules if isinstance(router, RuleRouter) else ():
        if isinstance(rule.target, RuleRouter):
            found = _route(rule.target, handler)
            if found is not None:
                return found
        elif (
            rule.target is type(handler)
            and isinstance(rule.matcher, PathMatches)
            and rule.matcher.regex.match(handler.request.path)
        ):
            return rule.matcher.regex.pattern.removesuffix("$")
    return None


def _host_and_port(authority: str, scheme: str) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if colon and port.isascii() and port.isdigit() and len(port) <= 5:
        return host.strip("[]"), int(port)
    return authority.strip("[]"), 443 if scheme == "https" else 80


def _code_class(code: int) -> str:
    """Return a text of which there are few, whichever codes a peer chooses."""
    return str(code) if code < 3000 else f"{code // 1000}xxx"


def _name_of(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
