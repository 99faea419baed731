"""The opening handshake that a client sends for a URL (RFC 6455 sections 3 and 4.1), for Tornado's HTTP client."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit

from tornado.httpclient import _RequestProxy
from tornado.httputil import HTTPHeaders

from tornado_ws import handshake
from tornado_ws.deflate.negotiation import encode_deflate_offer
from tornado_ws.deflate.options import deflate_options
from tornado_ws.escaping import shown, without_password

_SCHEMES = {"ws": "http", "wss": "https"}

#: What RFC 3986 lets stand in a path and a query, and "[" and "]", which browsers send too.
_SAFE = "%/?:@!$&'()*+,;=[]~"

_HOST_AND_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::([0-9]*))?")
#: RFC 3986 section 3.2.2, and what may stand in an address with a zone (RFC 6874).
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[A-Za-z0-9._~%:-]+\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: An IPv6 address with a zone, behind "%25" (RFC 6874) or, as people write it, behind "%" alone.
_WITH_ZONE = re.compile(r"\[([^%]*)%(?:25(?=[^\]]))?(.*)\]")
_ZONE = re.compile(r"[\w.~:-]+", re.ASCII)


def websocket_request(given: Any) -> Any:
    """Return ``given`` (an `.HTTPRequest`, or Tornado's proxy of one) as it is to be sent; it stays as it is.

    The URL is http or https, has an ASCII host and no user. Raises ValueError, without the password, for what cannot
    be sent.
    """
    request = copy_of(given)
    request.follow_redirects = False
    # RFC 9110 section 10.1.1: not without a body.
    request.expect_100_continue = False
    _check_method(request)
    _set_url(request)
    if request.auth_username is not None and request.auth_mode not in (None, "basic"):
        # A challenge of digest is answered before this, by who can ask again.
        allowed = "'basic', None, or with websocket_connect 'digest'"
        raise ValueError(f"auth_mode is {shown(request.auth_mode)}; it has to be {allowed}")
    return request


def copy_of(given: Any) -> Any:
    """Return a request that is as ``given`` until something is set on it, with headers of its own."""
    request: Any = _RequestProxy(given, None)
    if isinstance(given, _RequestProxy):
        vars(request).update(vars(given))
    request.headers = HTTPHeaders(given.headers)
    return request


def take_user(request: Any) -> tuple[str | bytes, str | bytes] | None:
    """Return user and password of ``request``, and take them out of it and its URL. Raises ValueError for wrong ones.

    A URL that is wrong stays as it is.
    """
    name = shown(without_password(request.url))
    try:
        parts = urlsplit(request.url)
    except ValueError:
        return None
    user, _, host_and_port = parts.netloc.rpartition("@")
    if user:
        _set_user(request, user, name)
        request.url = urlunsplit(parts._replace(netloc=host_and_port))
    username, password = request.auth_username, request.auth_password
    request.auth_username = request.auth_password = None
    return None if username is None else (username, password or "")


def forget_proxy(request: Any) -> None:
    """Take the proxy out of ``request``: Tornado's client refuses what is ours to do."""
    for name in ("proxy_host", "proxy_port", "proxy_username", "proxy_password", "proxy_auth_mode"):
        setattr(request, name, None)


def add_handshake(
    request: Any, key: bytes, subprotocols: list[str] | None, compression_options: dict[str, Any] | None
) -> None:
    """Add the headers of the opening handshake to ``request``. Raises ValueError for a wrong compression option."""
    request.headers.update(
        {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key.decode(),
            "Sec-WebSocket-Version": handshake.VERSION,
        }
    )
    if subprotocols:
        request.headers["Sec-WebSocket-Protocol"] = ",".join(dict.fromkeys(subprotocols))
    if compression_options is not None:
        offer = encode_deflate_offer(deflate_options(compression_options))
        request.headers["Sec-WebSocket-Extensions"] = offer


def _check_method(request: Any) -> None:
    if request.method != "GET":
        raise ValueError(f"HTTPRequest has method {shown(request.method)}; a WebSocket is opened with GET")
    if request.body is not None or request.body_producer is not None:
        raise ValueError("HTTPRequest has a body; the request that opens a WebSocket has none")
    for name in ("Content-Length", "Transfer-Encoding"):
        if name in request.headers:
            raise ValueError(f"HTTPRequest has a {name} header; the request that opens a WebSocket has no body")


def _set_url(request: Any) -> None:
    url = request.url
    name = shown(without_password(url))
    scheme, colon, _ = url.partition(":")
    if scheme.lower() not in _SCHEMES:
        raise ValueError(f"URL has scheme {shown(scheme if colon else '')}; allowed are ws and wss: {name}")
    try:
        parts = urlsplit(url)
        path, query = _quoted(parts.path), _quoted(parts.query)
    except ValueError:
        # Its own words may hold the password.
        raise ValueError(f"URL is malformed: {name}") from None
    user, _, host_and_port = parts.netloc.rpartition("@")
    found = _HOST_AND_PORT.fullmatch(host_and_port)
    if not found:
        raise ValueError(f"URL has no host, or a port that is no number from 0 to 65535: {name}")
    host, port = found.groups()
    if port and not (len(port) < 6 and int(port) < 65536):
        raise ValueError(f"URL has port {shown(port)}; it has to be a number from 0 to 65535: {name}")
    host = _ascii(host, name)
    if zoned := _WITH_ZONE.fullmatch(host):
        address, zone = zoned.groups()
        if not _ZONE.fullmatch(zone):
            raise ValueError(f"URL has an IPv6 zone with a character that no interface's name has: {name}")
        host = f"[{address}%{zone}]"
        # RFC 6874 section 4: it means something on this machine only.
        if "Host" not in request.headers:
            request.headers["Host"] = f"[{address}]{':' + port if port else ''}"
    if user:
        _set_user(request, user, name)
    request.url = f"{_SCHEMES[scheme.lower()]}://{host}{':' + port if port else ''}{path}{'?' + query if query else ''}"


def _quoted(part: str) -> str:
    return quote(re.sub("%(?![0-9A-Fa-f]{2})", "%25", part), _SAFE)


def _ascii(host: str, name: str) -> str:
    """Return ``host`` with its labels as A-labels (RFC 5890), as Python's own name resolution makes them."""
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except ValueError:
            raise ValueError(f"URL has a host that is no domain name (IDNA): {name}") from None
    if not _HOST.fullmatch(host):
        raise ValueError(f"URL has a host with a character that RFC 3986 does not allow there: {name}")
    return host


def _set_user(request: Any, user: str, name: str) -> None:
    """Set what RFC 7617 makes an Authorization header of."""
    username, _, password = user.partition(":")
    request.auth_username, request.auth_password = _decoded(username), _decoded(password)
    if ":" in unquote_to_bytes(username).decode("latin-1"):
        raise ValueError(f"URL has a user with a colon, which Basic authentication cannot carry: {name}")
    if _CONTROL.search(unquote_to_bytes(user).decode("latin-1")):
        raise ValueError(f"URL has a user or a password with a control character: {name}")


def _decoded(part: str) -> str | bytes:
    raw = unquote_to_bytes(part)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
