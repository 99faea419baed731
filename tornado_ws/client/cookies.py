"""A cookie jar of the standard library, for opening handshakes: RFC 6265 has ws and http URLs share their cookies."""

from __future__ import annotations

from email.message import Message
from http.cookiejar import CookieJar
from typing import Any
from urllib.request import Request

from tornado.httputil import HTTPHeaders

from tornado_ws.escaping import shown


class _Answer:
    """What a jar asks of an answer."""

    def __init__(self, headers: HTTPHeaders) -> None:
        self._message = Message()
        for value in headers.get_list("Set-Cookie"):
            self._message["Set-Cookie"] = value

    def info(self) -> Message:
        return self._message


def checked_jar(cookies: Any) -> CookieJar:
    """Return ``cookies``. Raises ValueError unless it is a jar."""
    if not isinstance(cookies, CookieJar):
        raise ValueError(f"cookies is {shown(type(cookies).__name__)}; it has to be an http.cookiejar.CookieJar")
    return cookies


def cookie_header(jar: CookieJar, url: str, given: str) -> str:
    """Return the Cookie header for ``url``, an http or https one: ``given``, and behind it what ``jar`` has."""
    request = Request(url)
    jar.add_cookie_header(request)
    return "; ".join(filter(None, [given, request.get_header("Cookie")]))


def keep_cookies(jar: CookieJar, url: str, headers: HTTPHeaders) -> None:
    """Let ``jar`` keep what the answer with ``headers`` to a request for ``url`` sets, by its policy."""
    answer: Any = _Answer(headers)
    jar.extract_cookies(answer, Request(url))
