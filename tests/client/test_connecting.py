"""Giving a connect up, by its timeout or by cancelling it, in every phase: no socket may be left."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trustme
from tornado.httpclient import HTTPRequest
from tornado.iostream import StreamClosedError
from tornado.netutil import Resolver
from tornado.simple_httpclient import HTTPTimeoutError

from tests.conftest import Log, Tls
from tests.peer import RawPeer, RawServer, Sockets, raw_server
from tests.support import Echo, connected, serving, until
from tornado_ws import websocket_connect
from tornado_ws.testing import expect


class HangingResolver(Resolver):
    """Answers when it is told what."""

    def initialize(self) -> None:
        self.asked = asyncio.Event()
        self.answer: asyncio.Future[list[tuple[int, Any]]] = asyncio.get_event_loop().create_future()

    async def resolve(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[tuple[int, Any]]:
        self.asked.set()
        return await self.answer


class Stuck:
    """A server that a client cannot get past one phase with."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.options = options
        self.sockets = Sockets()

    async def reached(self) -> None:
        """Wait until the client is in the phase."""
        raise NotImplementedError

    async def left(self) -> None:
        """See that the client has closed whatever it had opened."""
        await until(lambda: not self.sockets.new())


class StuckInName(Stuck):
    def __init__(self) -> None:
        self.resolver = HangingResolver()
        super().__init__("wss://localhost:9/", resolver=self.resolver)

    async def reached(self) -> None:
        await self.resolver.asked.wait()


class StuckInTcp(Stuck):
    async def reached(self) -> None:
        await until(self.sockets.new)


class StuckBehindTcp(Stuck):
    def __init__(self, server: RawServer, url: str, first_bytes: bytes, **options: Any) -> None:
        super().__init__(url, **options)
        self._server = server
        self._first_bytes = first_bytes
        self._peer: RawPeer | None = None

    async def reached(self) -> None:
        self._peer = await self._server.accept_tcp()
        assert (await self._peer.receive_bytes()).startswith(self._first_bytes)

    async def left(self) -> None:
        if self._peer is None:
            self._peer = await self._server.accept_tcp()
        with contextlib.suppress(ConnectionError):
            while await self._peer.receive_bytes():
                pass
        self._peer.close()
        await super().left()


@contextlib.asynccontextmanager
async def stuck_in_name() -> AsyncIterator[Stuck]:
    stuck = StuckInName()
    yield stuck
    # The name is found in the end, and then nobody may talk to whoever has it.
    async with raw_server() as server:
        stuck.sockets = Sockets()
        stuck.resolver.answer.set_result([(socket.AF_INET, server.sock.getsockname())])
        await asyncio.sleep(0.02)
        assert not stuck.sockets.new()


@contextlib.asynccontextmanager
async def stuck_in_tcp() -> AsyncIterator[Stuck]:
    """Linux answers no SYN while the queue of those who wait to be accepted is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield StuckInTcp(f"ws://127.0.0.1:{listening.getsockname()[1]}/")


@contextlib.asynccontextmanager
async def stuck_in_tls() -> AsyncIterator[Stuck]:
    async with raw_server() as server:
        yield StuckBehindTcp(server, server.url.replace("ws://", "wss://"), b"\x16\x03")


@contextlib.asynccontextmanager
async def stuck_in_handshake() -> AsyncIterator[Stuck]:
    async with raw_server() as server:
        yield StuckBehindTcp(server, server.url, b"GET / HTTP/1.1\r\n")


class StuckBehindProxy(Stuck):
    """A proxy that answers what it is told to, or nothing, and then says no more."""

    def __init__(self, url: str, answer: bytes, **options: Any) -> None:
        super().__init__(url, **options)
        self._answer = answer
        self._reached = asyncio.Event()
        self._left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if self._answer:
            writer.write(self._answer)
            assert await reader.read(1)
        self._reached.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        self._left.set()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def reached(self) -> None:
        await self._reached.wait()

    async def left(self) -> None:
        await self._left.wait()
        await super().left()


@functools.lru_cache(maxsize=1)
def contexts() -> Tls:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client)


@contextlib.asynccontextmanager
async def stuck_behind_proxy(
    url: str = "wss://127.0.0.1:9/", answer: bytes = b"", scheme: str = "http"
) -> AsyncIterator[Stuck]:
    stuck = StuckBehindProxy(url, answer)
    tls = contexts() if scheme == "https" else None
    server = await asyncio.start_server(stuck.serve, "127.0.0.1", 0, ssl=tls and tls.server)
    stuck.options = {"proxy": f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}"}
    if tls:
        stuck.options["proxy_ssl_options"] = tls.client
    # The listening one is there already.
    stuck.sockets = Sockets()
    yield stuck
    server.close()
    await server.wait_closed()


@contextlib.asynccontextmanager
async def stuck_in_tcp_with_proxy() -> AsyncIterator[Stuck]:
    async with stuck_in_tcp() as stuck:
        yield StuckInTcp("wss://127.0.0.1:9/", proxy=stuck.url.replace("ws://", "http://"))


@contextlib.asynccontextmanager
async def stuck_in_tls_with_proxy() -> AsyncIterator[Stuck]:
    async with raw_server() as server:
        yield StuckBehindTcp(server, "ws://127.0.0.1:9/", b"\x16\x03", proxy=server.url.replace("ws://", "https://"))


@contextlib.asynccontextmanager
async def stuck_in_socks() -> AsyncIterator[Stuck]:
    async with raw_server() as server:
        yield StuckBehindTcp(server, "ws://127.0.0.1:9/", b"\x05\x01\x00", proxy=server.url.replace("ws", "socks5h"))


CONNECTED = b"HTTP/1.1 200 Connected\r\n\r\n"

PHASES: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Stuck]]] = {
    "resolving the host name": stuck_in_name,
    "connecting": stuck_in_tcp,
    "in the TLS handshake": stuck_in_tls,
    "in the opening handshake": stuck_in_handshake,
    "connecting to 127.0.0.1:[0-9]+ of proxy http://": stuck_in_tcp_with_proxy,
    "in the TLS handshake with proxy https://": stuck_in_tls_with_proxy,
    "waiting for proxy http://localhost:[0-9]+ to connect to 127.0.0.1:9$": stuck_behind_proxy,
    "waiting for proxy socks5h://127.0.0.1:[0-9]+ to connect to 127.0.0.1:9$": stuck_in_socks,
    "waiting for proxy https://localhost:[0-9]+ to connect to 127.0.0.1:9$": functools.partial(
        stuck_behind_proxy, scheme="https"
    ),
    "in the TLS handshake$": functools.partial(stuck_behind_proxy, answer=CONNECTED),
    "in the TLS handshake(?# inside TLS)$": functools.partial(stuck_behind_proxy, answer=CONNECTED, scheme="https"),
    "in the opening handshake$": functools.partial(stuck_behind_proxy, "ws://127.0.0.1:9/", CONNECTED),
    "in the opening handshake(?# inside TLS)$": functools.partial(
        stuck_behind_proxy, "ws://127.0.0.1:9/", CONNECTED, "https"
    ),
}
each_phase = pytest.mark.parametrize("phase", PHASES)


@pytest.mark.gen_test
@each_phase
async def test_connect_timeout_covers_the_phase(phase: str, log: Log) -> None:
    async with PHASES[phase]() as stuck:
        before = asyncio.get_running_loop().time()
        with pytest.raises(HTTPTimeoutError, match=f"Timeout while {phase}"):
            await websocket_connect(stuck.url, connect_timeout=0.5, **stuck.options)
        # The default is 20 seconds.
        assert 0.49 < asyncio.get_running_loop().time() - before < 15
        await stuck.left()
    assert log.lines == []


@pytest.mark.gen_test
@each_phase
async def test_request_timeout_covers_the_phase_too(phase: str) -> None:
    async with PHASES[phase]() as stuck:
        request = HTTPRequest(stuck.url, request_timeout=0.5)
        with pytest.raises(HTTPTimeoutError):
            await websocket_connect(request, **stuck.options)
        await stuck.left()


@pytest.mark.gen_test
@each_phase
async def test_cancelling_the_future_closes_the_socket(phase: str, log: Log) -> None:
    async with PHASES[phase]() as stuck:
        connecting: Any = websocket_connect(stuck.url, **stuck.options)
        await stuck.reached()
        assert connecting.cancel()
        await stuck.left()
        assert connecting.cancelled()
    assert log.lines == []


@pytest.mark.gen_test
@each_phase
async def test_cancelling_who_waits_closes_the_socket(phase: str) -> None:
    async with PHASES[phase]() as stuck:

        async def connect() -> None:
            await websocket_connect(stuck.url, **stuck.options)

        task = asyncio.ensure_future(connect())
        await stuck.reached()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stuck.left()


@pytest.mark.gen_test
@each_phase
async def test_wait_for_closes_the_socket(phase: str) -> None:
    async with PHASES[phase]() as stuck:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(websocket_connect(stuck.url, **stuck.options), 0.5)
        await stuck.left()


@pytest.mark.gen_test
async def test_a_name_that_is_not_found_after_the_timeout_is_nobodys_business(log: Log) -> None:
    stuck = StuckInName()
    with pytest.raises(HTTPTimeoutError):
        await websocket_connect(stuck.url, connect_timeout=0.01, **stuck.options)
    stuck.resolver.answer.set_exception(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    await asyncio.sleep(0.01)
    gc.collect()
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_server_that_hangs_up_after_the_timeout_is_nobodys_business(log: Log) -> None:
    async with raw_server() as server:
        with pytest.raises(HTTPTimeoutError):
            await websocket_connect(server.url, connect_timeout=0.5)
        peer = await server.accept()
        assert await peer.receive_bytes() == b""
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_refused_connection_leaves_no_timer(log: Log) -> None:
    """The timeout of a connect that is over must not be told to anybody later."""
    async with raw_server() as server:
        url = server.url
    with pytest.raises((OSError, StreamClosedError)):
        await websocket_connect(url, connect_timeout=0.5)
    await asyncio.sleep(0.55)
    assert log.lines == []


@pytest.mark.gen_test
async def test_connect_timeout_is_not_a_limit_for_the_open_connection() -> None:
    async with serving(Echo) as url, connected(url, connect_timeout=1.5) as conn:
        await asyncio.sleep(1.55)
        await conn.write_message("still here")
        await expect(conn, "still here")


@pytest.mark.gen_test
async def test_no_timeout_at_all() -> None:
    async with serving(Echo) as url:
        request = HTTPRequest(url, connect_timeout=0, request_timeout=0)
        async with connected(request) as conn:
            await conn.write_message("x")
            await expect(conn, "x")


@pytest.mark.gen_test
async def test_cancelling_an_open_connections_future_changes_nothing() -> None:
    async with serving(Echo) as url:
        connecting: Any = websocket_connect(url)
        conn = await connecting
        assert not connecting.cancel()
        await conn.write_message("x")
        await expect(conn, "x")
        conn.close()
        assert await conn.read_message() is None


@pytest.mark.gen_test
async def test_every_address_of_a_name_is_tried_and_none_stays_open(tls: Tls) -> None:
    """A first address that refuses does not cost the connection."""

    class TwoAddresses(Resolver):
        async def resolve(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[tuple[int, Any]]:
            # Two families, since Tornado tries the addresses of one family in turn and of two side by side.
            return [(socket.AF_INET6, ("::1", port)), (socket.AF_INET, ("127.0.0.1", port))]

    async with serving(Echo, ssl_options=tls.server) as url:
        sockets = Sockets()
        request = HTTPRequest(url.replace("ws://127.0.0.1", "wss://localhost"), ssl_options=tls.client)
        async with connected(request, resolver=TwoAddresses()) as conn:
            await conn.write_message("x")
            await expect(conn, "x")
            assert len(sockets.new()) == 2
        await until(lambda: not sockets.new())
