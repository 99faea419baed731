"""A cookie jar: what is sent, what is kept, and of which answers."""

from __future__ import annotations

import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest

from tests.client.test_request import To
from tests.conftest import Tls
from tests.peer import RawServer, opening_answer, raw_server
from tests.support import Echo, serving
from tornado_ws import HandshakeRejectedError, WebSocketHandler, reconnect, websocket_connect


def names(jar: CookieJar) -> dict[str, str | None]:
    return {cookie.name: cookie.value for cookie in jar}


async def cookie_sent(server: RawServer, jar: CookieJar, path: str = "/", **options: Any) -> str | None:
    """Connect, and return the Cookie header that was sent."""
    connecting = websocket_connect(server.url + path, cookies=jar, **options)
    peer = await server.accept()
    (await connecting).close()
    await peer.answer_close()
    return peer.header("Cookie")


@pytest.mark.gen_test
async def test_cookies_of_a_101_are_kept_and_sent() -> None:
    jar = CookieJar()
    async with raw_server() as server:
        connecting = websocket_connect(server.url, cookies=jar)
        peer = await server.accept_tcp()
        await peer.receive_head()
        assert peer.header("Cookie") is None
        answer = opening_answer(peer, Set_Cookie="a=1; Path=/; HttpOnly")
        await peer.send(answer.replace(b"\r\n\r\n", b"\r\nSet-Cookie: b=2; Path=/deep\r\nSet-Cookie: c=3\r\n\r\n"))
        # They are there as soon as the connection is.
        conn = await connecting
        assert names(jar) == {"a": "1", "b": "2", "c": "3"}
        conn.close()
        await peer.answer_close()
        assert await cookie_sent(server, jar) == "a=1; c=3"
        assert await cookie_sent(server, jar, "/deep/er") == "b=2; a=1; c=3"


@pytest.mark.gen_test
async def test_cookies_of_a_refusal_and_of_a_redirect_are_kept() -> None:
    jar = CookieJar()
    async with raw_server() as server:
        connecting = websocket_connect(server.url, cookies=jar)
        await server.accept(status="401 Unauthorized", Set_Cookie="refused=1", Content_Length="0")
        with pytest.raises(HandshakeRejectedError):
            await connecting
        assert names(jar) == {"refused": "1"}
        connecting = websocket_connect(server.url, cookies=jar, follow_redirects=True)
        await server.accept(status="302 Found", Location="/b", Set_Cookie="moved=1", Content_Length="0")
        peer = await server.accept()
        assert peer.header("Cookie") == "refused=1; moved=1"
        (await connecting).close()
        await peer.answer_close()


@pytest.mark.gen_test
async def test_a_cookie_header_of_the_caller_goes_before() -> None:
    jar = CookieJar()
    async with raw_server() as server:
        connecting = websocket_connect(server.url, cookies=jar)
        peer = await server.accept(Set_Cookie="jar=1")
        (await connecting).close()
        await peer.answer_close()
        assert await cookie_sent(server, jar, headers={"Cookie": "own=1"}) == "own=1; jar=1"


@pytest.mark.gen_test
async def test_the_policy_of_the_jar_says_whose_cookies_go_where() -> None:
    policy = DefaultCookiePolicy(strict_ns_domain=DefaultCookiePolicy.DomainStrict, blocked_domains=["blocked.test"])
    jar = CookieJar(policy)
    async with raw_server() as server:
        resolver = To(server.port)
        for host in ("one.test", "blocked.test"):
            connecting = websocket_connect(f"ws://{host}/", cookies=jar, resolver=resolver)
            peer = await server.accept(Set_Cookie=f"of={host}")
            (await connecting).close()
            await peer.answer_close()
        sent = []
        for host in ("one.test", "sub.one.test", "blocked.test", "other.test"):
            connecting = websocket_connect(f"ws://{host}/", cookies=jar, resolver=resolver)
            peer = await server.accept()
            (await connecting).close()
            await peer.answer_close()
            sent.append(peer.header("Cookie"))
    assert sent == ["of=one.test", None, None, None]


@pytest.mark.gen_test
async def test_another_origin_gets_its_own_cookies() -> None:
    jar = CookieJar()
    async with raw_server() as server:
        resolver = To(server.port)
        for host in ("one.test", "two.test"):
            connecting = websocket_connect(f"ws://{host}/", cookies=jar, resolver=resolver)
            peer = await server.accept(Set_Cookie=f"of={host}")
            (await connecting).close()
            await peer.answer_close()
        connecting = websocket_connect(
            "ws://one.test/", cookies=jar, resolver=resolver, follow_redirects=True, headers={"Cookie": "own=1"}
        )
        first = await server.accept(status="302 Found", Location="ws://two.test/", Content_Length="0")
        second = await server.accept()
        assert (first.header("Cookie"), second.header("Cookie")) == ("own=1; of=one.test", "of=two.test")
        (await connecting).close()
        await second.answer_close()


@pytest.mark.gen_test
async def test_a_secure_cookie_goes_over_tls_only(tls: Tls) -> None:
    seen: list[str | None] = []

    class Handler(Echo):
        def prepare(self) -> None:
            seen.append(self.request.headers.get("Cookie"))
            self.set_cookie("safe", "1", secure=True)
            self.set_cookie("any", "1")

    jar = CookieJar()
    async with (
        serving(Handler, alone=False, ssl_options=tls.server) as secure,
        serving(Handler, alone=False) as plain,
    ):
        options: dict[str, Any] = {"cookies": jar, "ssl_options": tls.client}
        for url in (secure.replace("ws://", "wss://"), secure.replace("ws://", "wss://"), plain):
            async with websocket_connect(url, **options):
                pass
    assert seen == [None, "safe=1; any=1", "any=1"]


@pytest.mark.gen_test
async def test_each_attempt_of_reconnect_has_what_the_last_one_got() -> None:
    class Counting(WebSocketHandler):
        def prepare(self) -> None:
            self.set_cookie("count", str(int(self.get_cookie("count", "0") or 0) + 1))

    jar = CookieJar()
    turns = 0
    async with serving(Counting) as url:
        async for _ in reconnect(HTTPRequest(url), cookies=jar, first_delay=0.001):
            turns += 1
            assert names(jar) == {"count": str(turns)}
            if turns == 3:
                break


@pytest.mark.gen_test
async def test_a_wrong_password_leaves_no_cookie_of_a_server_that_is_not_trusted(tls: Tls) -> None:
    jar = CookieJar()
    async with serving(Echo, ssl_options=tls.server) as url:
        with pytest.raises(ssl.SSLError):
            await websocket_connect(url.replace("ws://", "wss://"), cookies=jar)
    assert names(jar) == {}


@pytest.mark.gen_test
@pytest.mark.parametrize("cookies", [{"a": "1"}, "a=1", []])
async def test_what_is_no_jar(cookies: Any) -> None:
    with pytest.raises(ValueError, match=r"cookies is '\w+'; it has to be an http.cookiejar.CookieJar"):
        await websocket_connect("ws://127.0.0.1:9/", cookies=cookies)
