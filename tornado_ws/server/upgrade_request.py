"""Which bytes are one whole request for an upgrade to WebSocket, with nothing about it that has to be thought over."""

from __future__ import annotations

import re

from tornado.httputil import HTTPHeaders, RequestStartLine

#: Less than all that RFC 9112 allows: no obs-fold, no obs-text, no bare LF, no other version than HTTP/1.1. All of it
#: means the same in each version of Tornado.
_REQUEST = re.compile(
    rb"GET ([!-~]+) HTTP/1\.1\r\n"
    rb"(?=(?:[^\n]+\n)*?(?i:upgrade):[\t ]*(?i:websocket)[\t ]*\r\n)"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~]*\r\n)+)\r\n"
)
#: Fields by which HTTP does something else than to hand the request to the application.
_SPECIAL = re.compile(rb"\r\n(?i:content-length|content-encoding|transfer-encoding|expect):")


def parse_upgrade_request(data: bytes, max_size: int) -> tuple[RequestStartLine, HTTPHeaders, int] | None:
    """Return the start line, the headers and the size of the request that ``data`` begins with.

    None is returned for any other request, for a part of one, and for one of more than ``max_size`` bytes.
    """
    match = _REQUEST.match(data)
    if match is None or match.end() > max_size or _SPECIAL.search(data, 0, match.end()) is not None:
        return None
    path, fields = match.groups()
    lines = fields.decode("ascii").split("\r\n")
    lines.pop()
    headers = HTTPHeaders()
    for line in lines:
        name, _, value = line.partition(":")
        headers[name] = value.strip("\t ")
    if len(headers) != len(lines):
        # A field that is repeated.
        headers = HTTPHeaders.parse(fields.decode("ascii"))
    return RequestStartLine("GET", path.decode("ascii"), "HTTP/1.1"), headers, match.end()
