"""The opening handshake as a client sends it (RFC 6455 section 4.1), and what comes before it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from tests.client.test_request import To
from tests.peer import KEY, RawServer, raw_server
from tests.support import until
from tornado_ws import InvalidHandshakeError, websocket_connect
from tornado_ws.handshake import compute_accept_value


async def request_of(server: RawServer, path: str = "/", **options: Any) -> tuple[str, HTTPHeaders]:
    """Return the start line and the headers of what a client sends to ``server``."""
    connecting = websocket_connect(server.url + path, **options)
    peer = await server.accept()
    (await connecting).close()
    await peer.answer_close()
    start, _, rest = peer.head.partition("\r\n")
    return start, HTTPHeaders.parse(rest)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("path", "target"),
    [("", "/"), ("?q=1", "/?q=1"), ("/a/b", "/a/b"), ("/a%23?x=%23&y", "/a%23?x=%23&y"), ("/a?b#c", "/a?b")],
)
@pytest.mark.rfc("6455-3-fragment", "6455-4.1-get", "6455-4.1-request-uri")
async def test_a_client_gets_path_and_query_and_no_fragment(path: str, target: str) -> None:
    async with raw_server() as server:
        start, _ = await request_of(server, path)
    assert start == f"GET {target} HTTP/1.1"


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-host", "6455-4.1-upgrade", "6455-4.1-connection", "6455-4.1-version", "6455-4.1-key")
@pytest.mark.rfc("6455-11.3.1-key-once", "6455-11.3.5-version-once")
async def test_a_client_sends_what_the_rfc_asks_for_once_and_a_key_of_its_own() -> None:
    keys = set()
    async with raw_server() as server:
        for _ in range(3):
            _, headers = await request_of(server)
            expected = {
                "Host": server.url.removeprefix("ws://"),
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
            }
            assert {name: headers.get_list(name) for name in expected} == {
                name: [value] for name, value in expected.items()
            }
            (key,) = headers.get_list("Sec-WebSocket-Key")
            assert len(base64.b64decode(key, validate=True)) == 16
            keys.add(key)
    assert len(keys) == 3


@pytest.mark.gen_test
@pytest.mark.rfc("6455-9.1-registered")
async def test_a_client_offers_the_registered_extension_and_only_where_it_was_told_to() -> None:
    async with raw_server() as server:
        _, headers = await request_of(server)
        assert "Sec-WebSocket-Extensions" not in headers
        assert "Sec-WebSocket-Protocol" not in headers
        _, headers = await request_of(server, compression_options={})
        (offer,) = headers.get_list("Sec-WebSocket-Extensions")
        assert offer.split(";")[0] == "permessage-deflate"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("subprotocols", "header"),
    [
        pytest.param(["a", "b", "a"], "a,b", marks=pytest.mark.rfc("6455-4.1-subprotocols-unique"), id="twice"),
        pytest.param(["a", "b=="], "a,b==", marks=pytest.mark.rfc("6455-4.1-subprotocols-tokens"), id="no token"),
    ],
)
async def test_a_client_offers_subprotocols(subprotocols: list[str], header: str) -> None:
    async with raw_server() as server:
        _, headers = await request_of(server, subprotocols=subprotocols)
        assert headers.get_list("Sec-WebSocket-Protocol") == [header]


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-wait")
async def test_a_client_sends_nothing_before_the_answer() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url, ping_interval=0.01)
        peer = await server.accept_tcp()
        await peer.receive_head()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(peer.receive_bytes(), 0.1)
        connecting.cancel()
        assert await peer.receive_bytes() == b""


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-one-connecting")
async def test_connections_to_one_address_are_opened_side_by_side() -> None:
    async with raw_server() as server:
        connecting = [websocket_connect(server.url) for _ in range(2)]
        peers = [await server.accept_tcp() for _ in connecting]
        for peer in peers:
            await peer.receive_head()
        for attempt in connecting:
            assert not attempt.done()
            attempt.cancel()


async def first_bytes(server: RawServer, url: str) -> tuple[bytes, list[tuple[str, int]]]:
    """Return what a client says first to ``url``, and what it had resolved. It gives up then."""
    resolver = To(server.sock.getsockname()[1])
    connecting = websocket_connect(url, resolver=resolver)
    peer = await server.accept_tcp()
    first = await peer.receive_bytes()
    connecting.cancel()
    await until(connecting.done)
    return first, resolver.asked


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("ws://example.test/", 80),
        ("wss://example.test/", 443),
        ("WS://example.test/", 80),
        ("WSS://example.test/", 443),
        ("ws://example.test:8080/", 8080),
        ("wss://example.test:8443/", 8443),
    ],
)
@pytest.mark.rfc("6455-3-default-port")
async def test_the_port_is_that_of_the_scheme_unless_one_is_given(url: str, port: int) -> None:
    async with raw_server() as server:
        first, asked = await first_bytes(server, url)
    assert asked == [("example.test", port)]
    assert first.startswith(b"\x16\x03" if url.lower().startswith("wss") else b"GET ")


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-tls-first", "6455-4.1-sni")
async def test_a_client_speaks_tls_first_and_names_the_host() -> None:
    async with raw_server() as server:
        hello, _ = await first_bytes(server, "wss://example.test/secret")
    # A handshake record with a ClientHello in it, and its server_name extension (RFC 6066 section 3).
    assert (hello[0], hello[5]) == (0x16, 0x01)
    assert b"\x00\x00\x0cexample.test" in hello
    assert b"secret" not in hello


@pytest.mark.gen_test
@pytest.mark.rfc("6455-11.3.3-accept-once")
async def test_an_answer_with_two_accept_values_is_refused_though_both_are_right() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        peer = await server.accept_tcp()
        await peer.receive_head()
        accept = f"Sec-WebSocket-Accept: {compute_accept_value(peer.header('Sec-WebSocket-Key') or KEY)}\r\n"
        head = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{accept * 2}\r\n"
        await peer.send(head.encode())
        with pytest.raises(InvalidHandshakeError, match="Sec-WebSocket-Accept is"):
            await connecting
        assert await peer.receive_bytes() == b""
