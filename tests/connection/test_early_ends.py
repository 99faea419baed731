"""Peers that send all they have with the opening handshake, and FIN right behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import pytest
from tornado.httpclient import HTTPRequest

from tests.conftest import Tls
from tests.peer import Recording, frame, opening_answer, opening_request, raw_server
from tests.support import disconnect, serving, until
from tests.tls_wire import connected
from tests.wire import CLOSE, TEXT, Frame, close_payload
from tornado_ws import websocket_connect

TRANSPORTS = ["TCP", "TLS"]
#: The last frames of the peer, the code and the reason that are seen, and what answers the close frame.
ENDS: dict[str, tuple[list[tuple[int, bytes]], tuple[int | None, str | None], list[Frame]]] = {
    "close": ([(CLOSE, close_payload(4001, "bye"))], (4001, "bye"), [Frame(CLOSE, close_payload(4001))]),
    "FIN": ([], (None, None), []),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_a_client_sends_at_once_before_its_end_is_received(tls: Tls, transport: str, end: str) -> None:
    calls: list[Any] = []
    last, seen, answers = ENDS[end]
    server_context = tls.server if transport == "TLS" else None
    async with serving(Recording, calls=calls, ssl_options=server_context) as url:
        with socket.socket() as sock:
            sock.setblocking(False)
            parts = urlsplit(url)
            await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
            client = await connected(sock, tls.client if server_context else None, is_client=True)
            frames = [(TEXT, b"1"), (TEXT, b"2"), *last]
            # The loop has no turn in between: all of it is there when the server reads.
            await client.send(opening_request(url), *[client.frame(*one) for one in frames])
            client.half_close()
            received: list[Frame | None] = []
            # Without a close frame, OpenSSL takes FIN for a cut (RFC 8446 section 6.1), and answers may be lost.
            with contextlib.suppress(*([] if last else [ConnectionError])):
                await client.receive_head()
                while received[-1:] != [None]:
                    received.append(await client.receive())
        await until(lambda: len(calls) == 4)
    assert calls == ["open", "1", "2", ("close", *seen)]
    if last:
        assert received == [Frame(TEXT, b"1"), Frame(TEXT, b"2"), *answers, None]


@pytest.mark.gen_test
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_a_server_sends_at_once_before_its_end_is_received(tls: Tls, transport: str, end: str) -> None:
    last, seen, _ = ENDS[end]
    context: ssl.SSLContext | None = tls.server if transport == "TLS" else None

    async with raw_server() as server:

        async def serve() -> None:
            sock, _ = await asyncio.get_running_loop().sock_accept(server.sock)
            peer = await connected(sock, context, is_client=False)
            server.peers.append(peer)
            await peer.receive_head()
            # A record each.
            await peer.send(opening_answer(peer))
            for one in [(TEXT, b"1"), (TEXT, b"2"), *last]:
                await peer.send(frame(*one, masked=False))
            peer.half_close()

        serving_it = asyncio.ensure_future(serve())
        url = server.url if context is None else server.url.replace("ws:", "wss:")
        conn = await websocket_connect(HTTPRequest(url, ssl_options=tls.client))
        assert [await conn.read_message() for _ in range(3)] == ["1", "2", None]
        assert (conn.close_code, conn.close_reason) == seen
        await serving_it
        await disconnect(conn)


@pytest.mark.gen_test
async def test_what_came_with_the_101_is_first_though_the_client_closes_before_it_is_handed_out() -> None:
    received: list[Any] = []
    async with raw_server() as server:
        connecting = websocket_connect(server.url, on_message_callback=received.append)

        def close_at_once(future: asyncio.Future[Any]) -> None:
            server.peers[0].sock.send(frame(TEXT, b"second", masked=False))
            conn = future.result()
            conn.close()
            asyncio.get_running_loop().call_soon(serve, conn)

        def serve(conn: Any) -> None:
            """As the poller does in the same turn, where other connections have events."""
            transport = conn._ws_protocol._transport
            if transport.reading:
                transport.handle_events()

        connecting.add_done_callback(close_at_once)
        peer = await server.accept(early=frame(TEXT, b"first", masked=False))
        conn = await connecting
        await until(lambda: len(received) == 2)
        peer.close()
        await until(conn.stream.closed)
    assert received[:2] == ["first", "second"]
