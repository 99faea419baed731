"""`HTTPServer` beside Tornado's own: what an application sees, and what a client gets, is the same over both."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import tornado_ws
from tests.conftest import Log
from tests.peer import frame
from tests.server.sites import (
    CLASSES,
    GOODBYE,
    LAST_REQUEST,
    Site,
    compare,
    everything,
    request,
    site_of,
)
from tests.support import until
from tests.wire import TEXT, Frame

WELCOME: dict[str, tuple[bytes, dict[str, Any]]] = {
    "plain": (request(), {}),
    "a repeated field": (request(more="X-Many: 1\r\nX-One: a\r\nx-many: 2\r\nX-MANY:  3 \r\n"), {}),
    "lower case": (request().replace(b"Upgrade: w", b"upgrade: w").replace(b"Sec-WebSocket-K", b"sec-websocket-k"), {}),
    "upper case": (request().replace(b"Upgrade: w", b"UPGRADE: W").replace(b"Host:", b"HOST:"), {}),
    "no space behind the colon": (request().replace(b": ", b":"), {}),
    "tabs": (request(more="X-Tab:\t a\tb \t\r\n"), {}),
    "an empty field": (request(more="X-Empty:\r\nX-Blank:  \r\n"), {}),
    "a field with a colon": (request(more="X-Time: 12:30:00\r\n"), {}),
    "upgrade to more than one": (request(Upgrade="h2c, websocket"), {}),
    "cookies": (request(Cookie='a=1; b="two"; c', more="Cookie: d=4\r\n"), {}),
    "arguments": (request("GET /?a=1&a=2&b=%C3%A4&c HTTP/1.1"), {}),
    "of a URL with a name": (request("GET /room/lobby?x HTTP/1.1"), {}),
    "without arguments": (request("GET /? HTTP/1.1"), {}),
    "the same origin": (request(Origin="http://localhost:1"), {}),
    "keep-alive": (request(Connection="keep-alive, Upgrade"), {}),
    "a subprotocol and extensions": (
        request(Sec_WebSocket_Protocol="a, b", Sec_WebSocket_Extensions="permessage-deflate"),
        {},
    ),
    "Content-Length: 0": (request(more="Content-Length: 0\r\n"), {}),
    "xheaders": (request(X_Real_Ip="1.2.3.4", X_Scheme="https"), {"xheaders": True}),
    "X-Forwarded-For": (
        request(X_Forwarded_For="9.9.9.9, 5.6.7.8, 1.1.1.1", X_Forwarded_Proto="http,https"),
        {"xheaders": True, "trusted_downstream": ["1.1.1.1"]},
    ),
    "xheaders that are not asked for": (request(X_Real_Ip="1.2.3.4"), {}),
    "a protocol": (request(), {"protocol": "https"}),
    "decompressed requests": (request(), {"decompress_request": True}),
    "limits": (request(), {"max_body_size": 7, "max_buffer_size": 100_000, "body_timeout": 3}),
    "an idle timeout": (request(), {"idle_connection_timeout": 9}),
}
#: Those that Tornado reads.
LONG_WAY = {"upgrade to more than one", "Content-Length: 0"}


@pytest.mark.gen_test
@pytest.mark.parametrize("name", WELCOME)
async def test_an_application_sees_the_same(name: str, http_log: Callable[[], list[str]]) -> None:
    sent, options = WELCOME[name]
    hello = frame(TEXT, b"hello", masked=True)
    answer, seen = await compare(
        lambda site: site.talk(sent + hello + GOODBYE), http_log, short=name not in LONG_WAY, **options
    )
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert answer.endswith(Frame(TEXT, b"hello").header(None, 5) + b"hello" + b"\x88\x02\x03\xe8")
    assert seen[0]["unread"] == len(hello + GOODBYE)
    assert seen[2:] == ["hello", ("close", 1000)]


@pytest.mark.gen_test
async def test_without_keep_alive_tornado_ends_the_connection(http_log: Callable[[], list[str]]) -> None:
    answer, _ = await compare(lambda site: site.talk(request()), http_log, short=True, no_keep_alive=True)
    assert b"\r\nConnection: close\r\n" in answer


REFUSED: dict[str, tuple[bytes, int]] = {
    "another origin": (request(Origin="http://elsewhere"), 403),
    "no key": (request(Sec_WebSocket_Key=None), 400),
    "a bad key": (request(Sec_WebSocket_Key="short"), 400),
    "no Connection": (request(Connection=None), 400),
    "a bad version": (request(Sec_WebSocket_Version="12"), 426),
    "nobody there": (request("GET /nowhere HTTP/1.1"), 404),
    "an absolute target": (request("GET http://localhost:1/ HTTP/1.1"), 404),
    "a handler of HTTP": (request("GET /plain HTTP/1.1"), 200),
    "a redirect": (request("GET /moved HTTP/1.1"), 302),
}
NOT_RECOGNISED: dict[str, tuple[bytes, int]] = {
    "GET": (LAST_REQUEST.replace(b"Connection: close\r\n", b""), 200),
    "upgrade to something else": (request(Upgrade="h2c"), 400),
    "upgrade to something longer": (request(Upgrade="websocket2"), 400),
    "no Upgrade": (request(Upgrade=None), 400),
    "POST": (request("POST / HTTP/1.1", more="Content-Length: 3\r\n") + b"abc", 405),
    "HEAD": (request("HEAD / HTTP/1.1"), 405),
    "a body": (request(more="Content-Length: 3\r\n") + b"abc", 101),
    "chunks": (request("POST /plain HTTP/1.1", more="Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n0\r\n\r\n", 200),
    "Expect": (request("GET /plain HTTP/1.1", more="Expect: 100-continue\r\n"), 100),
    "an empty line first": (b"\r\n" + request("GET /plain HTTP/1.1"), 200),
    "bare LF": (request("GET /plain HTTP/1.1").replace(b"\r\n", b"\n"), 200),
    "bytes above ASCII": (request("GET /plain HTTP/1.1", X_Name="\xe4"), 200),
}
#: What Tornado answers in the same way whatever follows.
REFUSED_FOR_GOOD: dict[str, tuple[bytes, bool]] = {
    "HTTP/1.0": (request("GET /plain HTTP/1.0"), False),
    "HTTP/1.2": (request("GET /plain HTTP/1.2", Connection="close"), False),
    "HTTP/2": (request("GET / HTTP/2.0"), False),
    "Connection: close": (request("GET /plain HTTP/1.1", Connection="close"), True),
    "a bad start line": (request("GET / / HTTP/1.1"), False),
    "no target": (request("GET HTTP/1.1"), False),
    "a control character": (request("GET /plain HTTP/1.1", Connection="close", X_Name="\x01"), False),
    "a bad name": (request("GET /plain HTTP/1.1", Connection="close", more="X Name: 1\r\n"), False),
    "no colon": (request("GET /plain HTTP/1.1", Connection="close", more="nonsense\r\n"), False),
    "a folded line": (request("GET /plain HTTP/1.1", Connection="close", more="X-Folded: a\r\n b\r\n"), False),
    "two hosts": (request("GET /plain HTTP/1.1", Connection="close", more="Host: other\r\n"), True),
    "no Host": (request("GET /plain HTTP/1.1", Connection="close", Host=None), True),
    "a bad Host": (request("GET /plain HTTP/1.1", Connection="close", Host="a b"), True),
    "garbage": (b"\x00\x01\x02\r\n\r\n", False),
    "two lengths": (request(more="Content-Length: 1\r\nContent-Length: 2\r\n"), False),
    "a length and chunks": (request(more="Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), False),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("name", [*REFUSED, *NOT_RECOGNISED])
async def test_a_client_gets_the_same_and_may_go_on(name: str, http_log: Callable[[], list[str]]) -> None:
    sent, status = {**REFUSED, **NOT_RECOGNISED}[name]
    end = GOODBYE if status == 101 else LAST_REQUEST
    answer, seen = await compare(lambda site: site.talk(sent + end), http_log, short=name in REFUSED)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert status == 101 or (answer.endswith(b"plain") and seen[-1]["uri"] == "/plain")


@pytest.mark.gen_test
@pytest.mark.parametrize("name", REFUSED_FOR_GOOD)
async def test_what_is_malformed_is_answered_as_tornado_does(name: str, http_log: Callable[[], list[str]]) -> None:
    sent, short = REFUSED_FOR_GOOD[name]
    await compare(lambda site: site.talk(sent), http_log, short=short)


@pytest.mark.gen_test
@pytest.mark.parametrize("size", [100, 1000, 5000, 9000, 70_000])
@pytest.mark.parametrize("limit", [None, 900, 6000])
async def test_large_headers(size: int, limit: int | None, http_log: Callable[[], list[str]]) -> None:
    sent = request(X_Large="x" * size) + GOODBYE
    answer, _ = await compare(lambda site: site.talk(sent), http_log, short=len(sent) < 8192, max_header_size=limit)
    assert bool(answer) is (size < (limit or 65536))


@pytest.mark.gen_test
async def test_the_limit_of_headers_is_the_same_to_the_byte(http_log: Callable[[], list[str]]) -> None:
    sent = request()
    for limit, accepted in ((len(sent), True), (len(sent) - 1, False)):
        answer, _ = await compare(lambda site: site.talk(sent + GOODBYE), http_log, short=True, max_header_size=limit)
        assert bool(answer) is accepted


@pytest.mark.gen_test
async def test_small_chunks_are_read(http_log: Callable[[], list[str]]) -> None:
    answer, _ = await compare(lambda site: site.talk(request() + GOODBYE), http_log, short=False, chunk_size=50)
    assert b" 101 " in answer


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "sent", [request() + GOODBYE, request(Origin="http://elsewhere") + LAST_REQUEST], ids=["accepted", "refused"]
)
async def test_a_request_may_come_in_two_parts(sent: bytes, log: Log) -> None:
    head = sent.index(b"\r\n\r\n") + 4
    for server_class in CLASSES[::-1]:
        async with site_of(server_class) as site:
            answers = set()
            for cut in range(1, head):
                answers.add(await site.talk(sent[:cut], sent[cut:]))
                await until(lambda: not site.server._connections)
            assert len(answers) == 1
            assert not any(site.short)
            assert len(site.seen) % len(range(1, head)) == 0
            for early in range(head, len(sent)):
                async with site.peer() as peer:
                    await peer.send(sent[:early])
                    answer = await peer.receive_bytes()
                    await peer.send(sent[early:])
                    answer = re.sub(rb"Date: [^\r]*\r\n", b"", answer) + await everything(peer)
                    assert {answer} == answers
    assert not [line for line in log.lines if "Cross origin" not in line]


@pytest.mark.gen_test
async def test_a_request_may_come_late(http_log: Callable[[], list[str]]) -> None:
    async def late(site: Site) -> bytes:
        async with site.peer() as peer:
            await until(lambda: site.server._connections)
            connection: Any = next(iter(site.server._connections))
            if isinstance(site.server, tornado_ws.HTTPServer):
                # It looked, and there was nothing.
                await until(lambda: connection._is_waiting)
            await peer.send(request() + GOODBYE)
            return await everything(peer)

    answer, _ = await compare(late, http_log, short=True)
    assert b" 101 " in answer


@pytest.mark.gen_test
async def test_plain_requests_go_before_and_after(http_log: Callable[[], list[str]]) -> None:
    first = LAST_REQUEST.replace(b"Connection: close\r\n", b"")
    answer, _ = await compare(lambda site: site.talk(first + request() + GOODBYE), http_log, short=False)
    assert answer.count(b"HTTP/1.1 ") == 2
    refused = request(Origin="http://elsewhere")
    answer, _ = await compare(lambda site: site.talk(refused + first + request() + GOODBYE), http_log, short=True)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"403", b"200", b"101"]


@pytest.mark.gen_test
async def test_an_application_that_accepts_no_more_says_503(http_log: Callable[[], list[str]]) -> None:
    async def second(site: Site) -> bytes:
        async with site.peer() as first:
            await first.send(request())
            await first.receive_head()
            answer = await site.talk(request() + LAST_REQUEST)
            await first.send(GOODBYE)
            assert await first.receive_rest()
        return re.sub(rb"Retry-After: \d+", b"", answer)

    answer, _ = await compare(second, http_log, short=True, settings={"websocket_max_connections": 1})
    assert answer.startswith(b"HTTP/1.1 503 ")
