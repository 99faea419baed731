"""Headers of a request: what is malformed is refused in our words, and what we agree to is what was offered."""

from __future__ import annotations

from tornado.httputil import HTTPHeaders

from tornado_ws.deflate.negotiation import accept_deflate_offer, check_extensions_response, encode_deflate_params
from tornado_ws.handshake import (
    BadRequest,
    check_request,
    compute_accept_value,
    has_token,
    list_tokens,
    parse_extensions,
)


def check(data: bytes) -> None:
    """Each line is a header in turn: Sec-WebSocket-Extensions, Sec-WebSocket-Key, Connection, Host."""
    extensions, key, connection, host, *_ = [*data.decode("latin1").split("\n"), "", "", "", ""]
    try:
        parsed = parse_extensions(extensions)
    except ValueError as error:
        assert "malformed" in str(error)
        assert accept_deflate_offer(extensions) is None
    else:
        written = ", ".join(
            "; ".join([name, *(key if value is None else f"{key}={value}" for key, value in parameters)])
            for name, parameters in parsed
        )
        assert parse_extensions(written) == parsed
        agreed = accept_deflate_offer(extensions)
        assert agreed == accept_deflate_offer(written)
        if agreed is not None:
            assert check_extensions_response(encode_deflate_params(agreed), offered=True) == agreed
    headers = HTTPHeaders()
    for name, value in (("Sec-WebSocket-Key", key), ("Connection", connection), ("Host", host)):
        headers[name] = value
    try:
        check_request("GET", "HTTP/1.1", headers)
    except BadRequest as error:
        assert error.status == 400
    else:
        assert len(key) == 24
        assert len(compute_accept_value(key)) == 28
    assert all(has_token(headers, "Connection", token.lower()) for token in list_tokens(connection))
