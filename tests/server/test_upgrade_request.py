"""Which requests go the shorter way: each as Tornado reads it, and none that HTTP has something else to do with."""

from __future__ import annotations

import os
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.http1connection import HTTP1Connection
from tornado.httputil import parse_request_start_line

from tests.server.sites import request
from tornado_ws.server.upgrade_request import parse_upgrade_request

LINES = [
    *(
        "X-Many: 1",
        "x-many:\t2 ",
        'Cookie: a=1; b="two"',
        "Host: other",
        "upgrade:websocket",
        "X-Folded: 1\r\n 2",
        "X-Name: \xe4",
    ),
    *("Content-Length: 1", "content-encoding: gzip", "Transfer-Encoding:chunked", "expect: 100-continue", "X-Empty:"),
]
#: What is written over a part of a request, or between two bytes of it.
PIECES = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\r\n ", b"\n\t", b":", b" ", b"\t", b'"', b"(", b" HTTP/1.1", b"GET "),
    *(b"\x00", b"\x0b", b"\x1c", b"\x7f", b"\x80", b"\x85", b"\xff"),
]
requests = st.lists(st.sampled_from(LINES), max_size=3).map(
    lambda lines: request(more="".join(f"{line}\r\n" for line in lines))
)
changes = st.lists(
    st.tuples(st.integers(0), st.sampled_from(PIECES) | st.binary(max_size=2), st.integers(0, 2)), max_size=4
)


@settings(derandomize="CI" in os.environ)
@given(requests, changes, st.binary(max_size=9))
def test_a_request_that_is_taken_is_the_one_that_tornado_reads(
    sent: bytes, changes: list[tuple[int, bytes, int]], behind: bytes
) -> None:
    for at, piece, over in changes:
        at %= len(sent)
        sent = sent[:at] + piece + sent[at + over :]
    taken = parse_upgrade_request(sent + behind, 65536)
    if taken is None:
        return
    start_line, headers, size = taken
    end = re.search(rb"\r?\n\r?\n", sent + behind)
    assert end is not None
    assert end.end() == size
    reader: Any = HTTP1Connection._parse_headers
    first, read = reader(None, (sent + behind)[:size])
    assert start_line == parse_request_start_line(first)
    assert list(headers.get_all()) == list(read.get_all())
    assert dict(headers) == dict(read)
    assert not {"Content-Length", "Content-Encoding", "Transfer-Encoding", "Expect"} & {*read}
