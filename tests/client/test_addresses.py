"""A client and the addresses of a name: side by side with a stagger, and what is left of those that lose."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.iostream import IOStream
from tornado.netutil import Resolver
from tornado.simple_httpclient import HTTPTimeoutError

from tests.conftest import Log, Tls
from tests.peer import Sockets
from tests.support import Echo, connected, serving, until
from tornado_ws import websocket_connect
from tornado_ws.client import tcp
from tornado_ws.client.connectors import Address
from tornado_ws.client.tcp import AbortableTCPClient, interleaved
from tornado_ws.testing import expect


class Known(Resolver):
    """Gives the addresses that it is made with."""

    def initialize(self, addresses: list[Address]) -> None:
        self.addresses = addresses

    async def resolve(self, *args: Any, **kwargs: Any) -> list[tuple[int, Any]]:
        return self.addresses


@contextlib.contextmanager
def hanging(count: int, *hosts: str) -> Iterator[list[Address]]:
    """Give ``count`` addresses that answer no SYN, as Linux does while the queue of those to be accepted is full."""
    with contextlib.ExitStack() as stack:
        addresses: list[Address] = []
        for host in (hosts or ("127.0.0.1",)) * count:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = stack.enter_context(socket.socket(family))
            listening.bind((host, 0))
            listening.listen(0)
            for _ in range(4):
                waiting = stack.enter_context(socket.socket(family))
                waiting.setblocking(False)
                waiting.connect_ex(listening.getsockname())
            addresses.append((family, listening.getsockname()))
        yield addresses


def refusing(count: int) -> list[Address]:
    """Return addresses that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [(socket.AF_INET, sock.getsockname()) for sock in sockets]


def address_of(url: str) -> Address:
    return (socket.AF_INET, ("127.0.0.1", int(url.rstrip("/").rpartition(":")[2])))


@pytest.mark.gen_test
@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["127.0.0.1", "::1"]])
async def test_addresses_that_hang_do_not_cost_the_connection(hosts: list[str], log: Log) -> None:
    async with serving(Echo) as url:
        with hanging(3, *hosts) as addresses:
            sockets = Sockets()
            async with connected(url, resolver=Known([*addresses, address_of(url)])) as conn:
                await conn.write_message("x")
                await expect(conn, "x")
                # One at each end: those that lost are closed.
                assert len(sockets.new()) == 2
            await until(lambda: not sockets.new())
    assert log.lines == []


@pytest.mark.gen_test
async def test_over_tls_too(tls: Tls) -> None:
    async with serving(Echo, ssl_options=tls.server) as url:
        with hanging(2) as addresses:
            request = HTTPRequest(url.replace("ws://127.0.0.1", "wss://localhost"), ssl_options=tls.client)
            resolver = Known([*addresses, address_of(url)])
            async with connected(request, resolver=resolver) as conn:
                await conn.write_message("x")
                await expect(conn, "x")


@pytest.mark.gen_test
async def test_one_that_fails_is_followed_at_once(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.setattr(tcp, "ATTEMPT_DELAY", 3600)
    async with serving(Echo) as url, connected(url, resolver=Known([*refusing(3), address_of(url)])) as conn:
        await conn.write_message("x")
        await expect(conn, "x")
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_family_that_cannot_be_had_is_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "ATTEMPT_DELAY", 3600)
    unknown: Address = (12345, ("127.0.0.1", 9))
    async with serving(Echo) as url, connected(url, resolver=Known([unknown, address_of(url)])) as conn:
        await conn.write_message("x")
        await expect(conn, "x")


@pytest.mark.gen_test
async def test_the_first_has_the_time_of_the_stagger_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "ATTEMPT_DELAY", 3600)
    sockets = Sockets()
    with hanging(2) as addresses:
        sockets = Sockets()
        connecting_to: Any = websocket_connect("ws://name/", resolver=Known(addresses))
        await until(sockets.new)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(sockets.new()) == 1
        connecting_to.cancel()
        await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_giving_up_closes_all_attempts_and_begins_no_other(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.setattr(tcp, "ATTEMPT_DELAY", 0.01)
    with hanging(4) as addresses:
        sockets = Sockets()
        connecting_to: Any = websocket_connect("ws://name/", resolver=Known(addresses))
        await until(lambda: len(sockets.new()) >= 2)
        connecting_to.cancel()
        await until(lambda: not sockets.new())
        for _ in range(10):
            await asyncio.sleep(0.01)
            assert not sockets.new()
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_timeout_names_the_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "ATTEMPT_DELAY", 0.001)
    with hanging(1, "127.0.0.1", "::1") as addresses:
        sockets = Sockets()
        with pytest.raises(HTTPTimeoutError) as raised:
            await websocket_connect("ws://name/", connect_timeout=0.5, resolver=Known(addresses))
        (_, four), (_, six) = addresses
        assert f"Timeout while connecting to 127.0.0.1:{four[1]}, [::1]:{six[1]}" in str(raised.value)
        await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_all_that_failed_are_told(log: Log) -> None:
    addresses = refusing(2)
    with pytest.raises(ConnectionRefusedError) as raised:
        await websocket_connect("ws://name/", resolver=Known(addresses))
    told = "; ".join(f"127.0.0.1:{port}: Connection refused" for _, (_, port) in addresses)
    assert raised.value.strerror == f"cannot connect to name: {told}"
    assert raised.value.errno == errno.ECONNREFUSED
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_name_without_an_address() -> None:
    with pytest.raises(OSError, match="cannot connect to name: it has no address"):
        await websocket_connect("ws://name/", resolver=Known([]))


def test_families_take_turns_and_keep_their_order() -> None:
    def parsed(text: str) -> list[Address]:
        return [(socket.AF_INET6 if name.isupper() else socket.AF_INET, name) for name in text]

    for given, expected in {"": "", "abc": "abc", "ABCab": "AaBbC", "aABC": "aABC", "abAB": "aAbB"}.items():
        assert interleaved(parsed(given)) == parsed(expected)


# A server that accepts, and resets at once


@contextlib.contextmanager
def resetting(monkeypatch: pytest.MonkeyPatch, owner: Any, step: str, seen: bool) -> Iterator[str]:
    """Have the reset come before ``step`` is done; with ``seen``, somebody has asked for the socket's error then."""
    original = getattr(owner, step)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def reset_and_go_on(*args: Any, **kwargs: Any) -> Any:
            accepted, _ = listening.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            if seen:
                connected = next(arg for arg in args if isinstance(arg, socket.socket | IOStream))
                connected = connected.socket if isinstance(connected, IOStream) else connected
                assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, step, reset_and_go_on)
        yield f"wss://127.0.0.1:{listening.getsockname()[1]}/"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("owner", "step", "seen"),
    [
        (AbortableTCPClient, "start_tls", False),
        (AbortableTCPClient, "start_tls", True),
        (tcp, "ssl_wrap_socket", True),
    ],
)
async def test_a_reset_before_the_tls_handshake(
    owner: Any, step: str, seen: bool, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    with resetting(monkeypatch, owner, step, seen) as url:
        sockets = Sockets()
        with pytest.raises(ConnectionResetError):
            await websocket_connect(url)
        # Else the listening one alone is left.
        await until(lambda: not sockets.new())
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("turn", range(12))
@pytest.mark.parametrize("by", ["close", "event"])
async def test_a_reset_at_every_turn_of_the_loop(
    by: str, turn: int, secure: bool, tls: Tls, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """The connection is established, and ``turn`` turns later the loop finds that it is lost."""
    connect = IOStream.connect
    streams: list[IOStream] = []

    def lose(turns: int) -> None:
        stream = streams[0] if not secure else next(iter(secured or streams))
        if turns:
            asyncio.get_running_loop().call_soon(lose, turns - 1)
        elif stream.socket is not None and by == "close":
            stream.close(exc_info=(ConnectionResetError, ConnectionResetError(errno.ECONNRESET, "reset"), None))
        elif stream.socket is not None:
            # Not SSLSocket's, which would forget the session.
            socket.socket.shutdown(stream.socket, socket.SHUT_RDWR)
            stream._handle_events(stream.socket.fileno(), stream.io_loop.ERROR)

    def connect_and_lose(self: IOStream, *args: Any, **kwargs: Any) -> Any:
        future = connect(self, *args, **kwargs)
        streams.append(self)
        future.add_done_callback(lambda _: lose(turn))
        return future

    secured: list[IOStream] = []

    class Kept(tcp.SSLIOStream):  # type: ignore[name-defined, misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            secured.append(self)

    monkeypatch.setattr(IOStream, "connect", connect_and_lose)
    monkeypatch.setattr(tcp, "SSLIOStream", Kept)
    async with serving(Echo, ssl_options=tls.server if secure else None) as url:
        sockets = Sockets()
        target = url.replace("ws://127.0.0.1", "wss://localhost") if secure else url
        request = HTTPRequest(target, ssl_options=tls.client if secure else None)
        try:
            conn = await websocket_connect(request)
        except OSError:
            # StreamClosedError is one.
            pass
        else:
            conn.close()
            assert await conn.read_message() is None
        await until(lambda: not sockets.new())
    # The server has its own to say about a client that is gone in the TLS handshake.
    assert not [line for line in log.lines if "SSL" not in line]
