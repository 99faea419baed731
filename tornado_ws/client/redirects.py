"""Where a client goes that is told to go elsewhere (RFC 9110 section 15.4), and where it does not."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit, urlunsplit

from tornado.httpclient import HTTPResponse
from tornado.httputil import HTTPHeaders

from tornado_ws.errors import HandshakeRejectedError, RedirectError
from tornado_ws.escaping import shown, without_password

#: Multiple Choices and Not Modified name no one place to go to.
_STATUSES = (301, 302, 303, 307, 308)

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_PORTS = {"http": 80, "https": 443}

#: What is for one origin alone.
_PRIVATE = ("Authorization", "Cookie", "Host", "Proxy-Authorization")


class Redirects:
    """The redirects of one connect, and where it has been."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: list[tuple[str, str]] = []

    def next(self, url: str, error: HandshakeRejectedError) -> str | None:
        """Return the ws or wss URL to go on with after ``url``, which is http or https; None if it is no redirect.

        :raises RedirectError: for one that is not followed.
        """
        if error.status not in _STATUSES:
            return None
        assert error.response is not None
        return _location(url, error.response)

    def check(self, here: tuple[str, str], there: tuple[str, str], response: HTTPResponse) -> None:
        """Raise RedirectError if ``there`` was asked for already, or is one too many.

        Both are URLs, http or https, with the Cookie header that goes there: what comes back with another one is no
        loop.
        """
        self._seen.append(here)
        words = f"redirect to {shown(without_password(there[0]))}"
        if there in self._seen:
            back = len(self._seen) - self._seen.index(there)
            raise RedirectError(response, f"{words} is a loop: that was asked for {back} requests before")
        if len(self._seen) > self._most:
            raise RedirectError(response, f"{words} is one more than max_redirects, which is {self._most}")


def same_origin(url: str, other: str) -> bool:
    """Whether both URLs, http or https, have the same scheme, host and port."""
    return _origin(url) == _origin(other)


def without_private(headers: HTTPHeaders) -> HTTPHeaders:
    """Return ``headers`` without those that are for the origin that they were given for."""
    kept = HTTPHeaders(headers)
    for name in _PRIVATE:
        kept.pop(name, None)
    return kept


def _location(url: str, response: HTTPResponse) -> str:
    locations = set(response.headers.get_list("Location"))
    if len(locations) != 1:
        raise RedirectError(response, f"redirect with {len(locations)} Location headers; there has to be one")
    (location,) = locations
    words = f"redirect to {shown(without_password(location))}"
    try:
        parts = urlsplit(urljoin(url, location))
    except ValueError:
        raise RedirectError(response, f"{words}, which is no URL") from None
    if parts.scheme not in _SCHEMES:
        allowed = ", ".join(_SCHEMES)
        raise RedirectError(response, f"{words}, whose scheme is {shown(parts.scheme)}; allowed are {allowed}")
    scheme = _SCHEMES[parts.scheme]
    if scheme == "ws" and url.startswith("https:"):
        raise RedirectError(response, f"{words}, which is without TLS; from wss a client goes to wss or https only")
    # Without the user: it is the server's choice, not the caller's.
    return urlunsplit((scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]
