"""Peers that misbehave when they are told to, and what both ends of tornado_ws do then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tornado.simple_httpclient import HTTPStreamClosedError

from tests.support import FOREVER, Echo, until
from tornado_ws import HandshakeRejectedError, InvalidHandshakeError, WebSocketHandler
from tornado_ws.testing import Frame, RawPeer, expect, expect_close, expect_refused, raw_client, raw_server
from tornado_ws.testing.frames import CLOSE, PING, TEXT, frame
from tornado_ws.testing.plugin import Connector, ServerFactory
from tornado_ws.testing.violations import MASKED, UNMASKED, VIOLATIONS, violation_of

#: More than the buffers of two sockets take.
MUCH = 8 * 1024 * 1024


@pytest.mark.parametrize("name", ["unmasked", "RSV2", "text not UTF-8", "fragmented ping", "close code 1005"])
async def test_a_client_breaks_the_protocol_by_name(ws_server: ServerFactory, name: str) -> None:
    server = await ws_server(Echo)
    async with raw_client(server.url) as peer:
        violation = await peer.violate(name)
        assert violation == violation_of(name)
        await expect_close(peer, violation.code)


@pytest.mark.parametrize("name", ["masked", "opcode 0x3", "too big, header alone"])
async def test_a_server_breaks_the_protocol_by_name(ws_connect: Connector, name: str) -> None:
    async with raw_server() as server:
        peer, conn = await asyncio.gather(server.accept(), ws_connect(server))
        violation = await peer.violate(violation_of(name))
        await expect_close(peer, violation.code)
        await expect_close(conn, violation.code)


def test_names_of_violations_are_each_used_once_and_a_wrong_one_is_answered_with_all() -> None:
    names = [violation.name for violation in (*VIOLATIONS, UNMASKED, MASKED)]
    assert len(set(names)) == len(names)
    with pytest.raises(ValueError, match=r"violation is 'nonsense'; it has to be one of 'RSV2', .*'masked'"):
        violation_of("nonsense")


async def test_bytes_sent_one_by_one_are_a_message(ws_server: ServerFactory) -> None:
    server = await ws_server(Echo)
    async with raw_client(server.url) as peer:
        await peer.send_slowly(peer.frame(TEXT, b"slow"), pause=0)
        await expect(peer, Frame(TEXT, b"slow"))
        await peer.send_slowly(peer.frame(TEXT, b"slow"), size=3, pause=0.001)
        await expect(peer, Frame(TEXT, b"slow"))


async def test_a_slow_reader_gets_all(ws_server: ServerFactory) -> None:
    def answer(conn: WebSocketHandler, message: str) -> None:
        conn.write_message("x" * 1000)
        conn.close()

    # The peer does not answer the close frame.
    server = await ws_server(answer, websocket_close_timeout=0.05)
    async with raw_client(server.url) as peer:
        await peer.send_frame(TEXT, b"go")
        received = await peer.receive_slowly(size=100, pause=0.0001)
        assert received == Frame(TEXT, b"x" * 1000).encode(None) + Frame(CLOSE).encode(None)


async def test_a_stalled_reader_makes_writes_wait(ws_connect: Connector) -> None:
    async with raw_server(stalling=True) as server:
        peer, conn = await asyncio.gather(server.accept(), ws_connect(server))
        future = conn.write_message(b"x" * MUCH, binary=True)
        assert not future.done()
        assert conn.buffered_amount > 0
        assert not conn.stream.closed()
        reading = asyncio.ensure_future(peer.receive())
        await future
        await reading


async def test_a_half_closed_client_is_answered_with_the_end(ws_server: ServerFactory) -> None:
    server = await ws_server(Echo)
    async with raw_client(server.url) as peer:
        await peer.send_frame(TEXT, b"last")
        peer.half_close()
        await expect(peer, Frame(TEXT, b"last"))
        assert await peer.receive_rest() == []
        await until(lambda: not server.connections)


async def test_a_reset_is_an_end_without_a_close_frame(ws_connect: Connector) -> None:
    async with raw_server() as server:
        peer, conn = await asyncio.gather(server.accept(), ws_connect(server))
        peer.reset()
        await expect_close(conn, 1006)


async def test_an_answer_that_comes_late(ws_connect: Connector) -> None:
    async with raw_server() as server:
        accepting = asyncio.ensure_future(server.accept(delay=FOREVER))
        connecting = asyncio.ensure_future(ws_connect(server))
        await until(lambda: server.peers and server.peers[0].head)
        assert not connecting.done()
        connecting.cancel()
        accepting.cancel()
        await asyncio.wait([connecting, accepting])
        peer, conn = await asyncio.gather(server.accept(delay=0.001), ws_connect(server))
        await conn.write_message("x")
        await expect(peer, Frame(TEXT, b"x"))


async def test_a_server_refuses_with_a_status(ws_connect: Connector) -> None:
    async with raw_server() as server:
        _, error = await asyncio.gather(
            server.refuse("429 Too Many Requests", b"later", Retry_After="7"),
            expect_refused(ws_connect(server), 429),
        )
        assert isinstance(error, HandshakeRejectedError)
        assert error.headers["Retry-After"] == "7"
        assert error.response is not None
        assert error.response.body == b"later"


async def test_a_101_may_be_wrong(ws_connect: Connector) -> None:
    async with raw_server() as server:
        accepting = asyncio.ensure_future(server.accept(Sec_WebSocket_Accept="nonsense"))
        with pytest.raises(InvalidHandshakeError):
            await ws_connect(server)
        await accepting


async def test_data_right_behind_the_101(ws_connect: Connector) -> None:
    async with raw_server() as server:
        early = Frame(TEXT, b"early").encode(None) + Frame(PING, b"?").encode(None)
        peer, conn = await asyncio.gather(server.accept(early=early), ws_connect(server))
        await expect(conn, "early")
        conn.close(4000)
        assert [frame.payload for frame in await peer.answer_close()] == [b"?"]
        await expect_close(conn, 4000)


async def test_a_closed_connection_is_seen(ws_server: ServerFactory) -> None:
    server = await ws_server(lambda conn, message: conn.ws_connection._abort())
    async with raw_client(server.url) as peer:
        await peer.send_frame(TEXT, b"go")
        assert await peer.is_cut_off(peer.frame(TEXT, b"more"))


async def test_an_open_connection_is_not_cut_off(ws_server: ServerFactory) -> None:
    server = await ws_server(Echo)
    async with raw_client(server.url) as peer:
        await peer.send_frame(TEXT, b"x")
        await until(peer.has_unread)
        assert not await peer.is_cut_off(peer.frame(TEXT, b"more"), timeout=0.01)


async def test_a_connection_that_ends_in_the_opening_handshake(ws_connect: Connector) -> None:
    async with raw_server() as server:
        connecting = asyncio.ensure_future(ws_connect(server))
        peer = await server.accept_tcp()
        await peer.receive_head()
        assert peer.header("Upgrade") == "websocket"
        assert peer.header("X-None") is None
        peer.close()
        with pytest.raises(HTTPStreamClosedError):
            await connecting


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        (b"HTTP/1.1 200", "connection ended inside an HTTP head: b'HTTP/1.1 200'"),
        (b"HTTP/1.1 101 x\r\n\r\n\x81", "connection ended inside a frame: b'.x81'"),
        (b"HTTP/1.1 101 x\r\n\r\n\x81\x80", "clients have to mask and servers may not"),
        (b"HTTP/1.1 101 x\r\n\r\n\x81\x7e\x00\x01x", "length is not in its shortest form"),
        (b"HTTP/1.1 101 x\r\n\r\n", "no close frame"),
    ],
)
@pytest.mark.gen_test
async def test_what_a_server_sends_is_checked(wire: bytes, says: str) -> None:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(wire)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(AssertionError, match=says):
        async with raw_client(f"ws://127.0.0.1:{port}/") as peer:
            await peer.answer_close()
    server.close()
    await server.wait_closed()


@pytest.mark.gen_test
async def test_wrong_arguments_are_named() -> None:
    for url in ("wss://127.0.0.1:1/", "ws://127.0.0.1/", "nonsense"):
        with pytest.raises(ValueError, match="it has to be ws://HOST:PORT"):
            async with raw_client(url):
                pass
    with pytest.raises(ValueError, match="length_bytes is 3; it has to be 0, 2 or 8"):
        frame(TEXT, masked=False, length_bytes=3)
    peer: Any = RawPeer.__new__(RawPeer)
    for arguments in ({"size": 0}, {"pause": -1}):
        for sending in (peer.send_slowly(b"", **arguments), peer.receive_slowly(**arguments)):
            with pytest.raises(ValueError, match="allowed are bytes from 1 and seconds from 0"):
                await sending
