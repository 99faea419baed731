"""The opening handshake (RFC 6455 section 4) as pure functions over headers, for both sides.

What the server finds wrong with a request is a `BadRequest` with the HTTP status to answer; what the client finds
wrong with an answer is a ValueError with the reason.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TypeAlias

from tornado.httputil import HTTPHeaders

from tornado_ws.escaping import plain, shown, shown_names

VERSION = "13"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: One extension of a header: its name and its parameters in order, None for a parameter without a value.
Extension: TypeAlias = tuple[str, list[tuple[str, str | None]]]


class BadRequest(ValueError):
    """A request that is not an opening handshake; ``status`` is the HTTP status to answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def list_tokens(header: str) -> list[str]:
    """Return the elements of a comma-separated header, without the empty ones (RFC 9110 section 5.6.1)."""
    if not header:
        return []
    return [token for token in (element.strip(" \t") for element in header.split(",")) if token]


def has_token(headers: HTTPHeaders, name: str, token: str) -> bool:
    """Whether the list in header ``name`` has ``token``, which is in lower case."""
    try:
        value = headers[name].lower()
    except KeyError:
        return False
    return value == token or token in list_tokens(value)


def compute_accept_value(key: str | bytes) -> str:
    """Return the Sec-WebSocket-Accept that belongs to a Sec-WebSocket-Key (section 4.2.2)."""
    encoded = key.encode() if isinstance(key, str) else key
    return base64.b64encode(hashlib.sha1(encoded + _GUID).digest()).decode()


def check_request(method: str | None, version: str, headers: HTTPHeaders) -> None:
    """Raise `BadRequest` unless this is an opening handshake (section 4.2.1).

    Upgrade, Connection and Sec-WebSocket-Version are not looked at here: the handler answers for those, each in
    Tornado's words.
    """
    if method != "GET":
        raise BadRequest(400, f"the opening handshake has to be a GET request, not {plain(method)}")
    if version == "HTTP/1.0":
        raise BadRequest(400, f"the opening handshake has to be HTTP/1.1 or later, not {plain(version)}")
    # `get` would be a second call for each.
    try:
        host = headers["Host"]
        key = headers["Sec-WebSocket-Key"]
    except KeyError:
        host, key = headers.get("Host", ""), ""
    if not host:
        raise BadRequest(400, "missing Host header")
    try:
        nonce = base64.b64decode(key, validate=True)
    except ValueError:
        nonce = b""
    if len(nonce) != 16:
        raise BadRequest(400, f"Sec-WebSocket-Key has to be 16 bytes in base64, not {shown(key)}")


def check_response(headers: HTTPHeaders, key: str | bytes) -> None:
    """Raise ValueError unless these headers of a 101 accept the handshake that sent ``key`` (section 4.1)."""
    if headers.get("Upgrade", "").strip().lower() != "websocket":
        raise ValueError(f"Upgrade header is {shown(headers.get('Upgrade'))}, not 'websocket'")
    if not has_token(headers, "Connection", "upgrade"):
        raise ValueError(f"Connection header is {shown(headers.get('Connection'))}, without 'Upgrade'")
    expected = compute_accept_value(key)
    accept = headers.get("Sec-WebSocket-Accept", "").strip()
    if accept != expected:
        raise ValueError(f"Sec-WebSocket-Accept is {shown(accept)}, not {expected!r}")


def check_selected_subprotocol(headers: HTTPHeaders, offered: list[str]) -> str | None:
    """Return the subprotocol that a server selected; raises ValueError for one that was not offered."""
    selected = headers.get("Sec-WebSocket-Protocol")
    if selected is not None and selected not in offered:
        raise ValueError(f"the server selected subprotocol {shown(selected)}; offered were {shown_names(offered)}")
    return selected


_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
#: Bytes of a Sec-WebSocket-Extensions header that are parsed. A browser's has 42; to parse 60 KB takes as long as to
#: handle thousands of messages.
MOST_OF_EXTENSIONS = 4096
_LEXEME = re.compile(rf'[ \t]*(?:(?P<token>{_TOKEN})|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<sign>[;,=])|$)')


def parse_extensions(header: str) -> list[Extension]:
    """Parse Sec-WebSocket-Extensions by the grammar of section 9.1; raises ValueError where it does not fit.

    Tornado's own parser of header parameters drops those without a value, which RFC 7692 needs.
    """
    extensions: list[Extension] = []
    parameters: list[tuple[str, str | None]] | None = None
    # What may stand next: a name, "=" and the value, or the ";" or "," behind them.
    expected = "name or ,"
    pos = 0
    while pos < len(header):
        lexeme = _LEXEME.match(header, pos)
        if lexeme is None:
            raise ValueError(f"malformed Sec-WebSocket-Extensions header {shown(header)}")
        pos = lexeme.end()
        token, quoted, sign = lexeme["token"], lexeme["quoted"], lexeme["sign"]
        if quoted is not None:
            token = re.sub(r"\\(.)", r"\1", quoted)
        if token is None and sign is None:
            break
        if sign == "," and expected in ("name or ,", "; or ,", "= ; or ,"):
            parameters = None
            expected = "name or ,"
        elif sign == ";" and expected in ("; or ,", "= ; or ,"):
            expected = "name"
        elif sign == "=" and expected == "= ; or ,":
            expected = "value"
        elif sign is None and expected == "value" and re.fullmatch(_TOKEN, token) and parameters:
            # Section 9.1: what is inside the quotes has to be a token too.
            parameters[-1] = (parameters[-1][0], token)
            expected = "; or ,"
        elif sign is None and quoted is None and expected == "name or ,":
            parameters = []
            extensions.append((token, parameters))
            expected = "; or ,"
        elif sign is None and quoted is None and expected == "name" and parameters is not None:
            parameters.append((token, None))
            expected = "= ; or ,"
        else:
            raise ValueError(f"malformed Sec-WebSocket-Extensions header {shown(header)}")
    if expected in ("name", "value"):
        raise ValueError(f"malformed Sec-WebSocket-Extensions header {shown(header)}")
    return extensions
