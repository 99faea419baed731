"""What a client sends for a URL or an `HTTPRequest`, and which of them it refuses."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from typing import Any

import pytest
import trustme
from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.netutil import Resolver

from tests.conftest import Tls
from tests.peer import RawPeer, raw_server
from tests.support import Echo, serving
from tornado_ws import HandshakeRejectedError, WebSocketClientConnection, websocket_connect


class To(Resolver):
    """Finds one address for every name."""

    def initialize(self, port: int) -> None:
        self.port = port
        self.asked: list[tuple[str, int]] = []

    async def resolve(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[tuple[int, Any]]:
        self.asked.append((host, port))
        return [(socket.AF_INET, ("127.0.0.1", self.port))]


async def sent_for(url: str | HTTPRequest) -> tuple[RawPeer, tuple[str, int]]:
    """Connect to ``url``; return the peer, with the request that it got, and what name was resolved."""
    async with raw_server() as server:
        resolver = To(server.sock.getsockname()[1])
        connecting = websocket_connect(url, resolver=resolver)
        peer = await server.accept()
        conn = await connecting
        conn.close()
        await peer.answer_close()
        await conn.wait_closed()
    return peer, resolver.asked[0]


def basic(text: str | bytes) -> str:
    return "Basic " + base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


TARGETS = {
    "": "/",
    "?a=1": "/?a=1",
    "#part": "/",
    "/a?x=1#part": "/a?x=1",
    "/p\xe4 th?q=\xfc \u20ac": "/p%C3%A4%20th?q=%C3%BC%20%E2%82%AC",
    "/done%20%c3%a4?x=%2F%3f": "/done%20%c3%a4?x=%2F%3f",
    "/100%?x=50%&y=%zz": "/100%25?x=50%25&y=%25zz",
    "/a;b=c,d/:@!$&'()*+=~-._?/?:@!$&'()*+,;=[]": "/a;b=c,d/:@!$&'()*+=~-._?/?:@!$&'()*+,;=[]",
    '/"<>\\^`{|}?"<>\\^`{|}': "/%22%3C%3E%5C%5E%60%7B%7C%7D?%22%3C%3E%5C%5E%60%7B%7C%7D",
    "/a\r\nX-Injected: 1": "/aX-Injected:%201",
    "/a\x00\x1b[2J\x7f": "/a%00%1B[2J%7F",
    "//twice": "//twice",
}


@pytest.mark.gen_test
@pytest.mark.parametrize("rest", TARGETS)
@pytest.mark.rfc("6455-3-fragment", "6455-4.1-request-uri", "6455-11.1.1-rest")
async def test_path_and_query_are_as_rfc_3986_wants_them(rest: str) -> None:
    peer, _ = await sent_for("ws://example.org" + rest)
    assert peer.head.split("\r\n")[0] == f"GET {TARGETS[rest]} HTTP/1.1"
    assert peer.header("X-Injected") is None
    assert peer.head.isascii()


HOSTS = {
    "example.org": ("example.org", ("example.org", 80)),
    "Example.org:8080": ("Example.org:8080", ("Example.org", 8080)),
    "example.org:": ("example.org", ("example.org", 80)),
    "b\xfccher.example:81": ("xn--bcher-kva.example:81", ("xn--bcher-kva.example", 81)),
    "u:p@B\xdcCHER.example": ("xn--bcher-kva.example", ("xn--bcher-kva.example", 80)),
    "\u4f8b\u3048\u3002\u30c6\u30b9\u30c8": ("xn--r8jz45g.xn--zckzah", ("xn--r8jz45g.xn--zckzah", 80)),
    "xn--bcher-kva.example": ("xn--bcher-kva.example", ("xn--bcher-kva.example", 80)),
    "my_service": ("my_service", ("my_service", 80)),
    "[::1]:8123": ("[::1]:8123", ("::1", 8123)),
    "[fe80::1%25eth0]:8123": ("[fe80::1]:8123", ("fe80::1%eth0", 8123)),
    "[fe80::1%25eth.0~1]": ("[fe80::1]", ("fe80::1%eth.0~1", 80)),
    "u:p@[fe80::1%eth0]:": ("[fe80::1]", ("fe80::1%eth0", 80)),
    "[fe80::1%25]": ("[fe80::1]", ("fe80::1%25", 80)),
    "[fe80::1%2525]": ("[fe80::1]", ("fe80::1%25", 80)),
    "127.0.0.1:65535": ("127.0.0.1:65535", ("127.0.0.1", 65535)),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.rfc("6455-3-default-port", "6455-4.1-host", "6455-11.1.1-host")
async def test_the_host_is_sent_and_resolved_in_ascii(host: str) -> None:
    peer, asked = await sent_for(f"WS://{host}/")
    assert (peer.header("Host"), asked) == HOSTS[host]


USERS = {
    "user:secret": "user:secret",
    "token": "token:",
    "token:": "token:",
    ":secret": ":secret",
    "us%40er:p%3Ass%2F": "us@er:p:ss/",
    "user:a:b@c": "user:a:b@c",
    "\xfc:%C3%BC%E2%82%AC": "\xfc:\xfc\u20ac",
    "user:%FF": b"user:\xff",
    "user:100%": "user:100%",
    "": None,
}


@pytest.mark.gen_test
@pytest.mark.parametrize("user", USERS)
async def test_user_and_password_are_sent_as_basic_authentication(user: str) -> None:
    expected = USERS[user]
    peer, _ = await sent_for(f"ws://{user}@example.org/")
    assert peer.header("Authorization") == (None if expected is None else basic(expected))
    assert peer.header("Host") == "example.org"


@pytest.mark.gen_test
async def test_the_user_of_a_url_goes_before_the_requests() -> None:
    options: dict[str, Any] = {"auth_username": "other", "auth_password": "one"}
    peer, _ = await sent_for(HTTPRequest("ws://user:pass@example.org/", **options))
    assert peer.header("Authorization") == basic("user:pass")
    peer, _ = await sent_for(HTTPRequest("ws://example.org/", **options))
    assert peer.header("Authorization") == basic("other:one")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("/nohost", "no host"),
        ("host:99999/", "port '99999'"),
        ("host:65536/", "port '65536'"),
        (f"host:{'9' * 5000}/", "port"),
        ("host:abc/", "port"),
        ("host:-1/", "port"),
        ("host:\u0663/", "port"),
        ("[::1/", "URL is malformed"),
        ("a b/", "RFC 3986"),
        ("a\x1bb/", "RFC 3986"),
        ("a{b}/", "RFC 3986"),
        ('a"b/', "RFC 3986"),
        ("a\\b/", "RFC 3986"),
        ("\uff1cb\uff1e.example/", "RFC 3986"),
        # Newer Pythons look into the brackets themselves.
        ("[::1\\]/", "RFC 3986|URL is malformed"),
        ("[fe80::1%25a@b]/", "malformed|no host"),
        # Python's own urlsplit refuses some of them, by its version.
        ("[fe80::1%25a%5Db]/", "malformed|zone"),
        ("[fe80::1%25a b]/", "malformed|RFC 3986"),
        ("[fe80::1%]/", "malformed|zone"),
        ("\xfc" * 70 + ".example/", "IDNA"),
        ("\xfc..example/", "IDNA"),
        ("host/\udc80", "URL is malformed"),
    ],
)
@pytest.mark.rfc("6455-4.1-uri-valid")
async def test_a_url_that_cannot_be_sent_is_refused_without_its_password(rest: str, says: str) -> None:
    for user in ("", "user:s3cret@"):
        with pytest.raises(ValueError, match=says) as caught:
            await websocket_connect(f"ws://{user}{rest}")
        assert "s3cret" not in repr(caught.value)
        assert caught.value.__cause__ is None
        assert str(caught.value).isprintable()


@pytest.mark.gen_test
@pytest.mark.parametrize(("user", "says"), [("us%3Aer:s3cret", "colon"), ("user:s3cret%0A", "control character")])
async def test_a_user_that_basic_authentication_cannot_carry_is_refused(user: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        await websocket_connect(f"ws://{user}@host/")
    assert "s3cret" not in str(caught.value)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "POST", "body": "x"}, "method 'POST'"),
        ({"method": "HEAD"}, "method 'HEAD'"),
        ({"method": "get"}, "method 'get'"),
        ({"body": "x"}, "body"),
        ({"body": b""}, "body"),
        ({"body_producer": lambda write: None}, "body"),
        ({"body": "x", "allow_nonstandard_methods": True}, "body"),
        ({"headers": {"content-length": "1"}}, "Content-Length"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "Transfer-Encoding"),
    ],
)
async def test_a_request_that_opens_no_websocket_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        await websocket_connect(HTTPRequest("ws://example.org/", **options))


@pytest.mark.gen_test
async def test_a_request_without_a_body_expects_no_100() -> None:
    peer, _ = await sent_for(HTTPRequest("ws://example.org/", expect_100_continue=True))
    assert peer.header("Expect") is None


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-sni")
async def test_tls_is_asked_for_the_host_in_ascii(tls: Tls) -> None:
    names: list[str] = []

    def note(_: ssl.SSLObject, name: str, __: ssl.SSLContext) -> None:
        names.append(name)

    tls.server.sni_callback = note
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    try:
        async with serving(Echo, ssl_options=tls.server) as url:
            resolver = To(int(url.rpartition(":")[2].partition("/")[0]))
            request = HTTPRequest("wss://b\xfccher.example/", ssl_options=client)
            async with websocket_connect(request, resolver=resolver) as conn:
                await conn.write_message("hello")
                assert await conn.read_message() == "hello"
    finally:
        tls.server.sni_callback = None
    assert names == ["xn--bcher-kva.example"]


@pytest.mark.gen_test
async def test_the_zone_of_an_address_is_no_part_of_what_its_certificate_has() -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("fe80::1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with serving(Echo, ssl_options=server) as url:
        resolver = To(int(url.rpartition(":")[2]))
        request = HTTPRequest("wss://[fe80::1%25eth0]/", ssl_options=client)
        async with websocket_connect(request, resolver=resolver) as conn:
            await conn.write_message("hello")
            assert await conn.read_message() == "hello"
    assert resolver.asked == [("fe80::1%eth0", 443)]


@pytest.mark.gen_test
async def test_a_host_header_of_the_request_goes_before_that_of_an_address_with_a_zone() -> None:
    peer, _ = await sent_for(HTTPRequest("ws://[fe80::1%25eth0]/", headers={"Host": "example.org"}))
    assert peer.header("Host") == "example.org"


def state(request: HTTPRequest) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    return dict(vars(request)), list(HTTPHeaders(request.headers).get_all())


@pytest.mark.gen_test
@pytest.mark.parametrize("headers", [None, {"Cookie": "a=1"}, HTTPHeaders({"Cookie": "a=1"})])
async def test_one_request_serves_for_many_connections_and_stays_as_it_is(headers: Any) -> None:
    async with raw_server() as server:
        request = HTTPRequest(server.url.replace("ws://", "ws://us%40er:pass@") + "/\xe4", headers=headers)
        before = state(request)
        connecting = [
            websocket_connect(request, subprotocols=["a"], compression_options={}),
            websocket_connect(request, subprotocols=["b"]),
            WebSocketClientConnection(request).connect_future,
            websocket_connect(request),
        ]
        peers = [await server.accept() for _ in connecting]
        conns = await asyncio.gather(*connecting)
        assert state(request) == before
        assert len({peer.header("Sec-WebSocket-Key") for peer in peers}) == len(peers)
        offers = [(peer.header("Sec-WebSocket-Protocol"), peer.header("Sec-WebSocket-Extensions")) for peer in peers]
        assert sorted(bool(extensions) for _, extensions in offers) == [False, False, False, True]
        assert sorted(protocol or "" for protocol, _ in offers) == ["", "", "a", "b"]
        assert {peer.header("Authorization") for peer in peers} == {basic("us@er:pass")}
        assert {peer.header("Cookie") for peer in peers} == {"a=1" if headers else None}
        for conn in conns:
            conn.close()
        for peer in peers:
            await peer.answer_close()


@pytest.mark.gen_test
async def test_a_refused_request_stays_as_it_is_and_its_answer_shows_no_password() -> None:
    async with raw_server() as server:
        request = HTTPRequest(server.url.replace("ws://", "ws://user:s3cret@"))
        before = state(request)
        connecting = websocket_connect(request)
        await server.accept(status="401 Unauthorized", Content_Length="0")
        with pytest.raises(HandshakeRejectedError) as caught:
            await connecting
    assert state(request) == before
    response = caught.value.response
    assert response is not None
    assert response.request is request
    for text in (str(caught.value), repr(caught.value), repr(caught.value.args), repr(response)):
        assert "s3cret" not in text
