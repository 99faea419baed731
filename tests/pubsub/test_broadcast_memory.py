"""What a broadcast has in memory while peers do not read: each message once, not once for each of them."""

from __future__ import annotations

import contextlib
import gc
import os
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.peer import RawPeer, StallingEcho, raw_client
from tests.support import serving, until
from tests.wire import BINARY, TEXT
from tornado_ws import WebSocketHandler, broadcast

#: How many do not read.
STALLED = 10
#: More bytes than a connection has of its own while it is stalled: the history of its deflater, tables.
OWN = 96 * 1024

COMPRESSION: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "deflate": {},
    "deflate without takeover": {"server_no_context_takeover": True},
    "deflate in threads": {"offload_size": 1000},
}
#: How many messages of how many bytes.
SIZES = {"large": (25, 200_000), "small": (1000, 600)}


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def held() -> int:
    """Return the bytes that Python has allocated."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@contextlib.asynccontextmanager
async def stalled(compression: dict[str, Any] | None) -> AsyncIterator[tuple[list[Any], list[RawPeer]]]:
    """Give handlers, and the peers of them, which read nothing by themselves."""
    handlers: list[WebSocketHandler] = []

    class Handler(StallingEcho):
        def get_compression_options(self) -> dict[str, Any] | None:
            return compression

        def open(self) -> None:
            super().open()
            handlers.append(self)

    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(Handler))
        peers = []
        for _ in range(STALLED):
            extensions = None if compression is None else "permessage-deflate; client_max_window_bits"
            peer = await stack.enter_async_context(raw_client(url, stalling=True, Sec_WebSocket_Extensions=extensions))
            peers.append(peer)
            # In the order of their connecting.
            await until(lambda: len(handlers) == len(peers))
        yield handlers, peers


def messages_of(kind: str, size: int, count: int) -> Iterator[str | bytes]:
    """Give messages that do not repeat themselves, and that nobody else has."""
    for _ in range(count):
        yield os.urandom(size // 2).hex() if kind == "text" else os.urandom(size)


async def check_received(peer: RawPeer, sent: list[bytes], opcode: int) -> None:
    """See that ``peer`` gets what was ``sent``, as checksums."""
    inflater = zlib.decompressobj(-15)
    for checksum in sent:
        frame = await peer.receive()
        assert frame is not None
        payload = frame.payload
        if frame.rsv:
            payload = inflater.decompress(payload + b"\x00\x00\xff\xff")
        assert (frame.opcode, zlib.crc32(payload).to_bytes(4, "big")) == (opcode, checksum)


def checksum_of(message: str | bytes) -> bytes:
    return zlib.crc32(message.encode() if isinstance(message, str) else message).to_bytes(4, "big")


@pytest.mark.gen_test
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    ("compression", "kind"),
    [("plain", "text"), ("plain", "binary"), *((compression, "text") for compression in list(COMPRESSION)[1:])],
)
async def test_a_stalled_broadcast_is_in_memory_once_and_arrives_whole(compression: str, kind: str, sizes: str) -> None:
    count, size = SIZES[sizes]
    async with stalled(COMPRESSION[compression]) as (handlers, peers):
        before = held()
        sent = []
        for message in messages_of(kind, size, count):
            sent.append(checksum_of(message))
            assert broadcast(handlers, message, binary=kind == "binary") == STALLED
        del message
        await until(lambda: all(handler.ws_connection._writing._ordered_writes is None for handler in handlers))
        waiting = sum(handler.ws_connection.buffered_amount for handler in handlers)
        # Were it copied there would be as much as waits. Text that is deflated waits as half of its bytes.
        assert waiting > STALLED * count * size // 3
        overhead = STALLED * (OWN + 8 * count) + 64 * count
        assert held() - before < count * size + overhead < waiting
        for peer in peers:
            await check_received(peer, sent, TEXT if kind == "text" else BINARY)
        assert held() - before < overhead


@pytest.mark.gen_test
@pytest.mark.parametrize("compression", COMPRESSION)
async def test_connections_that_end_release_it(compression: str) -> None:
    count, size = SIZES["large"]
    async with stalled(COMPRESSION[compression]) as (handlers, peers):
        before = held()
        for message in messages_of("binary", size, count):
            broadcast(handlers, message, binary=True)
        del message
        assert held() - before > count * size // 2
        for peer in peers[: STALLED // 2]:
            peer.reset()
        for handler in handlers[STALLED // 2 :]:
            handler.ws_connection.stream.close()
        await until(lambda: all(handler.ws_connection is None for handler in handlers))
        assert held() - before < STALLED * OWN


@pytest.mark.gen_test
@pytest.mark.parametrize("compression", ["plain", "deflate"])
async def test_messages_of_one_and_of_all_wait_behind_each_other(compression: str) -> None:
    """Some are kept as they are, some joined with others, and the kernel takes parts of all."""
    async with stalled(COMPRESSION[compression]) as (handlers, peers):
        expected: list[list[bytes]] = [[] for _ in handlers]
        for number in range(150):
            for own, handler in zip(expected, handlers, strict=True):
                message = os.urandom((number * 7919) % 40_000 if number % 3 else number % 70)
                handler.write_message(message, binary=True)
                own.append(checksum_of(message))
            message = os.urandom((number * 104729) % 40_000 if number % 5 else number % 70)
            assert broadcast(handlers, message, binary=True) == STALLED
            for own in expected:
                own.append(checksum_of(message))
        for peer, own in zip(peers, expected, strict=True):
            await check_received(peer, own, BINARY)


@pytest.mark.gen_test
async def test_the_same_bytes_written_to_each_are_not_copied_either() -> None:
    count, size = SIZES["large"]
    async with stalled(None) as (handlers, peers):
        before = held()
        sent = []
        for message in messages_of("binary", size, count):
            sent.append(checksum_of(message))
            for handler in handlers:
                handler.write_message(message, binary=True)
        del message
        assert held() - before < count * size + STALLED * OWN
        for peer in peers:
            await check_received(peer, sent, BINARY)
