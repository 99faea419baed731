"""What assertions accept, and what they say when something else comes, or nothing."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tornado.web import HTTPError

from tests.support import Echo
from tornado_ws import WebSocketClientConnection
from tornado_ws.testing import Frame, RawPeer, expect, expect_close, expect_refused, raw_client, raw_server
from tornado_ws.testing.frames import CLOSE, PING, TEXT
from tornado_ws.testing.plugin import Connector, PairFactory, ServerFactory


class Obedient(Echo):
    """Sends back what it gets; "close CODE REASON" closes, and "vanish" does so without a close frame."""

    def on_message(self, message: str | bytes) -> Any:
        command = message.split() if isinstance(message, str) else []
        if command[:1] == ["close"]:
            return self.close(int(command[1]) if command[1:] else None, command[2] if command[2:] else None)
        if command == ["vanish"]:
            connection: Any = self.ws_connection
            return connection._abort()
        return super().on_message(message)


@pytest.fixture
def client(ws_pair: PairFactory) -> Callable[[], Awaitable[WebSocketClientConnection]]:
    async def connect() -> WebSocketClientConnection:
        return (await ws_pair(Obedient)).client

    return connect


Client = Callable[[], Awaitable[WebSocketClientConnection]]


def is_short(message: str) -> bool:
    return len(message) < 4


@pytest.mark.parametrize("wanted", ["abc", str, is_short, lambda message: message[0] == "a"])
async def test_a_message_that_is_wanted_is_returned(client: Client, wanted: Any) -> None:
    conn = await client()
    await conn.write_message("abc")
    assert await expect(conn, wanted) == "abc"


@pytest.mark.parametrize(
    ("sent", "wanted", "says"),
    [
        ("abd", "abc", r"expected text 'abc'; got text 'abd'"),
        (b"abc", "abc", r"expected text 'abc'; got binary b'abc'"),
        ("abc", b"abc", r"expected binary b'abc'; got text 'abc'"),
        ("abc", bytes, r"expected a message of type bytes; got text 'abc'"),
        ("abcd", is_short, r"expected a message of which is_short is true; got text 'abcd'"),
        ("a\x1b" * 200, "abc", r"got text 'a\\x1ba.*… of 400"),
        ("close 4000 bye", "abc", r"expected text 'abc'; got the end of the connection with 4000, 'bye'"),
        ("close", str, r"got the end of the connection with 1005$"),
        ("vanish", str, r"got the end of the connection with 1006$"),
    ],
)
async def test_what_came_instead_is_shown(client: Client, sent: str | bytes, wanted: Any, says: str) -> None:
    conn = await client()
    await conn.write_message(sent, binary=isinstance(sent, bytes))
    with pytest.raises(AssertionError, match=says):
        await expect(conn, wanted)


async def test_values_of_a_codec_are_compared(ws_pair: PairFactory) -> None:
    conn, _ = await ws_pair(Echo, codec="json")
    await conn.write_message({"a": [1, 2]})
    await expect(conn, {"a": [1, 2]})
    await conn.write_message({"a": 1})
    with pytest.raises(AssertionError, match=r"expected \{'a': 2\}; got \{'a': 1\}"):
        await expect(conn, {"a": 2})


async def test_nothing_is_an_error_and_what_comes_later_is_not_lost(client: Client) -> None:
    conn = await client()
    with pytest.raises(AssertionError, match=r"expected text 'abc'; nothing came within 0\.01 s"):
        await expect(conn, "abc", timeout=0.01)
    with pytest.raises(AssertionError, match=r"expected the end of the connection with 1000; nothing came"):
        await expect_close(conn, timeout=0.01)
    await conn.write_message("abc")
    await expect(conn, "abc")


@pytest.mark.parametrize(("command", "end"), [("close 1000", 1000), ("close 4000", 4000), ("close", 1005)])
async def test_an_end_that_is_wanted(client: Client, command: str, end: int) -> None:
    conn = await client()
    await conn.write_message(command)
    await expect_close(conn, end)
    # Again, for it is still closed.
    await expect_close(conn, end)


async def test_an_end_without_a_close_frame_is_1006(client: Client) -> None:
    conn = await client()
    await conn.write_message("vanish")
    await expect_close(conn, 1006)


async def test_another_end_or_a_message_is_shown(client: Client) -> None:
    conn = await client()
    await conn.write_message("abc")
    with pytest.raises(AssertionError, match=r"expected the end of the connection with 1000; got text 'abc'"):
        await expect_close(conn)
    await conn.write_message("close 4000 bye")
    for code, reason, says in (
        (1000, None, r"expected the end of the connection with 1000; got .* with 4000, 'bye'"),
        (4000, "hi", r"expected the end of the connection with 4000, 'hi'; got .* with 4000, 'bye'"),
    ):
        with pytest.raises(AssertionError, match=says):
            await expect_close(conn, code, reason)
    await expect_close(conn, 4000, "bye")


async def test_the_end_of_a_handler(ws_pair: PairFactory) -> None:
    conn, handler = await ws_pair(Echo)
    conn.close(4000, "bye")
    await expect_close(handler, 4000, "bye")
    for without_code in (1005, 1006):
        conn, handler = await ws_pair(Echo)
        conn.close()
        await expect_close(handler, without_code)
    with pytest.raises(AssertionError, match=r"expected .* 1000; got the end of the connection with 1006"):
        await expect_close(handler)


async def test_frames_and_ends_of_a_raw_peer(ws_server: ServerFactory) -> None:
    server = await ws_server(Echo)
    async with raw_client(server.url) as peer:
        await peer.send_frame(TEXT, b"abc")
        await expect(peer, Frame(TEXT, b"abc"))
        await peer.send_frame(PING, b"?")
        with pytest.raises(AssertionError, match=r"Frame\(opcode=9.*; got the frame Frame\(opcode=10"):
            await expect(peer, Frame(PING, b"?"))
        await peer.send_frame(CLOSE, b"\x0f\xa0bye")
        await expect_close(peer, 4000)
        await expect_close(peer, 1006)


async def test_a_reset_is_the_end_of_a_raw_peer(ws_connect: Connector) -> None:
    async with raw_server() as server:
        peer, conn = await asyncio.gather(server.accept(), ws_connect(server))
        sock = conn.stream.socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        conn.stream.close()
        await expect_close(peer, 1006)


async def test_refusals(ws_server: ServerFactory, ws_connect: Connector) -> None:
    class Refusing(Echo):
        def prepare(self) -> None:
            raise HTTPError(403)

    server = await ws_server([("/", Echo), ("/refused", Refusing)])
    error = await expect_refused(ws_connect(server, "/refused"), 403)
    assert error.headers["Content-Type"].startswith("text/html")
    await expect_refused(ws_connect(server, "/nowhere"))
    with pytest.raises(AssertionError, match=r"expected a refusal with 404; got 403: 'Forbidden'"):
        await expect_refused(ws_connect(server, "/refused"), 404)
    with pytest.raises(AssertionError, match=r"expected a refusal; got a connection"):
        await expect_refused(ws_connect(server))
    async with raw_server() as silent:
        with pytest.raises(AssertionError, match=r"expected a refusal with 403; nothing came within 0\.01 s"):
            await expect_refused(ws_connect(silent), 403, timeout=0.01)


async def test_what_nothing_can_be_expected_of_is_named(ws_pair: PairFactory) -> None:
    conn, handler = await ws_pair(Echo, on_message_callback=lambda message: None)
    with pytest.raises(ValueError, match="on_message_callback"):
        await expect(conn, "abc")
    wrong: tuple[Any, ...] = (handler, None, "ws://127.0.0.1")
    for thing in wrong:
        with pytest.raises(TypeError, match=r"it has to be a WebSocketClientConnection of tornado_ws or a RawPeer"):
            await expect(thing, "abc")
    with pytest.raises(TypeError, match="may be a WebSocketHandler"):
        await expect_close(wrong[1])


async def test_a_frame_that_is_wrong_is_an_error_of_its_own(ws_connect: Connector) -> None:
    async with raw_server() as server:
        peer, conn = await asyncio.gather(server.accept(), ws_connect(server))
        other_way = RawPeer(peer.sock, is_client=True)
        await conn.write_message("masked")
        with pytest.raises(AssertionError, match="servers may not"):
            await expect(other_way, Frame(TEXT, b"masked"))
