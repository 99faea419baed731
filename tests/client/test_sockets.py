"""Unix sockets, sockets that are there already, addresses to connect from, and names and certificates of TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tornado.httpclient import HTTPRequest
from tornado.netutil import bind_unix_socket
from tornado.simple_httpclient import HTTPTimeoutError

from tests.client.test_redirects import Redirecting
from tests.conftest import Log, Tls
from tests.peer import RawPeer, RawServer, Sockets, opening_answer, raw_server
from tests.ports import unused_port
from tests.support import Echo, serving, until
from tornado_ws import RedirectError, WebSocketHandler, reconnect, websocket_connect


class Asked(Echo):
    """Notes what it was asked for."""

    def initialize(self, calls: list[Any]) -> None:
        self.calls = calls

    def open(self, *args: str) -> None:
        self.calls.append((self.request.headers["Host"], self.request.uri))


@pytest.fixture
def path() -> Iterator[Path]:
    """One that is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "s:1 %.sock"


@contextlib.asynccontextmanager
async def unix_server(path: Path, calls: list[Any], **options: Any) -> AsyncIterator[None]:
    routes = [("/.*", Asked, {"calls": calls})]
    async with serving(routes, sockets=[bind_unix_socket(str(path))], **options):
        yield


async def echo(url: str | HTTPRequest, **options: Any) -> None:
    async with websocket_connect(url, **options) as conn:
        for message in ("hello", "x" * 1_000_000):
            await conn.write_message(message)
            assert await conn.read_message() == message
    assert conn.close_code == 1000


# Unix sockets


@pytest.mark.gen_test
async def test_a_unix_socket(path: Path, log: Log) -> None:
    calls: list[Any] = []
    async with unix_server(path, calls):
        for given in (path, str(path), bytes(path)):
            await echo("ws://name.test:8080/a?b=c", unix=given)
        await echo(HTTPRequest("ws://localhost/"), unix=path)
    assert calls == [("name.test:8080", "/a?b=c")] * 3 + [("localhost", "/")]
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_url_of_a_unix_socket(path: Path) -> None:
    calls: list[Any] = []
    quoted = str(path).replace("%", "%25").replace(":", "%3A").replace(" ", "%20")
    async with unix_server(path, calls):
        for url in (
            f"ws+unix://{quoted}:/a/b:c?d=e",
            f"ws+unix:{quoted}:/a/b:c?d=e#f",
            f"WS+UNIX://{quoted}",
            f"ws+unix://{quoted}:",
        ):
            await echo(url)
        request = HTTPRequest(f"ws+unix://{quoted}:/request")
        await echo(request)
        assert request.url.startswith("ws+unix:")
        async for conn in reconnect(f"ws+unix://{quoted}"):
            conn.close()
            break
        await until(lambda: len(calls) == 6)
    asked = ["/a/b:c?d=e", "/a/b:c?d=e", "/", "/", "/request", "/"]
    assert calls == [("localhost", target) for target in asked]


@pytest.mark.gen_test
async def test_tls_over_a_unix_socket(path: Path, tls: Tls) -> None:
    calls: list[Any] = []
    async with unix_server(path, calls, ssl_options=tls.server):
        await echo("wss://localhost/", unix=path, ssl_options=tls.client)
        with pytest.raises(ssl.SSLCertVerificationError):
            await websocket_connect("wss://other.test/", unix=path, ssl_options=tls.client)
    assert calls == [("localhost", "/")]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("nobody", FileNotFoundError, "No such file"),
        ("x" * 200, OSError, "path too long"),
        ("closed", OSError, "refused"),
    ],
)
async def test_a_unix_socket_that_nobody_listens_at(
    name: str, error: type[OSError], says: str, path: Path, log: Log
) -> None:
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path.parent / "closed"))
    given = path.parent / name
    sockets = Sockets()
    with pytest.raises(error, match=says) as caught:
        await websocket_connect("ws://localhost/", unix=given)
    assert f"cannot connect to the Unix socket '{path.parent}/" in str(caught.value)
    await until(lambda: not sockets.new())
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_unix_socket_that_answers_nothing(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        sockets = Sockets()
        with pytest.raises(HTTPTimeoutError, match="in the opening handshake"):
            await websocket_connect("ws://localhost/", unix=path, connect_timeout=0.2)
        await until(lambda: not sockets.new())


@pytest.mark.gen_test
@pytest.mark.parametrize("unix", ["", b"", 1, 1.5, ["/run/s"], object()])
async def test_what_is_no_path(unix: Any) -> None:
    with pytest.raises(ValueError, match=r"unix is .*; it has to be the path of a Unix socket"):
        await websocket_connect("ws://localhost/", unix=unix)


@pytest.mark.gen_test
async def test_a_system_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(ValueError, match=r"unix is '/run/s'; this system has no Unix sockets"):
        await websocket_connect("ws://localhost/", unix="/run/s")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "url",
    [
        "ws+unix:",
        "ws+unix://",
        "ws+unix:///",
        "ws+unix://host/path",
        "ws+unix:relative:/",
        "ws+unix:///a:b",
        "ws+unix:///a?b",
        "ws+unix:///a%00",
    ],
)
async def test_a_wrong_url_of_a_unix_socket(url: str) -> None:
    with pytest.raises(ValueError, match=r"a Unix socket's has the form ws\+unix:///path"):
        await websocket_connect(url)


@pytest.mark.gen_test
async def test_a_redirect_stays_at_the_unix_socket(path: Path) -> None:
    routes: list[Any] = [(r"/(\d+)", Redirecting, {"asked": []}), ("/echo", Echo)]
    async with serving(routes, sockets=[bind_unix_socket(str(path))]):
        for location in ("/echo", "ws://localhost/echo", "http://localhost:80/echo"):
            await echo(f"ws://localhost/302?to={location}", unix=path, follow_redirects=True)
        with pytest.raises(RedirectError, match=r"'ws://elsewhere.test/', which is not where unix= or sock= leads"):
            await websocket_connect("ws://localhost/302?to=ws://elsewhere.test/", unix=path, follow_redirects=True)


# A socket that is there already


def connected_socket(server: RawServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port))


@pytest.mark.gen_test
async def test_a_socket_of_the_caller(tls: Tls, log: Log) -> None:
    async with (
        serving(Echo, alone=False) as plain,
        serving(Echo, alone=False, ssl_options=tls.server) as secure,
    ):
        for url, scheme in ((plain, "ws"), (secure, "wss")):
            sock = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
            await echo(f"{scheme}://localhost/", sock=sock, ssl_options=tls.client)
            assert sock.fileno() == -1
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_pair_of_sockets() -> None:
    ours, theirs = socket.socketpair()
    peer = RawPeer(theirs, is_client=False)
    connecting = websocket_connect("ws://localhost/", sock=ours)
    await peer.receive_head()
    await peer.send(opening_answer(peer))
    conn = await connecting
    conn.close()
    await peer.answer_close()
    await conn.wait_closed()
    peer.close()


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["refused", "timeout", "cancelled", "cancelled at once", "bad certificate file"])
async def test_a_socket_is_closed_when_connecting_fails(way: str) -> None:
    async with raw_server() as server:
        sock = connected_socket(server)
        request: Any = HTTPRequest("ws://localhost/", connect_timeout=0.2 if way == "timeout" else 20)
        if way == "bad certificate file":
            request = HTTPRequest("wss://localhost/", ca_certs="/nothing")
        connecting: Any = websocket_connect(request, sock=sock)
        if way == "cancelled at once":
            connecting.cancel()
        elif way != "bad certificate file":
            peer = await server.accept_tcp()
            await peer.receive_head()
            if way == "refused":
                await peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            elif way == "cancelled":
                connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled() or connecting.exception() is not None
        await until(lambda: sock.fileno() == -1)


@pytest.mark.gen_test
async def test_a_socket_stays_with_the_caller_when_the_arguments_are_wrong() -> None:
    async with raw_server() as server:
        with connected_socket(server) as sock:
            for options in (
                {"unix": "/run/s"},
                {"proxy": "http://proxy"},
                {"source_address": ("127.0.0.1", 0)},
                {"follow_redirects": True},
            ):
                with pytest.raises(ValueError, match=r"(and sock|sock and source_address|sock) (are|is) given"):
                    await websocket_connect("ws://localhost/", sock=sock, **options)
            with pytest.raises(ValueError, match="sock is given with redirects or digest authentication"):
                await websocket_connect(HTTPRequest("ws://localhost/", auth_mode="digest"), sock=sock)
            with pytest.raises(ValueError, match="sock is given, and one socket cannot be connected again"):
                async for _ in reconnect("ws://localhost/", sock=sock):  # type: ignore[call-overload]
                    pass
            assert sock.getpeername()[1] == server.port


@pytest.mark.gen_test
async def test_what_is_no_connected_socket(tls: Tls) -> None:
    with (
        socket.socket() as unconnected,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        tls.client.wrap_socket(socket.socket(), server_hostname="x") as secure,
    ):
        for sock, says in (
            (1, "has to be a socket.socket of type SOCK_STREAM"),
            (datagrams, "SOCK_STREAM"),
            (secure, "without TLS"),
            (unconnected, "has to be connected"),
        ):
            with pytest.raises(ValueError, match=rf"sock is .*; it .*{says}"):
                await websocket_connect("ws://localhost/", sock=sock)  # type: ignore[arg-type]


# The address to connect from


@pytest.mark.gen_test
async def test_an_address_to_connect_from() -> None:
    async with raw_server() as server:
        for host, port in (("127.0.0.2", 0), ("127.0.0.1", unused_port())):
            connecting = websocket_connect(server.url, source_address=(host, port))
            peer = await server.accept()
            address = peer.sock.getpeername()
            assert address[0] == host
            assert port in (0, address[1])
            (await connecting).close()
            await peer.answer_close()


@pytest.mark.gen_test
async def test_a_proxy_is_connected_to_from_there() -> None:
    async with raw_server() as server:
        options: dict[str, Any] = {"proxy": f"http://127.0.0.1:{server.port}", "source_address": ("127.0.0.2", 0)}
        connecting: Any = websocket_connect("ws://host/", **options)
        peer = await server.accept_tcp()
        assert peer.sock.getpeername()[0] == "127.0.0.2"
        connecting.cancel()


@pytest.mark.gen_test
async def test_an_address_of_another_machine() -> None:
    sockets = Sockets()
    with pytest.raises(OSError, match=r"cannot connect to 127.0.0.1: .*assign"):
        await websocket_connect("ws://127.0.0.1:9/", source_address=("192.0.2.1", 0))
    await until(lambda: not sockets.new())


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", ("localhost", 0), ("127.0.0.1", "0"), ("127.0.0.1", 65536), ("127.0.0.1", -1), 1, (None, 1)],
)
async def test_what_is_no_address(address: Any) -> None:
    with pytest.raises(ValueError, match=r"source_address is .*; it has to be a pair of an IP address"):
        await websocket_connect("ws://127.0.0.1:9/", source_address=address)


@pytest.mark.gen_test
async def test_ways_that_do_not_go_together() -> None:
    options: dict[str, Any] = {"unix": "/run/s", "source_address": ("127.0.0.1", 0)}
    with pytest.raises(ValueError, match="unix and source_address are given; source_address is for TCP"):
        await websocket_connect("ws://127.0.0.1:9/", **options)
    with pytest.raises(ValueError, match="proxy and unix are given; only one of them"):
        await websocket_connect("ws://127.0.0.1:9/", unix="/run/s", proxy="http://proxy")
    with pytest.raises(ValueError, match="URL is that of a Unix socket, and unix= is given"):
        await websocket_connect("ws+unix:///run/s", unix="/run/s")


# TLS


@pytest.mark.gen_test
async def test_the_name_that_a_server_is_asked_for(tls: Tls) -> None:
    names: list[Any] = []

    def note(_: ssl.SSLObject, name: str, __: ssl.SSLContext) -> None:
        names.append(name)

    tls.server.sni_callback = note
    try:
        async with serving(Echo, ssl_options=tls.server) as url:
            secure = url.replace("ws://127.0.0.1", "wss://[::ffff:127.0.0.1]")
            await echo(secure, ssl_options=tls.client, server_hostname="localhost")
            with pytest.raises(ssl.SSLCertVerificationError):
                await websocket_connect(secure, ssl_options=tls.client, server_hostname="other.test")
    finally:
        tls.server.sni_callback = None
    assert names == ["localhost", "other.test"]


@pytest.mark.gen_test
async def test_that_name_is_for_the_first_origin_only(tls: Tls) -> None:
    routes: list[Any] = [(r"/(\d+)", Redirecting, {"asked": []}), ("/echo", Echo)]
    async with serving(routes, ssl_options=tls.server) as url:
        port = url.rpartition(":")[2]
        options: dict[str, Any] = {
            "ssl_options": tls.client,
            "server_hostname": "localhost",
            "follow_redirects": True,
        }
        first = f"wss://[::ffff:127.0.0.1]:{port}/302?to="
        await echo(f"{first}/echo", **options)
        await echo(f"{first}wss://127.0.0.1:{port}/echo", **options)
        with pytest.raises(ssl.SSLCertVerificationError):
            await websocket_connect(f"{first}wss://127.1:{port}/echo", **options)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("url", "name", "says"), [("ws://h/", "n", "is for TLS only"), ("wss://h/", 1, "a str"), ("wss://h/", "", "a str")]
)
async def test_a_wrong_name(url: str, name: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"server_hostname is .*{says}"):
        await websocket_connect(url, server_hostname=name)


class WhoAreYou(WebSocketHandler):
    def open(self) -> None:
        assert self.ws_connection is not None
        stream: Any = self.ws_connection.stream
        certificate = stream.socket.getpeercert()
        self.write_message(certificate["subjectAltName"][0][1])


@pytest.mark.gen_test
@pytest.mark.parametrize("by", ["HTTPRequest", "ssl_options"])
async def test_a_client_certificate(by: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    own = authority.issue_cert("me@example.org")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}
    context = ssl.create_default_context(cafile=files["ca"])
    async with serving(WhoAreYou, ssl_options=server) as url:
        secure = url.replace("ws://127.0.0.1", "wss://localhost")
        if by == "HTTPRequest":
            with_own: dict[str, Any] = {
                "url": HTTPRequest(secure, ca_certs=files["ca"], client_cert=files["cert"], client_key=files["key"])
            }
        else:
            own.configure_cert(context)
            with_own = {"url": secure, "ssl_options": context}
        async with websocket_connect(**with_own) as conn:
            assert await conn.read_message() == "me@example.org"
        without = websocket_connect(secure, ssl_options=ssl.create_default_context(cafile=files["ca"]))
        # With TLS 1.3 a server refuses when the client believes that it is through.
        with pytest.raises(OSError, match=r"(?i)certificate required|closed|reset|handshake"):
            await without


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"client_cert": "/no/such/file"}, FileNotFoundError),
        ({"client_cert": __file__, "client_key": "/no/such/file"}, ssl.SSLError),
        ({"ca_certs": "/no/such/file"}, FileNotFoundError),
        ({"ca_certs": __file__}, ssl.SSLError),
    ],
    ids=["cert", "key", "ca", "no certificate"],
)
async def test_a_file_that_cannot_be_used_is_named(options: dict[str, Any], error: type[OSError]) -> None:
    async with raw_server() as server:
        with pytest.raises(error, match="; that cannot be used: ") as caught:
            await websocket_connect(HTTPRequest(server.url.replace("ws", "wss"), **options))
        assert all(f"{name} is {value!r}" in str(caught.value) for name, value in options.items())


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["ssl_options", "proxy_ssl_options"])
async def test_wrong_ssl_options(name: str) -> None:
    options: dict[str, Any] = {name: True}
    with pytest.raises(ValueError, match=f"{name} is True; it has to be an ssl.SSLContext or a dict"):
        await websocket_connect("wss://127.0.0.1:9/", **options)
