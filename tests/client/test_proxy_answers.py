"""Proxies by hand: what they are asked for, answers of every kind, and which proxy a URL or an environment means."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest

from tests.conftest import Log, Tls
from tests.peer import RawPeer, Sockets, opening_answer, raw_server
from tests.support import until
from tornado_ws import ProxyError, reconnect, websocket_connect
from tornado_ws.client.proxy import Proxy, chosen_proxy, parse_proxy
from tornado_ws.client.request import websocket_request


async def answered(answer: bytes | list[bytes], url: str = "ws://example.test/", scheme: str = "http") -> ProxyError:
    """Return the error of a connect through a proxy that says ``answer``, piece by piece, and hangs up."""
    sockets = Sockets()
    async with raw_server() as server:
        connecting = websocket_connect(url, proxy=server.url.replace("ws", scheme, 1))
        peer = await server.accept_tcp()
        for piece in [answer] if isinstance(answer, bytes) else answer:
            assert await peer.receive_bytes()
            await peer.send(piece)
        peer.half_close()
        with pytest.raises(ProxyError) as caught:
            await connecting
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
        peer.close()
    await until(lambda: not sockets.new())
    return caught.value


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", 407, ": HTTP 407 Proxy Authentication Required"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", 302, ": HTTP 302 Found"),
        (b"HTTP/1.0 502 Bad\x1b[2JGateway\r\n\r\nbody", 502, r"HTTP 502 Bad\x1b[2JGateway"),
        (b"HTTP/1.1 500 " + b"x" * 5000 + b"\r\n\r\n", 500, "HTTP 500 xxx"),
        (b"HTTP/1.1 503\r\n\r\n", 503, ": HTTP 503"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 10, 100, ": HTTP 100 Continue"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None, "sent an answer that is not HTTP: SSH-2.0-OpenSSH"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", None, "not HTTP"),
        (b"\r\n\r\n", None, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n", None, "closed the connection before it had answered"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000, None, "sent an answer with a head of more than 65536 bytes"),
    ],
    ids=itertools.count(),
)
async def test_an_http_proxy_that_does_not_connect(answer: bytes, status: int | None, says: str, log: Log) -> None:
    error = await answered(answer)
    assert error.status == status
    assert says in str(error)
    # Tornado's stream has a line for a head that is too long.
    assert [line for line in log.lines if "Unsatisfiable read" not in line] == []


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        ([b"\x05\xff"], None, "No acceptable authentication methods"),
        ([b"\x05\x02"], None, "Unexpected SOCKS authentication method"),
        ([b"HTTP/1.1 400 Bad\r\n\r\n"], None, "Unexpected SOCKS version number"),
        ([b"\x05\x00", b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00"], 4, "SOCKS reply 4, Host unreachable"),
        ([b"\x05\x00", b"\x05\x63\x00\x01\x00\x00\x00\x00\x00\x00"], None, "Invalid reply code: 0X63"),
        ([b"\x05\x00", b"\x05\x00"], None, "closed the connection before it had answered"),
        ([b"\x05"], None, "closed the connection before it had answered"),
    ],
    ids=itertools.count(),
)
async def test_a_socks_proxy_that_does_not_connect(
    answer: list[bytes], status: int | None, says: str, log: Log
) -> None:
    error = await answered(answer, scheme="socks5h")
    assert error.status == status
    assert says in str(error)
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_name_that_socks_cannot_carry() -> None:
    name = f"{'x' * 64}.test"
    error = await answered([b"\x05\x00"], f"ws://{name}/", "socks5h")
    assert f"cannot be asked for {name}:80" in str(error)


@pytest.mark.gen_test
async def test_socks4_has_no_ipv6() -> None:
    with pytest.raises(ProxyError, match=r"cannot connect to \[::1\]:80: the name has no address that it can carry"):
        await websocket_connect("ws://[::1]/", proxy="socks4://127.0.0.1:9")


@pytest.mark.gen_test
async def test_what_comes_before_tls_is_no_part_of_it() -> None:
    error = await answered(b"HTTP/1.1 200 OK\r\n\r\nHello!", "wss://example.test/")
    assert "sent more than its answer" in str(error)


async def asked(url: str | HTTPRequest, proxy: Callable[[int], str] | None) -> RawPeer:
    """Return the proxy that a client asks for ``url``, in pieces; it says yes and is the server too."""
    async with raw_server() as server:
        given = proxy(server.port) if proxy else None
        if isinstance(url, HTTPRequest):
            url.proxy_port = server.port
        connecting = websocket_connect(url, proxy=given)
        peer = await server.accept_tcp()
        await peer.receive_head()
        tunnel = peer.head
        for piece in (b"HTTP/1.1 100 Continue\r\n", b"\r\nHTTP/1.1 201 Cr", b"eated\r\nX: y\r\n\r", b"\n"):
            await peer.send(piece)
            await asyncio.sleep(0.001)
        await peer.receive_head()
        await peer.send(opening_answer(peer))
        conn = await connecting
        conn.close()
        await peer.answer_close()
        await conn.wait_closed()
        peer.head = tunnel
    return peer


def basic(user: str) -> str:
    return "Basic " + base64.b64encode(user.encode()).decode()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ws://example.test/path", "example.test:80"),
        ("ws://example.test:8080/", "example.test:8080"),
        ("ws://[::1]:8080/", "[::1]:8080"),
        ("ws://b\xfccher.example/", "xn--bcher-kva.example:80"),
    ],
)
@pytest.mark.rfc("6455-4.1-proxy")
async def test_what_an_http_proxy_is_asked_for(url: str, target: str) -> None:
    peer = await asked(url, lambda port: f"http://127.0.0.1:{port}")
    assert peer.head.split("\r\n")[0] == f"CONNECT {target} HTTP/1.1"
    assert peer.header("Host") == target
    assert peer.header("Proxy-Authorization") is None


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("user", "sent"),
    [
        ("user:pass", "user:pass"),
        ("us%40er:p%3Ass%2F%40", "us@er:p:ss/@"),
        ("token", "token:"),
        ("\xfc:%C3%BC", "\xfc:\xfc"),
        ("u:p@w", "u:p@w"),
    ],
)
async def test_the_user_of_an_http_proxy(user: str, sent: str) -> None:
    peer = await asked("ws://name:word@example.test/", lambda port: f"http://{user}@127.0.0.1:{port}/")
    assert peer.header("Proxy-Authorization") == basic(sent)
    assert peer.header("Authorization") is None


@pytest.mark.gen_test
async def test_the_proxy_of_a_request_and_its_user() -> None:
    request = HTTPRequest("ws://example.test/", proxy_host="127.0.0.1", proxy_username="er", proxy_password="p:w")
    peer = await asked(request, None)
    assert peer.header("Proxy-Authorization") == basic("er:p:w")
    # It serves for another connection.
    assert (request.proxy_host, request.proxy_username) == ("127.0.0.1", "er")


# Which proxy is meant


PROXIES = {
    "http://proxy": Proxy("http", "proxy", 80),
    "https://Proxy.Example/": Proxy("https", "Proxy.Example", 443),
    "HTTP://proxy:3128": Proxy("http", "proxy", 3128),
    "socks5://[::1]:1081": Proxy("socks5", "::1", 1081),
    "socks5h://[fe80::1%eth0]": Proxy("socks5h", "fe80::1%eth0", 1080),
    "socks4://user@127.0.0.1": Proxy("socks4", "127.0.0.1", 1080, "user"),
    "socks5://user:p%40ss@proxy": Proxy("socks5", "proxy", 1080, "user", "p@ss"),
}


@pytest.mark.parametrize("url", PROXIES)
def test_a_proxy_that_is_meant(url: str) -> None:
    assert parse_proxy(url, "proxy") == PROXIES[url]


def test_a_proxy_shows_no_password() -> None:
    proxy = parse_proxy("socks5://user:s3cret@[::1]", "proxy")
    assert str(proxy) == repr(proxy) == "socks5://[::1]:1080"


WRONG = {
    "proxy:3128": "has to begin with the scheme of a proxy",
    "ftp://{}proxy": "schemes are http, https, socks5, socks5h, socks4",
    "http:{}proxy": "has to begin with the scheme",
    "": "has to begin with the scheme",
    "http://{}": "no host",
    "http://{}:80": "no host",
    "http://{}pro xy": "no host",
    "http://{}proxy:0": "port",
    "http://{}proxy:65536": "port",
    "http://{}proxy:\u0663": "port",
    "http://{}proxy:x": "port",
    "http://{}[::1": "no URL",
    "http://{}proxy/path": "no path, query or fragment",
    "http://{}proxy?query": "no path, query or fragment",
    "http://{}proxy#x": "no path, query or fragment",
    "http://a%0a{}proxy": "control character",
    "http://a%3ab{}proxy": "colon",
    "socks4://a{}proxy": "no password",
    "socks5://token@proxy": "a user and a password, or neither",
    "socks5://\xfc{}proxy": "ASCII",
    "socks5h://{}proxy": "1 to 255",
    f"socks5://{'a' * 256}{{}}proxy": "1 to 255",
}


@pytest.mark.gen_test
@pytest.mark.parametrize("url", WRONG)
async def test_a_wrong_proxy_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=WRONG[url]) as caught:
        await websocket_connect("ws://example.test/", proxy=url.format(":s3cret@"))
    assert "s3cret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert str(caught.value).startswith("proxy is '")


@pytest.mark.gen_test
@pytest.mark.parametrize("proxy", [1, b"http://proxy", ["http://proxy"], 0.5])
async def test_what_is_no_proxy_at_all(proxy: Any) -> None:
    with pytest.raises(ValueError, match=r"proxy is .*; it has to be a URL, True for the environment's"):
        await websocket_connect("ws://example.test/", proxy=proxy)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"proxy_host": "http://user:s3cret@proxy", "proxy_port": 80}, "without scheme"),
        ({"proxy_host": "proxy"}, "proxy_port is None; both have to be given"),
        ({"proxy_host": "proxy", "proxy_port": "80"}, "port has to be a number"),
        ({"proxy_host": "proxy", "proxy_port": 65536}, "port has to be a number"),
        ({"proxy_host": "proxy", "proxy_port": 80, "proxy_auth_mode": "digest"}, "proxy_auth_mode is 'digest'"),
        (
            {"proxy_host": "proxy", "proxy_port": 80, "proxy_username": "a:b", "proxy_password": "s3cret"},
            "user has a colon",
        ),
    ],
)
async def test_a_request_with_a_wrong_proxy(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        await websocket_connect(HTTPRequest("ws://example.test/", **options))
    assert "s3cret" not in str(caught.value)


@pytest.mark.gen_test
async def test_socks_without_python_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"SOCKS needs python-socks: pip install 'tornado_ws\[proxy\]'"):
        await websocket_connect("ws://example.test/", proxy="socks5://proxy")
    with pytest.raises(ImportError, match="python-socks"):
        async for _ in reconnect("ws://example.test/", proxy="socks5://proxy"):
            pass
    assert parse_proxy("http://proxy", "proxy").is_http


# The environment


def of_environment(url: str, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> str | None:
    for name in ("http", "https", "all", "no", "ws", "wss", "socks"):
        for variable in (f"{name}_proxy", f"{name}_PROXY".upper()):
            monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    request = websocket_request(HTTPRequest(url))
    request.proxy_host = None
    found = chosen_proxy(True, request)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("url", "variables", "found"),
    [
        ("wss://server/", {}, None),
        ("wss://server/", {"HTTPS_PROXY": "http://a:1"}, "http://a:1"),
        ("wss://server/", {"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "http://a:1"),
        ("wss://server/", {"ALL_PROXY": "socks5h://a:1"}, "socks5h://a:1"),
        ("wss://server/", {"ALL_PROXY": "socks5h://a:1", "HTTPS_PROXY": "http://b:1"}, "http://b:1"),
        ("wss://server/", {"HTTP_PROXY": "http://a:1"}, None),
        ("wss://server/", {"WSS_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "http://a:1"),
        ("wss://server/", {"SOCKS_PROXY": "socks5://a:1", "HTTPS_PROXY": "http://b:1"}, "socks5://a:1"),
        ("wss://server/", {"HTTPS_PROXY": ""}, None),
        ("wss://server/", {"HTTPS_PROXY": "a:1"}, "http://a:1"),
        ("ws://server/", {"HTTP_PROXY": "http://a:1"}, "http://a:1"),
        ("ws://server/", {"HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "http://b:1"),
        ("ws://server/", {"WS_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "http://a:1"),
        ("ws://server/", {"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}, None),
        ("wss://server/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "*"}, None),
        ("wss://server/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "other, server"}, None),
        ("wss://SERVER.example.org/", {"ALL_PROXY": "http://a:1", "NO_PROXY": ".example.org"}, None),
        ("wss://server.example.org/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "example.org"}, None),
        ("wss://serverexample.org/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "example.org"}, "http://a:1"),
        ("wss://server/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "server:443"}, None),
        ("ws://server/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "server:443"}, "http://a:1"),
        ("ws://server:8080/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "server:8080"}, None),
        ("ws://127.0.0.1:8080/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "localhost,127.0.0.1"}, None),
        ("ws://[::1]:8080/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "::1"}, None),
        ("ws://[::1]/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "[::1]"}, None),
        ("ws://[::1]/", {"ALL_PROXY": "http://a:1", "NO_PROXY": "localhost"}, "http://a:1"),
    ],
)
def test_the_proxy_of_the_environment(
    url: str, variables: dict[str, str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of_environment(url, monkeypatch, variables) == found


def test_a_wrong_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the proxy of the system for https is 'quic://proxy'") as caught:
        of_environment("wss://server/", monkeypatch, {"HTTPS_PROXY": "quic://user:s3cret@proxy"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.gen_test
async def test_a_server_of_its_own_machine_needs_no_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tls: Tls
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="Unix socket") as caught:
        await websocket_connect("ws://localhost/", proxy=True, unix="/nobody/is/here")
    assert not isinstance(caught.value, ProxyError)
