"""Headers of a server's 101: taken only where each is right, and refused with a ValueError otherwise."""

from __future__ import annotations

from tornado.httputil import HTTPHeaders, HTTPInputError

from tornado_ws.deflate.negotiation import check_extensions_response
from tornado_ws.handshake import check_response, check_selected_subprotocol, compute_accept_value

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_OFFERED = ["chat", "superchat"]


def check(data: bytes) -> None:
    """``data`` is the block of headers; the key is that of RFC 6455 section 1.3."""
    try:
        headers = HTTPHeaders.parse(data.decode("latin1"))
    except (HTTPInputError, ValueError):
        return
    try:
        check_response(headers, _KEY)
        check_extensions_response(headers.get("Sec-WebSocket-Extensions", ""), offered=False)
        subprotocol = check_selected_subprotocol(headers, _OFFERED)
    except ValueError as error:
        assert str(error)
        return
    assert headers["Upgrade"].strip().lower() == "websocket"
    assert "upgrade" in headers["Connection"].lower()
    assert headers["Sec-WebSocket-Accept"].strip() == compute_accept_value(_KEY)
    assert not headers.get("Sec-WebSocket-Extensions", "").strip(" \t,")
    assert subprotocol in (None, *_OFFERED)
