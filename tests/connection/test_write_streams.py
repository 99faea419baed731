"""Messages that are sent in parts (``write_stream``): their frames, their order, and their ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.iostream import StreamBufferFullError

from tests.engine.test_properties import quietly
from tests.peer import WAYS_TO_END, RawPeer, end, end_by, raw_client, raw_pair
from tests.support import connected, serving, until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, Frame, close_payload
from tornado_ws import WebSocketClosedError, WebSocketHandler, WriteLimitError, broadcast
from tornado_ws.deflate.codec import PerMessageDeflateCompressor, PerMessageDeflateDecompressor
from tornado_ws.deflate.module_streams import TAIL
from tornado_ws.deflate.options import deflate_options

MUCH = 1 << 24
NO_DEFLATE: dict[str, Any] = {}


def deflate(**parameters: bool) -> dict[str, Any]:
    """Return what makes a pair that has agreed on permessage-deflate."""
    names = "".join(f"; {name}" for name, value in parameters.items() if value)
    return {"headers": {"Sec_WebSocket_Extensions": f"permessage-deflate{names}"}, "compression_options": {}}


async def receive(peer: RawPeer, count: int) -> list[Frame]:
    frames = [await peer.receive() for _ in range(count)]
    return [frame for frame in frames if frame is not None]


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.4-not-interleaved")
async def test_each_part_is_a_frame_and_other_messages_wait_for_the_last_one() -> None:
    async with raw_pair() as (conn, peer):
        async with conn.write_stream() as stream:
            await stream.write("ab")
            waiting = [conn.write_message("next"), conn.write_message(b"behind", binary=True)]
            conn.ping(b"between")
            await stream.write("")
            await stream.write(b"cd")
            assert await receive(peer, 3) == [
                Frame(TEXT, b"ab", False),
                Frame(PING, b"between"),
                Frame(CONTINUATION, b"cd", False),
            ]
            assert not any(written.done() for written in waiting)
            assert conn.buffered_amount == len(b"next" + b"behind")
        await asyncio.gather(*waiting)
        await conn.write_message("last")
        assert await receive(peer, 4) == [
            Frame(CONTINUATION),
            Frame(TEXT, b"next"),
            Frame(BINARY, b"behind"),
            Frame(TEXT, b"last"),
        ]
        protocol: Any = conn.protocol
        assert (protocol.counters.messages_out, protocol.counters.message_bytes_out) == (4, 4 + 4 + 6 + 4)
        # As fast as before.
        assert protocol._out is protocol._transport


@pytest.mark.gen_test
async def test_a_message_without_a_part_is_an_empty_one() -> None:
    for options in (NO_DEFLATE, deflate()):
        async with raw_pair(**options) as (conn, peer):
            async with conn.write_stream(binary=True) as stream:
                assert stream.write(b"").done()
            assert await peer.receive() == Frame(BINARY)


@pytest.mark.gen_test
async def test_two_streams_follow_each_other() -> None:
    async with raw_pair() as (conn, peer):

        async def write(name: str) -> None:
            async with conn.write_stream() as stream:
                for _ in range(2):
                    await stream.write(name)
                    await asyncio.sleep(0)

        await asyncio.gather(write("a"), write("b"))
        frames = await receive(peer, 6)
        assert [(frame.opcode, frame.payload) for frame in frames] == [
            (TEXT, b"a"),
            (CONTINUATION, b"a"),
            (CONTINUATION, b""),
            (TEXT, b"b"),
            (CONTINUATION, b"b"),
            (CONTINUATION, b""),
        ]


@pytest.mark.gen_test
@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.rfc("7692-6.1-compressed")
async def test_parts_are_compressed_in_one_context(takeover: bool) -> None:
    part = b"an unusual sentence, xylophones and quartz: %d"
    inflater = PerMessageDeflateDecompressor(takeover, None, MUCH)
    sizes = []
    async with raw_pair(**deflate(client_no_context_takeover=not takeover)) as (conn, peer):
        for _ in range(2):
            async with conn.write_stream(binary=True) as stream:
                for number in range(3):
                    await stream.write(part % number)
            frames = await receive(peer, 4)
            assert [frame.rsv for frame in frames] == [RSV1, 0, 0, 0]
            assert [frame.fin for frame in frames] == [False, False, False, True]
            sizes.append([len(frame.payload) for frame in frames])
            message = inflater.decompress(b"".join(frame.payload for frame in frames))
            assert message == b"".join(part % number for number in range(3))
            await conn.write_message(b"between, whole: xylophones", binary=True)
            between = await peer.receive()
            assert between is not None
            assert inflater.decompress(between.payload) == b"between, whole: xylophones"
    assert sizes[0][1] < sizes[0][0] / 2
    # What the message before had, too.
    assert (sizes[1][0] < sizes[0][0] / 2) == takeover


@pytest.mark.gen_test
async def test_a_stream_may_go_uncompressed() -> None:
    async with raw_pair(**deflate()) as (conn, peer):
        async with conn.write_stream(compress=False) as stream:
            await stream.write("plain")
        assert await receive(peer, 2) == [Frame(TEXT, b"plain", False), Frame(CONTINUATION)]


@quietly
@given(
    parts=st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    takeover=st.booleans(),
    backend=st.sampled_from(["zlib", "zlib_ng", "isal"]),
)
def test_what_a_message_is_deflated_to_part_by_part_inflates(parts: list[bytes], takeover: bool, backend: str) -> None:
    options = deflate_options({"backend": backend, "takeover_memory": 0})
    compressor = PerMessageDeflateCompressor(takeover, None, options)
    inflater = PerMessageDeflateDecompressor(takeover, None, MUCH)
    for _ in range(2):
        deflate = compressor.begin_message()
        payload = TAIL.join(deflate(part) for part in parts)
        assert not parts or inflater.decompress(payload) == b"".join(parts)
        assert inflater.decompress(compressor.compress(b"whole")) == b"whole"


@pytest.mark.gen_test
async def test_masked_parts_of_any_size_reach_a_server_of_ours() -> None:
    class Handler(WebSocketHandler):
        def get_compression_options(self) -> dict[str, Any]:
            return {}

        async def on_message(self, message: str | bytes) -> None:
            async with self.write_stream(binary=isinstance(message, bytes)) as stream:
                for begin in range(0, len(message), 10_000):
                    await stream.write(message[begin : begin + 10_000])

    async with serving(Handler) as url:
        for options in (NO_DEFLATE, dict[str, Any](compression_options={})):
            async with connected(url, **options) as conn:
                async with conn.write_stream(binary=True) as stream:
                    for size in (1, 125, 126, 20_000, 70_000):
                        await stream.write(bytearray(size))
                assert await conn.read_message() == bytes(1 + 125 + 126 + 20_000 + 70_000)
                async with conn.write_stream() as stream:
                    await stream.write("ä" * 30_000)
                assert await conn.read_message() == "ä" * 30_000


# Text


@pytest.mark.gen_test
async def test_a_character_may_be_cut_between_parts_of_bytes() -> None:
    async with raw_pair() as (conn, peer):
        async with conn.write_stream() as stream:
            await stream.write("€".encode()[:2])
            for wrong in ("a", b"\x28", b"\xff"):
                with pytest.raises(ValueError, match="can't decode"):
                    stream.write(wrong)
            await stream.write("€".encode()[2:])
            await stream.write("a")
        assert [frame.payload for frame in await receive(peer, 4)] == [b"\xe2\x82", b"\xac", b"a", b""]


@pytest.mark.gen_test
async def test_text_that_ends_inside_a_character_closes_the_connection() -> None:
    async with raw_pair() as (conn, peer):
        with pytest.raises(ValueError, match="ends inside a character"):
            async with conn.write_stream() as stream:
                await stream.write(b"\xe2\x82")
        assert (await receive(peer, 2))[1] == Frame(CLOSE, close_payload(1011, "message was not finished"))


@pytest.mark.gen_test
async def test_wrong_use_says_what_is_allowed() -> None:
    async with raw_pair() as (conn, peer):
        unused = conn.write_stream()
        with pytest.raises(RuntimeError, match="inside of 'async with"):
            unused.write("too early")
        async with conn.write_stream() as stream:
            wrong: Any
            for wrong in ({"a": 1}, 5, None):
                with pytest.raises(TypeError, match=f"of type {type(wrong).__name__}; allowed are str and bytes"):
                    stream.write(wrong)
            with pytest.raises(RuntimeError, match="was entered before"):
                await stream.__aenter__()
        with pytest.raises(RuntimeError, match="inside of 'async with"):
            stream.write("too late")
        assert await receive(peer, 1) == [Frame(TEXT)]
        conn.close()
        with pytest.raises(WebSocketClosedError):
            conn.write_stream()


# A message that is not finished


@pytest.mark.gen_test
async def test_a_block_that_is_left_by_an_exception_fails_the_connection() -> None:
    async with raw_pair() as (conn, peer):
        with contextlib.suppress(ZeroDivisionError):
            async with conn.write_stream() as stream:
                await stream.write("begun")
                behind = conn.write_message("behind")
                raise ZeroDivisionError
        assert await receive(peer, 2) == [
            Frame(TEXT, b"begun", False),
            Frame(CLOSE, close_payload(1011, "message was not finished")),
        ]
        with pytest.raises(WebSocketClosedError):
            await behind
        with pytest.raises(WebSocketClosedError):
            conn.write_message("no more")


@pytest.mark.gen_test
async def test_one_that_is_left_before_the_first_part_changes_nothing() -> None:
    async with raw_pair() as (conn, peer):
        with contextlib.suppress(ZeroDivisionError):
            async with conn.write_stream():
                behind = conn.write_message("behind")
                raise ZeroDivisionError
        await behind
        async with conn.write_stream():
            pass
        assert await receive(peer, 2) == [Frame(TEXT, b"behind"), Frame(TEXT)]


@pytest.mark.gen_test
async def test_one_that_is_cancelled_while_it_waits_for_its_turn_changes_nothing() -> None:
    async with raw_pair() as (conn, peer):
        async with conn.write_stream() as stream:
            await stream.write("a")
            second = asyncio.ensure_future(conn.write_stream().__aenter__())
            behind = conn.write_message("behind")
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
        await behind
        assert [frame.payload for frame in await receive(peer, 3)] == [b"a", b"", b"behind"]


@pytest.mark.gen_test
@pytest.mark.parametrize("way", WAYS_TO_END)
async def test_the_end_of_the_connection_inside_a_message(way: str) -> None:
    async with raw_pair(stalling=way in ("RST", "abort")) as (conn, peer):
        block = conn.write_stream(binary=True)
        stream = await block.__aenter__()
        writing = stream.write(bytes(MUCH if way in ("RST", "abort") else 10))
        behind = conn.write_message("behind")
        second = asyncio.ensure_future(conn.write_stream().__aenter__())
        await asyncio.sleep(0)
        if way in ("RST", "abort"):
            assert not writing.done()
        else:
            await receive(peer, 1)
        await end_by(way, conn, peer)
        for waiting in (behind, second):
            with pytest.raises(WebSocketClosedError):
                await waiting
        with pytest.raises(WebSocketClosedError):
            await stream.write(b"more")
        with pytest.raises(WebSocketClosedError):
            await block.__aexit__(None, None, None)
        if not writing.done() or writing.exception() is not None:
            with pytest.raises(WebSocketClosedError):
                await writing


@pytest.mark.gen_test
async def test_a_close_frame_does_not_wait_for_the_message() -> None:
    async with raw_pair() as (conn, peer):
        block = conn.write_stream()
        stream = await block.__aenter__()
        await stream.write("a")
        conn.close(1000, "enough")
        with pytest.raises(WebSocketClosedError):
            await block.__aexit__(None, None, None)
        assert await receive(peer, 2) == [Frame(TEXT, b"a", False), Frame(CLOSE, close_payload(1000, "enough"))]


# Flow control


@pytest.mark.gen_test
async def test_a_part_is_awaited_as_a_message_is() -> None:
    async with raw_pair(stalling=True) as (conn, peer), conn.write_stream(binary=True) as stream:
        writing = stream.write(bytes(MUCH))
        assert not writing.done()
        assert conn.buffered_amount > 0
        received = await peer.receive()
        assert received is not None
        assert len(received.payload) == MUCH
        await writing


@pytest.mark.gen_test
@pytest.mark.parametrize("policy", ["raise", "drop", "latest", "close"])
async def test_a_part_beyond_the_write_limit(policy: str) -> None:
    async with raw_pair(stalling=True, write_limit=MUCH // 2, write_limit_policy=policy) as (conn, peer):
        block = conn.write_stream(binary=True)
        stream = await block.__aenter__()
        first = stream.write(bytes(MUCH))
        if policy == "close":
            with pytest.raises(WebSocketClosedError):
                await stream.write(b"refused")
            with pytest.raises(WebSocketClosedError):
                await block.__aexit__(None, None, None)
            return
        with pytest.raises(WriteLimitError, match="bytes wait to be sent"):
            stream.write(b"refused")
        await peer.receive()
        await first
        await stream.write(b"sent")
        await block.__aexit__(None, None, None)
        assert [frame.payload for frame in await receive(peer, 2)] == [b"sent", b""]
        protocol: Any = conn.protocol
        assert protocol.counters.dropped == 0


@pytest.mark.gen_test
async def test_a_part_that_the_stream_has_no_room_for_fails_the_connection() -> None:
    async with raw_pair(stalling=True) as (conn, _):
        conn.stream.max_write_buffer_size = MUCH
        block = conn.write_stream(binary=True)
        stream = await block.__aenter__()
        stream.write(bytes(MUCH))
        with pytest.raises(StreamBufferFullError):
            stream.write(bytes(MUCH))
        # What the compressor, or the kernel, has of it cannot be taken back.
        with pytest.raises(WebSocketClosedError):
            await stream.write(b"more")
        with pytest.raises(WebSocketClosedError):
            await block.__aexit__(None, None, None)


# What others send


@pytest.mark.gen_test
@pytest.mark.parametrize("offer", [None, "permessage-deflate"])
async def test_a_broadcast_waits_for_the_end_of_the_message(offer: str | None) -> None:
    handlers: list[WebSocketHandler] = []

    class Handler(WebSocketHandler):
        def get_compression_options(self) -> dict[str, Any]:
            return {}

        def open(self) -> None:
            handlers.append(self)

        def on_message(self, message: str | bytes) -> None: ...

    async with serving(Handler) as url, raw_client(url, Sec_WebSocket_Extensions=offer) as client:
        await until(lambda: handlers)
        inflater = PerMessageDeflateDecompressor(True, None, MUCH)
        async with handlers[0].write_stream() as stream:
            await stream.write("begun")
            for number in range(3):
                assert broadcast(handlers, f"to all {number}") == 1
            await client.send_frame(PING, b"x")
            frames = await receive(client, 2)
            assert frames[1] == Frame(PONG, b"x")
        payloads = [frames[0].payload + (await receive(client, 1))[0].payload]
        payloads += [frame.payload for frame in await receive(client, 3)]
        if offer is not None:
            payloads = [inflater.decompress(payload) for payload in payloads]
        assert payloads == [b"begun", b"to all 0", b"to all 1", b"to all 2"]
        await end(client)


@pytest.mark.gen_test
async def test_a_message_that_a_thread_compresses_goes_before() -> None:
    options: dict[str, Any] = deflate()
    options["compression_options"] = {"offload_size": 1000}
    inflater = PerMessageDeflateDecompressor(True, None, MUCH)
    async with raw_pair(**options) as (conn, peer):
        written = conn.write_message("x" * 5000)
        async with conn.write_stream() as stream:
            await stream.write("y" * 5000)
        await written
        frames = await receive(peer, 3)
        assert inflater.decompress(frames[0].payload) == b"x" * 5000
        assert inflater.decompress(frames[1].payload + frames[2].payload) == b"y" * 5000


@pytest.mark.gen_test
async def test_steps_that_somebody_has_replaced_get_each_frame() -> None:
    async with raw_pair() as (conn, peer):
        seen: list[Any] = []
        protocol: Any = conn.protocol
        write: Callable[..., Any] = protocol._write_frame

        def record(fin: bool, opcode: int, data: bytes, flags: int = 0) -> Any:
            seen.append((fin, opcode, data, flags))
            return write(fin, opcode, data, flags)

        protocol._write_frame = record
        async with conn.write_stream() as stream:
            await stream.write("a")
        assert seen == [(False, TEXT, b"a", 0), (True, CONTINUATION, b"", 0)]
        await receive(peer, 2)
