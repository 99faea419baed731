"""Clients that read messages in parts (``message_streams``, ``read_stream``)."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from tests.conftest import Tls
from tests.peer import WAYS_TO_END, RawPeer, end_by, raw_pair
from tests.support import connected, serving, until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close_payload
from tornado_ws import MessageStream, WebSocketClosedError, WebSocketHandler, websocket_connect

KIB = 1024


async def send(peer: RawPeer, opcode: int, *parts: bytes) -> None:
    """Send a message of so many fragments."""
    last = len(parts) - 1
    for number, part in enumerate(parts):
        await peer.send_frame(CONTINUATION if number else opcode, part, fin=number == last)


async def next_stream(conn: Any) -> MessageStream:
    stream = await conn.read_stream()
    assert isinstance(stream, MessageStream)
    return stream


@pytest.mark.gen_test
async def test_parts_come_as_they_come() -> None:
    async with raw_pair(message_streams=True) as (conn, peer):
        frame = peer.frame(TEXT, b"abcdef")
        await peer.send(frame[:-3])
        stream = await next_stream(conn)
        assert (stream.is_binary, await stream.read()) == (False, "abc")
        await peer.send(frame[-3:], peer.frame(BINARY, b"whole"), peer.frame(PING, b"x"))
        assert [part async for part in stream] == ["def"]
        assert [part async for part in conn.read_stream()] == [b"whole"]
        assert await peer.receive() == Frame(PONG, b"x")


@pytest.mark.gen_test
async def test_a_client_may_read_whole_messages_between() -> None:
    async with raw_pair(message_streams=True) as (conn, peer):
        await send(peer, TEXT, b"a", b"\xe2\x82", b"\xac")
        await send(peer, BINARY, b"1", b"2")
        await send(peer, TEXT, b"")
        await send(peer, TEXT, b"x", b"y")
        await send(peer, TEXT, b"last")
        assert await conn.read_message() == "a€"
        assert [part async for part in conn.read_stream()] == [b"1", b"2"]
        assert await conn.read_message() == ""
        assert await conn.__anext__() == "xy"
        readings = conn.read_message(), conn.read_message()
        await send(peer, TEXT, b"more")
        assert [await reading for reading in readings] == ["last", "more"]


@pytest.mark.gen_test
async def test_whoever_reads_on_leaves_the_rest_of_a_message() -> None:
    async with raw_pair(message_streams=True) as (conn, peer):
        # More than is read ahead: what nobody wants has to be taken from the socket.
        sending = asyncio.ensure_future(send(peer, BINARY, *[bytes(64 * KIB)] * 200))
        left = await next_stream(conn)
        async for _ in left:
            break
        behind = asyncio.ensure_future(conn.read_message())
        await sending
        await send(peer, TEXT, b"next")
        assert await behind == "next"
        with pytest.raises(RuntimeError, match="was left before its end"):
            await left.read()


@pytest.mark.gen_test
async def test_nothing_is_read_from_the_socket_while_no_part_is_asked_for() -> None:
    async with raw_pair(message_streams=True) as (conn, peer):
        sending = asyncio.ensure_future(send(peer, BINARY, *[bytes(64 * KIB)] * 400))
        protocol: Any = conn.protocol
        await until(lambda: protocol._transport is not None)
        for _ in range(2):
            await until(lambda: not protocol._transport.reading)
            assert protocol.counters.wire_bytes_in <= 8 * 64 * KIB
            stream = conn._streams._current or await next_stream(conn)  # type: ignore[union-attr]
            assert await stream.read()
        assert not sending.done()
        assert sum([len(part) async for part in stream]) > (400 - 2 * 2) * 64 * KIB
        await sending


@pytest.mark.gen_test
async def test_a_message_that_is_too_large_to_be_read_as_a_whole() -> None:
    async with raw_pair(message_streams=True, max_message_size=1000) as (conn, peer):
        await send(peer, BINARY, bytes(600), bytes(600))
        assert sum([len(part) async for part in conn.read_stream()]) == 1200
        await send(peer, BINARY, bytes(600), bytes(600))
        assert await conn.read_message() is None
        received = await peer.receive()
        assert received is not None
        assert received.payload[:2] == (1009).to_bytes(2, "big")


@pytest.mark.gen_test
async def test_the_limit_of_a_message_in_parts() -> None:
    async with raw_pair(message_streams=True, max_stream_size=1000) as (conn, peer):
        await peer.send(peer.frame(BINARY, b"x", fin=False), peer.frame(CONTINUATION, b"", length=1000))
        stream = await next_stream(conn)
        assert await stream.read() == b"x"
        with pytest.raises(WebSocketClosedError, match="ended inside a message, with 1009: message too big") as raised:
            await stream.read()
        assert (raised.value.close_code, raised.value.close_reason) == (1009, "message too big")


@pytest.mark.gen_test
@pytest.mark.parametrize("way", WAYS_TO_END)
@pytest.mark.parametrize("reads", ["parts", "all", "whole", "none"])
async def test_the_end_of_the_connection_inside_a_message(way: str, reads: str) -> None:
    async with raw_pair(message_streams=True) as (conn, peer):
        await peer.send_frame(BINARY, b"half", fin=False)
        if reads == "none":
            await until(lambda: conn.read_queue.qsize())
            await end_by(way, conn, peer)
            stream = await next_stream(conn)
            assert await stream.read() == b"half"
            with pytest.raises(WebSocketClosedError):
                await stream.read()
        elif reads == "whole":
            reading: Any = conn.read_message()
            await until(lambda: conn._streams._current is not None)  # type: ignore[union-attr]
            await end_by(way, conn, peer)
            assert await reading is None
        else:
            stream = await next_stream(conn)
            if reads != "all":
                assert await stream.read() == b"half"
            reading = asyncio.ensure_future(stream.read_all() if reads == "all" else stream.read())
            await asyncio.sleep(0)
            await end_by(way, conn, peer)
            for _ in range(2):
                with pytest.raises(WebSocketClosedError):
                    await reading
                reading = stream.read_all()
            if reads == "all":
                assert await stream.read() == b"half"
            reading.close()
        assert await conn.read_stream() is None
        assert await conn.read_message() is None
        with pytest.raises(WebSocketClosedError, match="there is no message"):
            await conn.read_stream().__anext__()


@pytest.mark.gen_test
async def test_the_reason_of_a_close_frame_inside_a_message() -> None:
    async with raw_pair(message_streams=True) as (conn, peer):
        await peer.send(peer.frame(TEXT, b"half", fin=False), peer.frame(CLOSE, close_payload(4000, "no more")))
        stream = await next_stream(conn)
        with pytest.raises(WebSocketClosedError, match="with 4000: no more") as raised:
            await stream.read_all()
        assert (raised.value.close_code, raised.value.close_reason) == (4000, "no more")


@pytest.mark.gen_test
async def test_closing_does_not_wait_for_a_message_that_nobody_reads() -> None:
    async with raw_pair(message_streams=True) as (conn, peer):
        sending = asyncio.ensure_future(send(peer, BINARY, *[bytes(64 * KIB)] * 400))
        async for _ in conn.read_stream():
            break
        conn.close(1000)
        await sending
        assert await peer.answer_close() == []
        await conn.wait_closed()


@pytest.mark.gen_test
async def test_a_cancelled_reading_loses_nothing() -> None:
    async with raw_pair(message_streams=True) as (conn, peer):
        for reading in (asyncio.ensure_future(conn.read_message()), asyncio.ensure_future(next_stream(conn))):
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        whole: Any = conn.read_message()
        await peer.send_frame(TEXT, b"a", fin=False)
        await until(lambda: conn._streams._current is not None)  # type: ignore[union-attr]
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole
        await peer.send_frame(CONTINUATION, b"b")
        assert await conn.read_message() == "ab"


@pytest.mark.gen_test
async def test_a_connection_without_streams_says_how_to_get_them() -> None:
    async with raw_pair() as (conn, _):
        assert conn.on_message_stream is None
        with pytest.raises(RuntimeError, match="message_streams=True"):
            conn.read_stream()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"codec": "json"}, "codec is 'json'; it has to be None where messages are read in parts"),
        ({"on_message_callback": print}, "on_message_callback is <.*print>; it has to be None where"),
        ({"max_part_size": 3}, "max_part_size is 3; it has to be a whole number of bytes, 4 or more"),
        ({"max_stream_size": -1}, "max_stream_size is -1; it has to be a whole number of bytes above 0, or None"),
    ],
)
@pytest.mark.gen_test
async def test_options_that_do_not_fit_are_refused(option: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        await websocket_connect("ws://127.0.0.1:1", message_streams=True, **option)


class Sender(WebSocketHandler):
    """Sends as many bytes as it is told, and echoes text in parts."""

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    async def on_message(self, message: str | bytes) -> None:
        async with self.write_stream(binary=True) as stream:
            for _ in range(10):
                await stream.write(os.urandom(int(message) // 20).hex().encode())


@pytest.mark.gen_test
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("options", [{}, {"compression_options": {}}, {"compression_options": {"offload_size": 1000}}])
async def test_large_messages_of_a_server_of_ours(secure: bool, options: dict[str, Any], tls: Tls) -> None:
    async with serving(Sender, ssl_options=tls.server if secure else None) as url:
        if secure:
            options = {**options, "ssl_options": tls.client}
            url = url.replace("ws://", "wss://")
        async with connected(url, message_streams=True, max_part_size=50_000, **options) as conn:
            await conn.write_message("1000000")
            sizes = [len(part) async for part in conn.read_stream()]
            assert sum(sizes) == 1_000_000
            assert max(sizes) <= 50_000
