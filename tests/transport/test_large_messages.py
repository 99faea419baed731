"""Messages larger than what is read at once: the native engine receives them into the place where they are to lie."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tornado.escape import utf8

from tests.peer import RawPeer, Recording, raw_client, raw_pair
from tests.support import Echo, connected, serving, until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, Frame, deflated, inflated
from tornado_ws import WebSocketHandler
from tornado_ws.testing import expect

#: Around the sizes at which an engine changes its ways.
SIZES = [16383, 16384, 16385, 65535, 65536, 262144, 262145, 1_000_003, 3_000_000]


def text_of(size: int) -> bytes:
    """Return text with characters of 1 to 4 bytes, as UTF-8."""
    return ("a\u00e4\u20ac\U0001f600" * (size // 10 + 1)).encode()[: size - size % 10]


async def send_in_pieces(peer: RawPeer, data: bytes, seed: int) -> None:
    """Send ``data`` in pieces of uneven sizes, with time for each to be read by itself."""
    randomly = random.Random(seed)
    pos = 0
    while pos < len(data):
        size = randomly.choice([1, 3, 100, 5000, 16384, 40000, 200001])
        await peer.send(data[pos : pos + size])
        pos += size
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.gen_test
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.rfc("6455-5.6-binary")
@pytest.mark.rfc("6455-6.2-unmasked")
async def test_a_server_receives_them(size: int) -> None:
    async with serving(Echo) as url, raw_client(url) as client:
        binary = random.Random(size).randbytes(size)
        for message in (Frame(BINARY, binary), Frame(TEXT, text_of(size)), Frame(TEXT, b"small")):
            await send_in_pieces(client, client.frame(message.opcode, message.payload), size)
            assert await client.receive() == message


@pytest.mark.gen_test
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.rfc("6455-5.6-binary")
async def test_a_client_receives_them(size: int) -> None:
    async with raw_pair() as (conn, peer):
        binary = random.Random(size).randbytes(size)
        sending = asyncio.ensure_future(
            send_in_pieces(peer, peer.frame(BINARY, binary) + peer.frame(TEXT, text_of(size)), size)
        )
        await expect(conn, binary)
        await expect(conn, text_of(size).decode())
        await sending


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.4-order", "6455-5.4-control-between-fragments")
async def test_fragments_with_control_frames_between() -> None:
    parts = [text_of(size) for size in (100_000, 10, 16390, 400_000, 0)]
    async with serving(Echo) as url, raw_client(url) as client:
        data = client.frame(TEXT, parts[0][:-2], fin=False)
        # The character that was cut ends in the next fragment, behind a ping.
        data += client.frame(PING, b"1") + client.frame(CONTINUATION, parts[0][-2:] + parts[1], fin=False)
        data += client.frame(CONTINUATION, parts[2], fin=False) + client.frame(PING, b"2")
        data += client.frame(CONTINUATION, parts[3], fin=False) + client.frame(CONTINUATION, parts[4])
        await send_in_pieces(client, data, 1)
        assert await client.receive() == Frame(PONG, b"1")
        assert await client.receive() == Frame(PONG, b"2")
        assert await client.receive() == Frame(TEXT, b"".join(parts))


@pytest.mark.gen_test
@pytest.mark.parametrize("before", [0, 20_000, 300_000])
async def test_text_is_checked_while_it_comes(before: int) -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url, raw_client(url) as client:
        beginning = client.frame(TEXT, text_of(before), length=1_000_000)
        await client.send(beginning)
        await asyncio.sleep(0.02)
        assert calls == ["open"]
        # The mask goes on where the payload left off, which for these sizes is at its beginning.
        await client.send(bytes(0xFF ^ byte for byte in beginning[10:14]))
        closing = await client.receive()
        assert closing is not None
        assert (closing.opcode, closing.payload[:2]) == (CLOSE, b"\x03\xef")


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["one frame", "fragments"])
@pytest.mark.rfc("6455-10.4-limits")
async def test_the_limit_holds_to_the_byte(way: str) -> None:
    limit = 100_000
    async with serving(Echo, websocket_max_message_size=limit) as url:
        for size, code in ((limit, None), (limit + 1, 1009)):
            async with raw_client(url) as client:
                if way == "one frame":
                    await client.send_frame(BINARY, bytes(size))
                else:
                    await client.send_frame(BINARY, bytes(50_000), fin=False)
                    await client.send_frame(CONTINUATION, bytes(size - 50_000))
                received = await client.receive()
                assert received is not None
                if code is None:
                    assert received == Frame(BINARY, bytes(size))
                else:
                    assert (received.opcode, received.payload[:2]) == (CLOSE, b"\x03\xf1")


@pytest.mark.gen_test
@pytest.mark.rfc("6455-10.4-limit-is-set")
async def test_by_default_the_limit_is_10_mib() -> None:
    limit = 10 << 20
    async with serving(Echo) as url, raw_client(url) as client, raw_pair() as (conn, server):
        await client.send_frame(BINARY, bytes(limit))
        assert await client.receive() == Frame(BINARY, bytes(limit))
        sending = asyncio.ensure_future(server.send_frame(BINARY, bytes(limit)))
        await expect(conn, bytes(limit))
        await sending
        for peer in (client, server):
            # No byte of the message is there: its header says enough.
            await peer.send_frame(BINARY, length=limit + 1)
            closing = await peer.receive()
            assert closing is not None
            assert (closing.opcode, closing.payload[:2]) == (CLOSE, b"\x03\xf1")


@pytest.mark.gen_test
@pytest.mark.parametrize("where", ["in the header", "in the payload"])
async def test_the_end_of_the_connection_inside_a_message(where: str) -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url, raw_client(url) as client:
        whole = client.frame(BINARY, bytes(500_000))
        await client.send(whole[:5] if where == "in the header" else whole[:100_000])
        client.half_close()
        assert await client.receive() is None
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", None, None)]


@pytest.mark.gen_test
async def test_two_connections_receive_theirs_side_by_side() -> None:
    async with serving(Echo) as url, raw_client(url) as first, raw_client(url) as second:
        messages = [random.Random(seed).randbytes(700_000) for seed in range(2)]
        await asyncio.gather(
            send_in_pieces(first, first.frame(BINARY, messages[0]), 1),
            send_in_pieces(second, second.frame(BINARY, messages[1]), 2),
        )
        assert await first.receive() == Frame(BINARY, messages[0])
        assert await second.receive() == Frame(BINARY, messages[1])


@pytest.mark.gen_test
@pytest.mark.rfc("7692-6-opcode", "7692-6.1-compressed", "7692-6.2-decompress")
async def test_large_compressed_messages() -> None:
    class Deflating(Echo):
        def get_compression_options(self) -> dict[str, Any]:
            return {}

    message = text_of(200_000) + random.Random(1).randbytes(100_000).hex().encode()
    offer: dict[str, Any] = {
        "Sec_WebSocket_Extensions": "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
    }
    async with serving(Deflating) as url, raw_client(url, **offer) as client:
        for seed in range(2):
            await send_in_pieces(client, client.frame(TEXT, deflated(message), rsv=RSV1), seed)
            received = await client.receive()
            assert received is not None
            assert (received.opcode, received.rsv) == (TEXT, RSV1)
            assert inflated(received.payload) == message


class _Bytes(bytes):
    pass


class _Bytearray(bytearray):
    pass


class _Text(str):
    __slots__ = ()


@pytest.mark.gen_test
@pytest.mark.parametrize("deflate", [None, {}])
@pytest.mark.parametrize("kind", [_Bytes, _Bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 100, 100_000, 3_000_000])
async def test_subclasses_of_bytes_are_sent_from_both_ends(kind: Any, size: int, deflate: Any) -> None:
    class Answering(WebSocketHandler):
        def get_compression_options(self) -> Any:
            return deflate

        def on_message(self, message: str | bytes) -> None:
            self.write_message(kind(utf8(message)), binary=True)

    async with serving(Answering) as url, connected(url, compression_options=deflate) as conn:
        await conn.write_message(kind(b"x" * size), binary=True)
        await expect(conn, b"x" * size)
        await conn.write_message(_Text("text"))
        await expect(conn, b"text")
