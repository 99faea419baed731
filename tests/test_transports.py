"""WebSockets over TLS, IPv6 and Unix sockets, in both directions."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tornado.httpclient import HTTPRequest
from tornado.netutil import Resolver, bind_sockets, bind_unix_socket

from tests.needs import need
from tests.support import Echo, connected, serving, until
from tornado_ws import WebSocketClientConnection, websocket_connect
from tornado_ws.testing import expect

#: More than a socket's buffer takes, so that both ends have to wait for the other one.
LARGE = bytes(range(256)) * 16 * 1024

#: Many small ones: a TLS record may hold several, which give no readiness of their own.
SMALL = [str(number) for number in range(50)]


async def exchange(conn: WebSocketClientConnection) -> None:
    await conn.write_message("hello")
    await expect(conn, "hello")
    for message in SMALL:
        conn.write_message(message)
    assert [await conn.read_message() for _ in SMALL] == SMALL
    sent = conn.write_message(LARGE, binary=True)
    await expect(conn, LARGE)
    await sent


# IPv6


@pytest.fixture
def ipv6_sockets() -> list[socket.socket]:
    try:
        return bind_sockets(0, "::1", family=socket.AF_INET6)
    except OSError:
        need(False, "IPv6 on loopback")
        raise


@pytest.mark.gen_test
async def test_ipv6(ipv6_sockets: list[socket.socket]) -> None:
    hosts: list[str] = []

    class Handler(Echo):
        def open(self) -> None:
            hosts.append(self.request.host)
            assert self.request.remote_ip == "::1"

    port = ipv6_sockets[0].getsockname()[1]
    async with serving(Handler, sockets=ipv6_sockets), connected(f"ws://[::1]:{port}/") as conn:
        await exchange(conn)
    assert hosts == [f"[::1]:{port}"]


# Unix sockets


class UnixResolver(Resolver):
    """Every host is the Unix socket at ``path``, as in jupyter-server-proxy."""

    def initialize(self, path: str) -> None:
        self.path = path

    async def resolve(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[tuple[int, Any]]:
        return [(socket.AF_UNIX, self.path)]


@pytest.mark.gen_test
async def test_unix_socket(tmp_path: Path) -> None:
    need(hasattr(socket, "AF_UNIX"), "AF_UNIX")
    path = str(tmp_path / "server.sock")
    closed: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            # Nagle's algorithm is TCP's; the call has to be harmless elsewhere.
            self.set_nodelay(True)

        def on_close(self) -> None:
            closed.append((self.close_code, self.close_reason))

    async with (
        serving(Handler, sockets=[bind_unix_socket(path)]),
        connected("ws://anything/", resolver=UnixResolver(path)) as conn,
    ):
        await exchange(conn)
        conn.close(4000, "bye")
        await until(lambda: closed)
    assert closed == [(4000, "bye")]


# TLS


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_certificate(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert("127.0.0.1", "localhost")


@pytest.fixture(scope="module", params=["context", "dict"])
def server_ssl_options(
    request: pytest.FixtureRequest, server_certificate: trustme.LeafCert, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    if request.param == "context":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server_certificate.configure_cert(context)
        return context
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    server_certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
    return {"certfile": str(path)}


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA) -> Iterator[str]:
    with ca.cert_pem.tempfile() as path:
        yield path


@pytest.fixture(params=["ssl_options", "ca_certs"])
def client_options(request: pytest.FixtureRequest, ca: trustme.CA, ca_file: str) -> dict[str, Any]:
    if request.param == "ca_certs":
        return {"ca_certs": ca_file}
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return {"ssl_options": context}


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-tls-first", "6455-4.2.2-tls", "6455-5.1-client-masks")
@pytest.mark.rfc("6455-10.6-tls")
async def test_wss(server_ssl_options: Any, client_options: dict[str, Any]) -> None:
    schemes: list[str] = []

    class Handler(Echo):
        def open(self) -> None:
            schemes.append(self.request.protocol)

    async with (
        serving(Handler, ssl_options=server_ssl_options) as url,
        connected(HTTPRequest(url.replace("ws", "wss", 1), **client_options)) as conn,
    ):
        # distributed keeps both of them with its connection.
        assert conn.stream.socket.getpeercert()["subjectAltName"]  # type: ignore[attr-defined]
        assert len(conn.stream.socket.cipher()) == 3  # type: ignore[attr-defined]
        await exchange(conn)
    assert schemes == ["https"]


@pytest.mark.gen_test
async def test_wss_closes_in_both_directions(server_ssl_options: Any, ca_file: str) -> None:
    closed: list[Any] = []

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            self.close(4001, "server")

        def on_close(self) -> None:
            closed.append((self.close_code, self.close_reason))

    async with serving(Handler, ssl_options=server_ssl_options) as url:
        request = HTTPRequest(url.replace("ws", "wss", 1), ca_certs=ca_file)
        async with connected(request) as conn:
            await conn.write_message("close")
            assert await conn.read_message() is None
            assert (conn.close_code, conn.close_reason) == (4001, "server")
        async with connected(HTTPRequest(url.replace("ws", "wss", 1), ca_certs=ca_file)) as conn:
            conn.close(4002, "client")
            assert await conn.read_message() is None
        await until(lambda: len(closed) == 2)
    assert closed == [(4001, None), (4002, "client")]


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-tls-fails")
async def test_wss_does_not_trust_a_stranger(server_ssl_options: Any) -> None:
    async with serving(Echo, ssl_options=server_ssl_options) as url:
        with pytest.raises(ssl.SSLCertVerificationError):
            await websocket_connect(url.replace("ws", "wss", 1))


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.2.2-tls")
async def test_ws_to_a_tls_port_fails(server_ssl_options: Any) -> None:
    async with serving(Echo, ssl_options=server_ssl_options) as url:
        with pytest.raises(OSError):  # noqa: PT011 - StreamClosedError is one, whatever it says
            await websocket_connect(url)
