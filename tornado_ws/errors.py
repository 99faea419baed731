"""What can go wrong, as exceptions that say who did it and what it means on the wire.

`ProtocolError` is raised where a violation by the peer is seen and turned into a close frame in one place, the
connection. The others reach the application.
"""

from __future__ import annotations

from tornado.httpclient import HTTPError, HTTPResponse
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError

from tornado_ws.escaping import plain


class WebSocketError(Exception):
    """Base class of the errors of this package, as in Tornado."""


class WebSocketClosedError(WebSocketError):
    """Operations on a closed connection raise this (Tornado 3.2).

    ``close_code`` (int) and ``close_reason`` (str) tell how it ended where that is known, else they are None.
    """

    def __init__(self, *args: object, close_code: int | None = None, close_reason: str | None = None) -> None:
        super().__init__(*args)
        self.close_code = close_code
        self.close_reason = close_reason


class WriteLimitError(WebSocketError):
    """``write_message`` raises this when ``write_limit`` bytes wait already, under the policy "raise".

    The message is not sent; the connection is open, and takes messages again when the peer has read some.
    """


class BrokerError(WebSocketError):
    """The broker of topics is away, or refuses what it was asked for: the text says what it said."""


class PublishError(BrokerError):
    """A message of a topic was not published, or nobody knows whether it was: the text says why, and which.

    ``is_unknown`` (bool) tells whether the broker may have it.
    """

    def __init__(self, why: str, is_unknown: bool = False) -> None:
        super().__init__(why)
        self.is_unknown = is_unknown


class TopicNameError(WebSocketError, ValueError):
    """A topic's name is not allowed: the text, which may be shown to a client, says what it has and what may be."""


class SubscriptionLimitError(WebSocketError, ValueError):
    """A connection has as many subscriptions as it may have (``max_subscriptions`` of `Topics`); it stays as it is.

    ``subscriptions`` and ``limit`` (int) say how many it has, and may have.
    """

    def __init__(self, subscriptions: int, limit: int) -> None:
        super().__init__(f"connection has {subscriptions} subscriptions; allowed are {limit}")
        self.subscriptions = subscriptions
        self.limit = limit


class TopicGapError(WebSocketError):
    """Messages of a topic that somebody listens to were lost, or were more than may wait for who listens."""


class ProtocolError(WebSocketError):
    """The peer broke RFC 6455 or RFC 7692, or went over a limit of ours.

    ``close_code`` is the status code (RFC 6455 section 7.4.1) to fail the connection with and ``reason`` says what
    was wrong, in at most 123 bytes of UTF-8. ``detail`` is for our own log, which may say more.
    """

    def __init__(self, close_code: int, reason: str, detail: str | None = None) -> None:
        super().__init__(close_code, reason, detail)
        self.close_code = close_code
        self.reason = reason
        self.detail = detail or reason

    def __str__(self) -> str:
        return self.detail


class ProxyError(WebSocketError, OSError):
    """A proxy cannot be reached, or does not connect to the server: the text says which one, and what it said.

    ``proxy`` is its URL (str) without user and password, ``reason`` what was wrong, and ``status`` (int) its HTTP
    status code or the code of its SOCKS reply, None where it sent none.
    """

    def __init__(self, proxy: str, reason: str, status: int | None = None) -> None:
        super().__init__(f"proxy {proxy} {plain(reason)}")
        self.proxy = proxy
        self.reason = reason
        self.status = status


class HandshakeError(WebSocketError):
    """The opening handshake of a client failed on the server's answer (RFC 6455 section 4.1).

    ``status`` is the HTTP status code (int), ``headers`` the `.HTTPHeaders` of the answer and ``reason`` a text that
    says what was wrong with it.
    """

    def __init__(self, status: int, headers: HTTPHeaders, reason: str) -> None:
        # Not super(): subclasses have a second base class that takes other arguments.
        Exception.__init__(self, plain(reason))
        self.status = status
        self.headers = headers
        self.reason = reason

    def __str__(self) -> str:
        return f"HTTP {self.status}: {plain(self.reason)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class HandshakeRejectedError(HandshakeError, HTTPError):
    """The server answered with an HTTP error status.

    Tornado raises an `.HTTPError` here, so this is one: ``code``, ``message`` (the reason, escaped and cut) and
    ``response`` are set.
    """

    def __init__(self, response: HTTPResponse) -> None:
        HandshakeError.__init__(self, response.code, response.headers, str(response.reason))
        HTTPError.__init__(self, response.code, plain(response.reason), response)


class RedirectError(HandshakeRejectedError):
    """A client that follows redirects was sent where it does not go; the text says where and why not.

    ``status``, ``headers`` and ``response`` are those of the answer that sent it there, ``location`` (str) its header.
    """

    def __init__(self, response: HTTPResponse, reason: str) -> None:
        super().__init__(response)
        self.reason = reason
        self.location = response.headers.get("Location", "")


class InvalidHandshakeError(HandshakeError, StreamClosedError):
    """The server answered 101, but with headers that RFC 6455 or RFC 7692 forbids.

    Tornado's callers see a `.StreamClosedError` here, so this is one.
    """

    def __init__(self, status: int, headers: HTTPHeaders, reason: str) -> None:
        StreamClosedError.__init__(self)
        HandshakeError.__init__(self, status, headers, reason)
