"""What `websocket_connect` takes beside an `.HTTPRequest`, put into a request and checked."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

from tornado import httpclient
from tornado.httputil import HTTPHeaders

from tornado_ws.client.connectors import SslOptions
from tornado_ws.client.redirects import Redirects
from tornado_ws.escaping import shown, without_password
from tornado_ws.options import OptionArguments, near_miss

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from tornado.netutil import Resolver

Headers: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]]"

#: RFC 9110 section 5.6.2 and 5.5.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

#: As Node's ws has it: a path, and behind ":" the path and query of the request.
_UNIX_URL = re.compile(r"ws\+unix:(?://)?(/[^/:?#][^:?#]*)(?::(/[^#]*)?)?(?:#.*)?", re.IGNORECASE | re.DOTALL)


class ConnectArguments(OptionArguments, total=False):
    """What `websocket_connect` takes that can be used for one connection after the other."""

    connect_timeout: float | None
    on_message_callback: Callable[[str | bytes | None], Any] | None
    compression_options: dict[str, Any] | None
    ping_interval: float | None
    ping_timeout: float | None
    max_message_size: int
    message_streams: bool
    subprotocols: list[str] | None
    resolver: Resolver | None
    headers: Headers | None
    user_agent_header: str | None
    cookies: CookieJar | None
    ssl_options: SslOptions | None
    server_hostname: str | None
    proxy_ssl_options: SslOptions | None
    unix: str | bytes | os.PathLike[str] | None
    source_address: tuple[str, int] | None
    follow_redirects: bool
    max_redirects: int


def check_names(function: str, options: Mapping[str, object]) -> None:
    """Raise TypeError for an option that ``function`` does not have, which names the one that it resembles."""
    for name in options:
        if name not in OptionArguments.__annotations__:
            meant = near_miss(name, {*ConnectArguments.__annotations__, "proxy", "sock"})
            hint = f"; did you mean {meant!r}?" if meant is not None else ""
            raise TypeError(f"{function}() got an unexpected argument {name!r}{hint}")


def make_request(url: str | httpclient.HTTPRequest, connect_timeout: float | None) -> Any:
    """Return the request for ``url``, with Tornado's defaults."""
    if isinstance(url, httpclient.HTTPRequest):
        assert connect_timeout is None, "connect_timeout belongs into the HTTPRequest"
        request = url
    else:
        request = httpclient.HTTPRequest(url, connect_timeout=connect_timeout)
    return httpclient._RequestProxy(request, httpclient.HTTPRequest._DEFAULTS)


def add_arguments(
    request: Any, headers: Headers | None, user_agent_header: str | None, ssl_options: SslOptions | None
) -> None:
    """Put the arguments into ``request``, not into that of the caller. Raises ValueError for wrong ones."""
    if headers is not None:
        merged = HTTPHeaders(request.headers)
        given = _checked_headers(headers)
        for name in given:
            merged.pop(name, None)
        for name, value in given.get_all():
            merged.add(name, value)
        request.headers = merged
    if user_agent_header is not None:
        request.user_agent = _checked_value("user_agent_header", user_agent_header)
    if ssl_options is not None:
        request.ssl_options = checked_ssl("ssl_options", ssl_options)


def take_unix_path(request: Any) -> str | None:
    """Return the path of a ``ws+unix`` URL, and let ``request`` ask for the rest of it; None for another URL.

    Raises ValueError for a wrong one.
    """
    url = request.url
    if url[:8].lower() != "ws+unix:":
        return None
    found = _UNIX_URL.fullmatch(url)
    if not found or "\0" in (path := unquote(found[1])):
        form = "ws+unix:///path/of/the/socket:/path/of/the/request?query"
        raise ValueError(f"URL is {shown(without_password(url))}; a Unix socket's has the form {form}")
    request.url = f"ws://localhost{found[2] or '/'}"
    return path


def checked_ssl(name: str, value: Any) -> SslOptions | None:
    """Return ``value``. Raises ValueError unless it is what Tornado takes as ``ssl_options``, or None."""
    if value is not None and not isinstance(value, dict | ssl.SSLContext):
        raise ValueError(f"{name} is {shown(value)}; it has to be an ssl.SSLContext or a dict, as in HTTPRequest")
    return value


def checked_redirects(follow_redirects: Any, max_redirects: Any) -> Redirects | None:
    """Return what follows redirects, None for nothing. Raises ValueError for wrong arguments."""
    if not isinstance(follow_redirects, bool):
        raise ValueError(f"follow_redirects is {shown(follow_redirects)}; it has to be True or False")
    if not isinstance(max_redirects, int) or isinstance(max_redirects, bool) or max_redirects < 1:
        raise ValueError(f"max_redirects is {shown(max_redirects)}; it has to be a whole number above 0")
    return Redirects(max_redirects) if follow_redirects else None


def _checked_headers(headers: Any) -> HTTPHeaders:
    try:
        if isinstance(headers, HTTPHeaders):
            pairs = list(headers.get_all())
        else:
            pairs = [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except (TypeError, ValueError):
        text = f"headers is {shown(type(headers).__name__)}; it has to be a mapping, or pairs of a name and a value"
        raise ValueError(text) from None
    checked = HTTPHeaders()
    for name, value in pairs:
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(f"headers has the name {shown(name)}; it has to be a token of RFC 9110, a str")
        checked.add(name, _checked_value(f"headers[{name!r}]", value))
    return checked


def _checked_value(name: str, value: Any) -> str:
    # Without the value, which may be secret.
    if not isinstance(value, str):
        raise ValueError(f"{name} is of type {shown(type(value).__name__)}; it has to be a str")
    if _CONTROL.search(value):
        raise ValueError(f"{name} has a line end or another control character")
    return value
