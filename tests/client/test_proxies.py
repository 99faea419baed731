"""A client behind real proxies: tinyproxy, microsocks, Dante, and tinyproxy behind TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest

from tests.client.proxies import TlsFront, dante, microsocks, tinyproxy, tls_front
from tests.client.test_request import To
from tests.conftest import Log, Tls
from tests.peer import Recording, Sockets
from tests.ports import unused_port
from tests.support import Echo, serving, until
from tornado_ws import ProxyError, WebSocketHandler, reconnect, websocket_connect
from tornado_ws.testing import expect

#: More than the buffers of all sockets between.
LARGE = "x" * 3_000_000


class Address(WebSocketHandler):
    """Tells from which port a connection came, and echoes."""

    ports: list[int]

    def initialize(self, calls: list[Any]) -> None:
        self.ports = calls

    def open(self) -> None:
        assert self.ws_connection is not None
        stream: Any = self.ws_connection.stream
        self.ports.append(stream.socket.getpeername()[1])

    def on_message(self, message: str | bytes) -> Any:
        return self.write_message(message)


@contextlib.asynccontextmanager
async def serving_both(tls: Tls) -> AsyncIterator[dict[str, Any]]:
    """Give arguments for a server at ``ws`` and one at ``wss``."""
    async with (
        serving(Echo, alone=False) as plain,
        serving(Echo, alone=False, ssl_options=tls.server) as secure,
    ):
        yield {
            "ws": {"url": plain.replace("127.0.0.1", "localhost")},
            "wss": {"url": secure.replace("ws://127.0.0.1", "wss://localhost"), "ssl_options": tls.client},
        }


@pytest.fixture(scope="module")
def http_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with tinyproxy(tmp_path_factory.mktemp("tinyproxy")) as port:
        yield port


@pytest.fixture(scope="module")
def closed_http_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One that wants a user and lets nobody to any port but 1."""
    with tinyproxy(tmp_path_factory.mktemp("tinyproxy"), "BasicAuth user s3cret", "ConnectPort 1") as port:
        yield port


@pytest.fixture(scope="module")
def socks5_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with microsocks(tmp_path_factory.mktemp("microsocks"), "-u", "user", "-P", "s3cret") as port:
        yield port


@pytest.fixture(scope="module")
def blocked_port() -> int:
    return unused_port()


@pytest.fixture(scope="module")
def socks_port(tmp_path_factory: pytest.TempPathFactory, blocked_port: int) -> Iterator[int]:
    with dante(tmp_path_factory.mktemp("dante"), blocked_port) as port:
        yield port


async def exchange(url: str | HTTPRequest, **options: Any) -> None:
    """Connect, send what is small and what is large, and close in good order."""
    async with websocket_connect(url, **options) as conn:
        for message in ("hello", LARGE):
            await conn.write_message(message)
            await expect(conn, message)
    assert conn.close_code == 1000


each_scheme = pytest.mark.parametrize("scheme", ["ws", "wss"])


@pytest.mark.gen_test
@each_scheme
async def test_through_an_http_proxy(scheme: str, http_port: int, tls: Tls, log: Log) -> None:
    async with serving_both(tls) as servers:
        await exchange(**servers[scheme], proxy=f"http://127.0.0.1:{http_port}")
    assert log.lines == []


@pytest.mark.gen_test
@each_scheme
async def test_through_an_https_proxy(scheme: str, http_port: int, tls: Tls, log: Log) -> None:
    """With wss that is TLS inside TLS."""
    async with serving_both(tls) as servers, tls_front(http_port, tls.server) as front:
        options: dict[str, Any] = {"proxy": f"https://localhost:{front.port}", "proxy_ssl_options": tls.client}
        await exchange(**servers[scheme], **options)
        host_and_port = servers[scheme]["url"].partition("://")[2]
        assert front.first_lines == [f"CONNECT {host_and_port} HTTP/1.1\r\n".encode()]
    assert log.lines == []


@pytest.mark.gen_test
@each_scheme
@pytest.mark.parametrize("proxy_scheme", ["socks5", "socks5h"])
async def test_through_a_socks5_proxy_with_a_user(
    proxy_scheme: str, scheme: str, socks5_port: int, tls: Tls, log: Log
) -> None:
    async with serving_both(tls) as servers:
        await exchange(**servers[scheme], proxy=f"{proxy_scheme}://user:s3cret@127.0.0.1:{socks5_port}")
    assert log.lines == []


@pytest.mark.gen_test
@each_scheme
@pytest.mark.parametrize("proxy_scheme", ["socks4", "socks5", "socks5h"])
async def test_through_dante(proxy_scheme: str, scheme: str, socks_port: int, tls: Tls, log: Log) -> None:
    async with serving_both(tls) as servers:
        await exchange(**servers[scheme], proxy=f"{proxy_scheme}://127.0.0.1:{socks_port}/")
    assert log.lines == []


@pytest.mark.gen_test
async def test_the_proxy_is_who_connects_to_the_server(http_port: int) -> None:
    ports: list[Any] = []
    proxy = f"http://127.0.0.1:{http_port}"
    async with serving(Address, calls=ports) as url, websocket_connect(url, proxy=proxy) as conn:
        own: Any = conn.stream.socket
        assert own.getpeername() == ("127.0.0.1", http_port)
        await until(lambda: ports)
        assert ports != [own.getsockname()[1]]


@pytest.mark.gen_test
@pytest.mark.parametrize(("scheme", "is_resolved_here"), [("socks5", True), ("socks5h", False)])
async def test_who_resolves_the_name(scheme: str, is_resolved_here: bool, socks_port: int) -> None:
    async with serving(Echo) as url:
        server = int(url.rpartition(":")[2])
        resolver = To(socks_port)
        await exchange(f"ws://localhost:{server}", proxy=f"{scheme}://proxy.test:1080", resolver=resolver)
    assert resolver.asked == [*([("localhost", server)] if is_resolved_here else []), ("proxy.test", 1080)]


@pytest.mark.gen_test
async def test_a_name_with_several_addresses_is_tried_through_socks(socks_port: int) -> None:
    """Dante does not reach IPv6 here, and says so."""

    class Both(To):
        async def resolve(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[tuple[int, Any]]:
            found = await super().resolve(host, port)
            return found if host == "proxy.test" else [(10, ("::1", port)), (2, ("127.0.0.1", port))]

    async with serving(Echo) as url:
        server = url.replace("127.0.0.1", "server.test")
        await exchange(server, proxy="socks5://proxy.test:1080", resolver=Both(socks_port))


# What a proxy refuses


async def refused(url: str, proxy: str, **options: Any) -> ProxyError:
    sockets = Sockets()
    with pytest.raises(ProxyError) as caught:
        await websocket_connect(url, proxy=proxy, **options)
    error = caught.value
    assert isinstance(error, OSError)
    for text in (str(error), repr(error), repr(error.__cause__), error.proxy):
        assert "s3cret" not in text
    assert error.proxy in str(error)
    await until(lambda: not sockets.new())
    return error


@pytest.mark.gen_test
@each_scheme
@pytest.mark.parametrize(
    ("user", "status", "says"),
    [
        ("", 401, "refused to connect to 127.0.0.1:9: HTTP 40"),
        ("user:wrong-s3cret@", 401, "HTTP 401 Unauthorized"),
        ("user:s3cret@", 403, "HTTP 403 Access violation"),
    ],
)
async def test_what_an_http_proxy_says(
    user: str, status: int, says: str, scheme: str, closed_http_port: int, log: Log
) -> None:
    error = await refused(f"{scheme}://127.0.0.1:9/", f"http://{user}127.0.0.1:{closed_http_port}")
    # tinyproxy says 407 to whoever names no user.
    assert error.status in ((status, 407) if not user else (status,))
    assert says in str(error)
    assert error.proxy == f"http://127.0.0.1:{closed_http_port}"
    assert log.lines == []


@pytest.mark.gen_test
async def test_an_http_proxy_that_does_not_reach_the_server(http_port: int) -> None:
    error = await refused(f"ws://127.0.0.1:{unused_port()}/", f"http://127.0.0.1:{http_port}")
    assert error.status in (500, 502, 503)
    assert f"HTTP {error.status} " in str(error)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("user", "says"),
    [("", "authentication"), ("user:wrong-s3cret@", "authentication"), ("another:s3cret@", "authentication")],
)
async def test_what_a_socks5_proxy_says_to_strangers(user: str, says: str, socks5_port: int, log: Log) -> None:
    error = await refused("ws://127.0.0.1:9/", f"socks5://{user}127.0.0.1:{socks5_port}")
    assert error.status is None
    assert says in str(error)
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("scheme", "is_blocked", "status"),
    [("socks5", True, 2), ("socks5", False, 5), ("socks5h", True, 2), ("socks4", True, 91), ("socks4", False, 91)],
)
async def test_what_dante_says(
    scheme: str, is_blocked: bool, status: int, socks_port: int, blocked_port: int, log: Log
) -> None:
    port = blocked_port if is_blocked else unused_port()
    error = await refused(f"ws://127.0.0.1:{port}/", f"{scheme}://127.0.0.1:{socks_port}")
    assert error.status == status
    assert f"refused to connect to 127.0.0.1:{port}: SOCKS reply {status}, " in str(error)
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.parametrize("scheme", ["http", "https", "socks5h", "socks4"])
async def test_a_proxy_that_is_not_there(scheme: str) -> None:
    port = unused_port()
    error = await refused("ws://127.0.0.1:9/", f"{scheme}://127.0.0.1:{port}")
    assert f"proxy {scheme}://127.0.0.1:{port} cannot be reached: " in str(error)
    assert "Connection refused" in str(error)
    assert error.status is None


@pytest.mark.gen_test
async def test_an_https_proxy_that_nobody_trusts(http_port: int, tls: Tls) -> None:
    async with tls_front(http_port, tls.server) as front:
        error = await refused("ws://127.0.0.1:9/", f"https://localhost:{front.port}")
        assert "failed in the TLS handshake" in str(error)
        assert "certificate" in str(error).lower()
        assert front.first_lines == []


@pytest.mark.gen_test
@each_scheme
async def test_a_server_behind_the_proxy_that_nobody_trusts(scheme: str, http_port: int, tls: Tls) -> None:
    """That is no fault of the proxy's."""
    proxies: dict[str, Any] = {"proxy": f"http://127.0.0.1:{http_port}"}
    async with serving_both(tls) as servers, tls_front(http_port, tls.server) as front:
        if scheme == "wss":
            proxies = {"proxy": f"https://localhost:{front.port}", "proxy_ssl_options": tls.client}
        sockets = Sockets()
        with pytest.raises(OSError, match="certificate") as caught:
            await websocket_connect(servers["wss"]["url"], **proxies)
        assert not isinstance(caught.value, ProxyError)
        await until(lambda: len(sockets.new()) == 0)


# The end of a connection inside two layers of TLS


@contextlib.asynccontextmanager
async def tls_in_tls(
    port: int, tls: Tls, handler: type[WebSocketHandler], **settings: Any
) -> AsyncIterator[tuple[str, dict[str, Any], TlsFront]]:
    async with (
        serving(handler, ssl_options=tls.server, alone=False, **settings) as url,
        tls_front(port, tls.server) as front,
    ):
        options = {
            "proxy": f"https://localhost:{front.port}",
            "proxy_ssl_options": tls.client,
            "ssl_options": tls.client,
        }
        yield url.replace("ws://127.0.0.1", "wss://localhost"), options, front


@pytest.mark.gen_test
async def test_the_last_message_and_the_close_frame_of_a_server_arrive(http_port: int, tls: Tls) -> None:
    class Parting(WebSocketHandler):
        def open(self) -> None:
            self.write_message(LARGE)
            self.close(4001, "enough")

    sockets = Sockets()
    async with tls_in_tls(http_port, tls, Parting) as (url, options, _):
        conn = await websocket_connect(url, **options)
        await expect(conn, LARGE)
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (4001, "enough")
    await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_the_close_frame_of_a_client_arrives(http_port: int, tls: Tls) -> None:
    calls: list[Any] = []
    async with tls_in_tls(http_port, tls, Recording, calls=calls) as (url, options, _):
        conn = await websocket_connect(url, **options)
        conn.write_message(LARGE)
        conn.close(4002, "bye")
        await until(lambda: len(calls) == 3)
    assert calls == ["open", LARGE, ("close", 4002, "bye")]


@pytest.mark.gen_test
@pytest.mark.parametrize("by", ["client", "server"])
async def test_an_end_without_a_close_frame_is_seen_at_the_other_end(by: str, http_port: int, tls: Tls) -> None:
    handlers: list[Any] = []

    class Handler(Recording):
        def open(self) -> None:
            handlers.append(self)
            super().open()

    calls: list[Any] = []
    sockets = Sockets()
    async with tls_in_tls(http_port, tls, Handler, calls=calls) as (url, options, _):
        conn = await websocket_connect(url, **options)
        await until(lambda: handlers)
        protocol: Any = conn.protocol if by == "client" else handlers[0].ws_connection
        protocol._abort()
        assert await conn.read_message() is None
        await until(lambda: len(calls) == 2)
        assert calls[1] == ("close", None, None)
    await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_a_client_that_stops_reading_stops_the_server(http_port: int, tls: Tls) -> None:
    """What is on its way is bounded: nothing is kept between the two layers."""
    waiting: list[Any] = []

    class Flood(WebSocketHandler):
        def open(self) -> None:
            waiting.append(self)
            for _ in range(40):
                self.write_message("x" * 1_000_000)

    async with tls_in_tls(http_port, tls, Flood) as (url, options, _):
        conn = await websocket_connect(url, **options)
        await until(lambda: waiting)
        left: list[int] = []

        def has_stopped() -> bool:
            left.append(waiting[0].ws_connection.buffered_amount)
            return len(left) > 200 and len(set(left[-100:])) == 1

        await until(has_stopped)
        assert left[-1] > 15_000_000
        for _ in range(40):
            await expect(conn, "x" * 1_000_000)
        conn.close()
        assert await conn.read_message() is None


# Where the proxy comes from


NAMES = ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy", "socks_proxy"]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.gen_test
async def test_tornados_arguments_of_a_request(closed_http_port: int, http_port: int) -> None:
    async with serving(Echo) as url:
        await exchange(HTTPRequest(url, proxy_host="127.0.0.1", proxy_port=http_port))
        request = HTTPRequest(
            url, proxy_host="127.0.0.1", proxy_port=closed_http_port, proxy_username="user", proxy_password="s3cret"
        )
        with pytest.raises(ProxyError, match="403 Access violation"):
            await websocket_connect(request)
        # The argument goes before the request.
        await exchange(request, proxy=f"http://127.0.0.1:{http_port}")
        await exchange(request, proxy=False)


@pytest.mark.gen_test
async def test_the_environment_is_asked_by_who_wants_that(environment: pytest.MonkeyPatch) -> None:
    """As Tornado's, a client looks at no environment by itself."""
    nobody = f"http://127.0.0.1:{unused_port()}"
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        environment.setenv(name, nobody)
    async with serving(Echo) as url:
        await exchange(url)
        with pytest.raises(ProxyError, match=nobody):
            await websocket_connect(url, proxy=True)
        environment.setenv("NO_PROXY", "example.org,127.0.0.1")
        await exchange(url, proxy=True)


@pytest.mark.gen_test
async def test_reconnect_asks_the_environment(environment: pytest.MonkeyPatch, http_port: int) -> None:
    ports: list[Any] = []
    environment.setenv("ALL_PROXY", f"http://127.0.0.1:{http_port}")
    async with serving(Address, calls=ports) as url:
        for options, goes_there in (({}, True), ({"proxy": False}, False), ({"proxy": None}, False)):
            async for conn in reconnect(url, **options):
                own: Any = conn.stream.socket
                assert (own.getpeername()[1] == http_port) is goes_there
                break
            await until(conn.stream.closed)


@pytest.mark.gen_test
async def test_a_proxy_that_refuses_for_good_ends_reconnect(closed_http_port: int) -> None:
    async def attempts() -> None:
        async for _ in reconnect("ws://127.0.0.1:9/", proxy=f"http://user:s3cret@127.0.0.1:{closed_http_port}"):
            pytest.fail("connected")

    with pytest.raises(ProxyError, match="403"):
        await asyncio.wait_for(attempts(), 60)
