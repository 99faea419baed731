"""``headers=`` and ``user_agent_header=``."""

from __future__ import annotations

from typing import Any

import pytest
import tornado
from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders

from tests.peer import RawServer, raw_server
from tornado_ws import websocket_connect


async def sent(server: RawServer, url: str | HTTPRequest, **options: Any) -> HTTPHeaders:
    connecting = websocket_connect(url, **options)
    peer = await server.accept()
    (await connecting).close()
    await peer.answer_close()
    return HTTPHeaders.parse(peer.head.partition("\r\n")[2])


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "headers",
    [
        {"X-One": "1", "x-two": "a, b", "X-Empty": ""},
        [("X-One", "1"), ("X-Two", "a, b"), ("x-empty", "")],
        HTTPHeaders({"X-One": "1", "X-Two": "a, b", "X-Empty": ""}),
        (pair for pair in [("X-One", "1"), ("X-Two", "a, b"), ("X-Empty", "")]),
    ],
    ids=["dict", "pairs", "HTTPHeaders", "generator"],
)
async def test_every_form_of_headers(headers: Any) -> None:
    async with raw_server() as server:
        got = await sent(server, server.url, headers=headers)
    assert (got["X-One"], got["X-Two"], got["X-Empty"]) == ("1", "a, b", "")


@pytest.mark.gen_test
async def test_a_name_may_come_twice() -> None:
    async with raw_server() as server:
        got = await sent(server, server.url, headers=[("X-Twice", "1"), ("x-twice", "2")])
    assert got.get_list("X-Twice") == ["1", "2"]


@pytest.mark.gen_test
async def test_they_go_before_those_of_a_request_which_stays_as_it_is() -> None:
    async with raw_server() as server:
        request = HTTPRequest(server.url, headers={"X-Mine": "request", "X-Other": "request", "Host": "request.test"})
        got = await sent(server, request, headers={"x-mine": "argument", "Host": "argument.test"})
        assert (got["X-Mine"], got["X-Other"], got["Host"]) == ("argument", "request", "argument.test")
        assert dict(request.headers) == {"X-Mine": "request", "X-Other": "request", "Host": "request.test"}


@pytest.mark.gen_test
async def test_those_of_the_opening_handshake_are_ours() -> None:
    async with raw_server() as server:
        got = await sent(server, server.url, headers={"Sec-WebSocket-Key": "mine", "Upgrade": "mine"})
    assert got["Upgrade"] == "websocket"
    assert len(got.get_list("Sec-WebSocket-Key")) == 1
    assert got["Sec-WebSocket-Key"] != "mine"


@pytest.mark.gen_test
async def test_the_user_agent() -> None:
    async with raw_server() as server:
        assert (await sent(server, server.url))["User-Agent"] == f"Tornado/{tornado.version}"
        assert (await sent(server, server.url, user_agent_header="me/1.0"))["User-Agent"] == "me/1.0"
        request = HTTPRequest(server.url, user_agent="request")
        assert (await sent(server, request, user_agent_header="me/1.0"))["User-Agent"] == "me/1.0"
        assert (await sent(server, request))["User-Agent"] == "request"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"headers": {"X y": "1"}}, "headers has the name 'X y'; it has to be a token"),
        ({"headers": {"X:": "1"}}, "token"),
        ({"headers": {"": "1"}}, "token"),
        ({"headers": {b"X": "1"}}, "token"),
        ({"headers": {"X": "s3cret\r\nY: 1"}}, r"headers\['X'\] has a line end"),
        ({"headers": {"X": "s3cret\0"}}, "control character"),
        ({"headers": {"X": b"s3cret"}}, r"headers\['X'\] is of type 'bytes'; it has to be a str"),
        ({"headers": {"X": None}}, "NoneType"),
        ({"headers": "X: 1"}, "headers has the name|has to be a mapping"),
        ({"headers": 1}, "headers is 'int'; it has to be a mapping, or pairs of a name and a value"),
        ({"headers": [1]}, "has to be a mapping"),
        ({"headers": [("X", "1", "2")]}, "has to be a mapping"),
        ({"user_agent_header": "a\nb"}, "user_agent_header has a line end"),
        ({"user_agent_header": 1}, "user_agent_header is of type 'int'"),
    ],
)
async def test_wrong_ones(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        await websocket_connect("ws://127.0.0.1:9/", **options)
    assert "s3cret" not in str(caught.value)


@pytest.mark.gen_test
async def test_a_name_that_there_is_not() -> None:
    options: dict[str, Any] = {"http_proxy_host": "proxy"}
    with pytest.raises(TypeError, match="http_proxy_host"):
        await websocket_connect("ws://127.0.0.1:9/", **options)
