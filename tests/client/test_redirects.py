"""A client that follows redirects: where it goes, where not, and what it takes there."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import quote

import pytest
from tornado.httpclient import HTTPError, HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import HTTPTimeoutError
from tornado.web import RequestHandler

from tests.clock import Clock
from tests.conftest import Log, Tls
from tests.peer import Sockets, raw_server
from tests.support import FOREVER, Echo, serving, until
from tornado_ws import HandshakeRejectedError, RedirectError, reconnect, websocket_connect

STATUSES = [301, 302, 303, 307, 308]


class Redirecting(RequestHandler):
    """Answers ``/STATUS`` with that status and the Location of its query, as often as it is asked."""

    def initialize(self, asked: list[HTTPHeaders]) -> None:
        self.asked = asked

    def get(self, status: str) -> None:
        self.asked.append(self.request.headers)
        self.set_status(int(status))
        for location in self.get_arguments("to"):
            self.add_header("Location", location)


class Noting(Echo):
    def initialize(self, asked: list[HTTPHeaders]) -> None:
        self.asked = asked

    def open(self) -> None:
        self.asked.append(self.request.headers)


class Site:
    def __init__(self, url: str) -> None:
        self.url = url
        self.port = url.rpartition(":")[2]
        #: The headers of each request.
        self.asked: list[HTTPHeaders] = []

    def to(self, location: str, status: int = 302) -> str:
        """Return a URL of this site that redirects to ``location``."""
        return f"{self.url}/{status}?to={quote(location)}"


@contextlib.asynccontextmanager
async def site(tls: Tls | None = None, *, alone: bool = False) -> AsyncIterator[Site]:
    """Serve redirects; nothing may be left running at the end if it is ``alone`` in the loop."""
    asked: list[HTTPHeaders] = []
    routes = [(r"/(\d+)", Redirecting, {"asked": asked}), ("/echo", Noting, {"asked": asked})]
    async with serving(routes, ssl_options=tls and tls.server, alone=alone) as url:
        found = Site(url.replace("ws://127.0.0.1", "wss://localhost") if tls else url)
        found.asked = asked
        yield found


async def reach(url: str | HTTPRequest, **options: Any) -> None:
    """Connect with redirects, and see an echo."""
    async with websocket_connect(url, follow_redirects=True, **options) as conn:
        await conn.write_message("hello")
        assert await conn.read_message() == "hello"


@pytest.mark.gen_test
@pytest.mark.parametrize("status", STATUSES)
async def test_each_status_is_followed_by_who_wants_that(status: int, log: Log) -> None:
    async with site() as one:
        await reach(one.to("/echo", status))
        assert len(one.asked) == 2
        with pytest.raises(HandshakeRejectedError, match=str(status)) as caught:
            await websocket_connect(one.to("/echo", status))
        assert not isinstance(caught.value, RedirectError)
        assert len(one.asked) == 3
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [300, 304, 305, 306, 404])
async def test_other_statuses_are_not(status: int) -> None:
    async with site() as one:
        with pytest.raises(HandshakeRejectedError, match=str(status)) as caught:
            await reach(one.to("/echo", status))
        assert not isinstance(caught.value, RedirectError)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-not-101")
async def test_every_form_of_a_location(tls: Tls) -> None:
    async with site() as one, site(tls) as secure:
        port = one.port
        for location in (
            "echo",
            "./echo?x=1",
            "/echo#fragment",
            f"//127.0.0.1:{port}/echo",
            f"http://127.0.0.1:{port}/echo",
            f"WS://127.0.0.1:{port}/echo",
            f"ws://user:pass@127.0.0.1:{port}/echo",
        ):
            one.asked.clear()
            await reach(one.to(location))
            assert len(one.asked) == 2
            assert one.asked[1].get("Authorization") is None
            assert one.asked[1]["Host"] == f"127.0.0.1:{port}"
        for location in (f"wss://localhost:{secure.port}/echo", f"https://localhost:{secure.port}/echo"):
            secure.asked.clear()
            await reach(one.to(location), ssl_options=tls.client)
            await reach(secure.to(location), ssl_options=tls.client)
            assert len(secure.asked) == 3


@pytest.mark.gen_test
async def test_the_path_and_the_query_of_a_location_are_what_is_asked_for() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url, follow_redirects=True)
        await server.accept(status="307 Elsewhere", Location="/p\xe4th?q=\xfc x", Content_Length="0")
        peer = await server.accept()
        # A header comes as Latin-1.
        assert peer.head.startswith("GET /p%C3%A4th?q=%C3%BC%20x HTTP/1.1\r\n")
        (await connecting).close()
        await peer.answer_close()


SECRETS = {"Authorization": "Bearer s3cret", "Cookie": "a=s3cret", "Proxy-Authorization": "Basic s3cret"}


@pytest.mark.gen_test
async def test_secrets_stay_at_their_origin() -> None:
    headers = {**SECRETS, "X-Kept": "1", "Host": "name.test"}
    async with site() as one, site() as other:
        await reach(one.to("/echo"), headers=headers)
        assert all({name: asked.get(name) for name in headers} == headers for asked in one.asked)
        back = one.to(f"{other.to(f'{one.url}/echo')}")
        one.asked.clear()
        await reach(HTTPRequest(back, headers=headers))
        assert other.asked[0].get("X-Kept") == "1"
        assert other.asked[0]["Host"] == f"127.0.0.1:{other.port}"
        # Once they are dropped, they stay so.
        for asked in (other.asked[0], one.asked[1]):
            assert not {name for name in SECRETS if name in asked}
        assert "s3cret" in one.asked[0]["Cookie"]


@pytest.mark.gen_test
@pytest.mark.parametrize("by", ["url", "request"])
async def test_user_and_password_stay_at_their_origin(by: str) -> None:
    basic = "Basic " + base64.b64encode(b"us:pass").decode()
    async with site() as one, site() as other:

        def request(url: str) -> Any:
            if by == "url":
                return url.replace("ws://", "ws://us:pass@")
            return HTTPRequest(url, auth_username="us", auth_password="pass")

        await reach(request(one.to("/echo")))
        assert [asked["Authorization"] for asked in one.asked] == [basic, basic]
        await reach(request(one.to(f"ws://other:word@127.0.0.1:{other.port}/echo")))
        assert one.asked[2]["Authorization"] == basic
        assert "Authorization" not in other.asked[0]


@pytest.mark.gen_test
async def test_the_same_host_under_another_scheme_or_name_is_another_origin(tls: Tls) -> None:
    async with site() as one, site(tls) as secure:
        for location in (f"ws://localhost:{one.port}/echo", f"wss://localhost:{secure.port}/echo"):
            one.asked.clear()
            await reach(one.to(location), headers=SECRETS, ssl_options=tls.client)
            last = (one.asked + secure.asked)[-1]
            assert not {name for name in SECRETS if name in last}


# What is not followed


async def not_followed(url: str, **options: Any) -> RedirectError:
    sockets = Sockets()
    with pytest.raises(RedirectError) as caught:
        await reach(url, **options)
    error = caught.value
    assert isinstance(error, HandshakeRejectedError)
    assert isinstance(error, HTTPError)
    assert "s3cret" not in f"{error}{error!r}"
    assert str(error).isprintable()
    # Its server has not seen the end yet.
    await until(lambda: not sockets.new())
    return error


@pytest.mark.gen_test
@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_never_from_wss_to_ws(scheme: str, tls: Tls) -> None:
    async with site() as one, site(tls) as secure:
        location = f"{scheme}://127.0.0.1:{one.port}/echo?token=s3cret"
        error = await not_followed(secure.to(location), ssl_options=tls.client)
        assert f"redirect to '{scheme}://127.0.0.1:{one.port}/echo', which is without TLS" in str(error)
        assert (error.status, error.location) == (302, location)
        assert one.asked == []
        # Not by a detour either.
        detour = one.to(secure.to(location))
        await not_followed(detour, ssl_options=tls.client)
        assert len(one.asked) == 1


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("ftp://host/", "scheme is 'ftp'; allowed are http, https, ws, wss"),
        ("javascript:alert(1)", "scheme is 'javascript'"),
        ("ws://[::1", "which is no URL"),
        ("ws://user:s3cret@/path", "cannot be followed: URL has no host"),
        ("ws://host:99999/", "URL has port '99999'"),
        ("ws://ho st/", "RFC 3986"),
        ("ws+unix:///run/s:/", "scheme is 'ws+unix'"),
    ],
)
async def test_a_location_that_is_nowhere(location: str, says: str) -> None:
    async with site() as one:
        error = await not_followed(one.to(location))
        assert says in str(error)


@pytest.mark.gen_test
async def test_a_location_that_is_missing_or_not_the_only_one() -> None:
    async with site() as one:
        error = await not_followed(f"{one.url}/302")
        assert "redirect with 0 Location headers; there has to be one" in str(error)
        error = await not_followed(one.to("/echo") + "&to=/other")
        assert "redirect with 2 Location headers" in str(error)
        await reach(one.to("/echo") + "&to=/echo")


@pytest.mark.gen_test
async def test_a_loop_is_named() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(f"{server.url}/a?token=s3cret", follow_redirects=True)
        for location in ("/b", "/c", "/b#again"):
            await server.accept(status="302 Found", Location=location, Content_Length="0")
        with pytest.raises(RedirectError) as caught:
            await connecting
        url = server.url.replace("ws", "http")
        assert f"redirect to '{url}/b' is a loop: that was asked for 2 requests before" in str(caught.value)

        connecting = websocket_connect(f"{server.url}/a?token=s3cret", follow_redirects=True)
        await server.accept(status="302 Found", Location="/a?token=s3cret", Content_Length="0")
        with pytest.raises(RedirectError, match="a loop: that was asked for 1 requests before") as caught:
            await connecting
        assert "s3cret" not in str(caught.value)


@pytest.mark.gen_test
async def test_back_with_another_cookie_is_no_loop() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(f"{server.url}/a", follow_redirects=True, cookies=CookieJar())
        await server.accept(status="302 Found", Location="/login", Content_Length="0")
        await server.accept(status="302 Found", Location="/a", Set_Cookie="session=1", Content_Length="0")
        peer = await server.accept()
        assert peer.header("Cookie") == "session=1"
        (await connecting).close()
        await peer.answer_close()


@pytest.mark.gen_test
async def test_back_with_the_same_cookie_is_one() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(f"{server.url}/a", follow_redirects=True, cookies=CookieJar())
        await server.accept(status="302 Found", Location="/a", Set_Cookie="session=1", Content_Length="0")
        await server.accept(status="302 Found", Location="/a", Set_Cookie="session=1", Content_Length="0")
        with pytest.raises(RedirectError, match="is a loop: that was asked for 1 requests before"):
            await connecting


@pytest.mark.gen_test
@pytest.mark.parametrize("most", [1, 3, 10])
async def test_there_is_a_most(most: int) -> None:
    options = {} if most == 10 else {"max_redirects": most}
    async with raw_server() as server:
        for count in (most, most + 1):
            connecting = websocket_connect(server.url, follow_redirects=True, **options)  # type: ignore[arg-type]
            for number in range(count):
                await server.accept(status="302 Found", Location=f"/{number}", Content_Length="0")
            if count == most:
                peer = await server.accept()
                (await connecting).close()
                await peer.answer_close()
        with pytest.raises(RedirectError, match=f"is one more than max_redirects, which is {most}"):
            await connecting


@pytest.mark.gen_test
async def test_a_redirect_to_where_nobody_is(log: Log) -> None:
    async with site() as one:
        async with raw_server() as nobody:
            location = nobody.url
        with pytest.raises(ConnectionRefusedError):
            await reach(one.to(location))
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.parametrize("options", [{"follow_redirects": 1}, {"max_redirects": 0}, {"max_redirects": True}])
async def test_wrong_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*; it has to be"):
        await websocket_connect("ws://127.0.0.1:9/", **options)


@pytest.mark.gen_test
@pytest.mark.parametrize("url", ["ws://user:s3cret@[::1", "ws://user:s3cret@/", "ftp://user:s3cret@host/"])
async def test_a_wrong_url_is_told_as_without_redirects(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        await websocket_connect(url, follow_redirects=True)
    assert "s3cret" not in repr(caught.value)


# Giving up


@pytest.mark.gen_test(timeout=FOREVER)
async def test_connect_timeout_covers_all_of_them(clock: Clock, log: Log) -> None:
    sockets = Sockets()
    async with raw_server() as server:
        request = HTTPRequest(server.url, connect_timeout=1000, request_timeout=1000)
        connecting = websocket_connect(request, follow_redirects=True)
        first = await server.accept_tcp()
        await first.receive_head()
        await clock.let_pass(600)
        await first.send(b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n")
        second = await server.accept_tcp()
        await second.receive_head()
        await clock.let_pass(500)
        await until(connecting.done)
        with pytest.raises(HTTPTimeoutError, match="Timeout while in the opening handshake"):
            await connecting
        assert await second.receive_bytes() == b""
        second.close()
        first.close()
    await until(lambda: not sockets.new())
    assert log.lines == []


@pytest.mark.gen_test(timeout=FOREVER)
async def test_a_redirect_at_the_last_moment(clock: Clock) -> None:
    async with raw_server() as server:
        request = HTTPRequest(server.url, connect_timeout=1000, request_timeout=1000)
        connecting = websocket_connect(request, follow_redirects=True)
        first = await server.accept_tcp()
        await first.receive_head()
        await first.send(b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: first.has_unread())
        clock.step(2000)
        with pytest.raises(HTTPTimeoutError):
            await connecting


@pytest.mark.gen_test
@pytest.mark.parametrize("answered", [0, 1])
async def test_cancelling_leaves_nothing(answered: int, log: Log) -> None:
    sockets = Sockets()
    async with raw_server() as server:
        request = HTTPRequest(server.url, connect_timeout=1000, request_timeout=1000)
        connecting: Any = websocket_connect(request, follow_redirects=True)
        for number in range(answered):
            await server.accept(status="302 Found", Location=f"/{number}", Content_Length="0")
        peer = await server.accept_tcp()
        await peer.receive_head()
        assert connecting.cancel()
        assert await peer.receive_bytes() == b""
        peer.close()
    await until(lambda: not sockets.new())
    assert connecting.cancelled()
    assert log.lines == []


@pytest.mark.gen_test
async def test_cancelling_at_every_turn_of_the_loop(log: Log) -> None:
    # A name that is being resolved is waited for.
    async with site(alone=True) as one:
        sockets = Sockets()
        for turns in range(60):
            connecting: Any = websocket_connect(one.to("/echo"), follow_redirects=True)
            for _ in range(turns):
                await asyncio.sleep(0)
            if not connecting.cancel():
                (await connecting).close()
            await until(lambda: not sockets.new())
    assert log.lines == []


@pytest.mark.gen_test
async def test_cancelling_who_waits_at_every_turn_of_the_loop() -> None:
    async def connect(url: str) -> None:
        async with websocket_connect(url, follow_redirects=True):
            pass

    # A name that is being resolved is waited for.
    async with site(alone=True) as one:
        sockets = Sockets()
        for turns in range(60):
            task = asyncio.ensure_future(connect(one.to("/echo")))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_reconnect_follows_too() -> None:
    async with site() as one:
        async for conn in reconnect(one.to("/echo"), follow_redirects=True):
            await conn.write_message("x")
            assert await conn.read_message() == "x"
            break
        await until(conn.stream.closed)


@pytest.mark.gen_test
@pytest.mark.filterwarnings("ignore:The callback argument:DeprecationWarning")
async def test_the_callback_gets_the_last_one() -> None:
    called: list[Any] = []
    async with site() as one:
        conn = await websocket_connect(one.to("/echo"), called.append, follow_redirects=True)
        await until(lambda: called)
        assert called[0].result() is conn
        conn.close()
        await until(conn.stream.closed)
