"""URLs: what logs show has no user, password, query or fragment, and the request for it is as RFC 3986 wants it."""

from __future__ import annotations

from urllib.parse import urlsplit

from tornado.httpclient import HTTPRequest

from tornado_ws.client.request import websocket_request
from tornado_ws.escaping import without_password


def check(data: bytes) -> None:
    """``data`` is the URL, and what stands behind the scheme of another one."""
    text = data.decode("utf-8", "replace")
    shown = without_password(text)
    assert not set("@?#") & set(shown), shown
    assert without_password(shown) == shown
    for url in (text, f"wss://{text}"):
        _check_request(url)


def _check_request(url: str) -> None:
    given = HTTPRequest(url)
    try:
        request = websocket_request(given)
    except ValueError as error:
        assert str(error).isprintable(), error
        return
    assert given.url == url
    sent: str = request.url
    assert sent.isascii(), sent
    assert sent.isprintable(), sent
    assert not set(' <>"\\^`{|}#') & set(sent), sent
    parts = urlsplit(sent)
    assert parts.scheme in ("http", "https"), sent
    assert parts.hostname, sent
    assert "@" not in parts.netloc, sent
    assert parts.port is None or 0 <= parts.port < 65536, sent
    assert (request.auth_username is not None) == bool(urlsplit(url).netloc.rpartition("@")[0]), sent
    again: str = websocket_request(HTTPRequest(sent.replace("http", "ws", 1))).url
    assert again == sent, (again, sent)
