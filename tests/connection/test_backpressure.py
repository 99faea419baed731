"""Watermarks, and what happens when a peer is so slow that the limit is reached."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest
from tornado.concurrent import Future

from tests.conftest import Log
from tests.peer import RawPeer, StallingEcho, raw_client, raw_pair
from tests.support import serving, until
from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, Frame, close_payload, inflated
from tornado_ws import WebSocketClosedError, WriteLimitError

DEFLATE: dict[str, Any] = {
    "headers": {"Sec_WebSocket_Extensions": "permessage-deflate"},
    "compression_options": {"compression_level": 0},
}
KIB = 1024
#: More than the kernel takes for a peer that does not read.
MUCH = 1 << 24


def stalled(conn: Any) -> int:
    """Fill the kernel's buffers; returns how much waits then."""
    conn.write_message(bytes(MUCH), binary=True)
    amount: int = conn.buffered_amount
    assert 0 < amount < MUCH + 20
    return amount


async def receive_until(peer: RawPeer, condition: Any) -> list[Frame]:
    """Read frames up to one that meets ``condition``."""
    frames: list[Frame] = []
    while not frames or not condition(frames[-1]):
        received = await peer.receive()
        assert received is not None
        frames.append(received)
    return frames


@pytest.mark.gen_test
async def test_without_watermarks_a_future_is_done_when_the_kernel_has_its_message() -> None:
    async with raw_pair(stalling=True) as (conn, peer):
        assert conn.write_message("small").done()
        large = conn.write_message(bytes(MUCH), binary=True)
        behind = conn.write_message("behind")
        assert not large.done()
        await receive_until(peer, lambda frame: frame.opcode == BINARY)
        await behind
        assert large.done()
        assert conn.buffered_amount == 0


@pytest.mark.gen_test
async def test_futures_are_done_at_once_up_to_the_high_watermark() -> None:
    async with raw_pair(stalling=True, write_high_watermark=2 * MUCH) as (conn, _):
        before = stalled(conn)
        while conn.buffered_amount < 2 * MUCH - 70 * KIB:
            assert conn.write_message(bytes(64 * KIB), binary=True).done()
        futures = [conn.write_message(bytes(64 * KIB), binary=True) for _ in range(3)]
        assert [future.done() for future in futures][-2:] == [False, False]
        assert conn.buffered_amount > before


@pytest.mark.gen_test
@pytest.mark.parametrize("low", [None, 0, 1 << 22])
async def test_a_future_is_done_when_no_more_than_the_low_watermark_waits(low: int | None) -> None:
    high = 1 << 22
    async with raw_pair(stalling=True, write_high_watermark=high, write_low_watermark=low) as (conn, peer):
        writing = conn.write_message(bytes(MUCH), binary=True)
        assert not writing.done()
        amounts: list[int] = []
        writing.add_done_callback(lambda future: amounts.append(conn.buffered_amount))
        await receive_until(peer, lambda frame: frame.opcode == BINARY)
        await writing
    expected = high // 4 if low is None else low
    # The kernel may have taken some more before the callback ran.
    assert max(0, expected - (1 << 22) + 1) <= amounts[0] <= expected


@pytest.mark.gen_test
async def test_a_writer_who_awaits_keeps_the_buffer_between_the_watermarks() -> None:
    async with raw_pair(stalling=True, write_high_watermark=256 * KIB) as (conn, peer):
        amounts = []

        async def write() -> None:
            for number in range(800):
                await conn.write_message(b"%65536d" % number, binary=True)
                amounts.append(conn.buffered_amount)

        writing = asyncio.ensure_future(write())
        for number in range(800):
            received = await peer.receive()
            assert received is not None
            assert int(received.payload) == number
        await writing
    assert 64 * KIB < max(amounts) <= 256 * KIB


# The limit

LIMIT = MUCH + MUCH // 2


async def fill(conn: Any) -> None:
    """Write until the limit is reached, and not a message further."""
    stalled(conn)
    while conn.buffered_amount < LIMIT:
        future = conn.write_message(bytes(500 * KIB), binary=True)
        assert not future.done()
        assert not conn.protocol.is_closing()
    await asyncio.sleep(0)


@pytest.mark.gen_test
@pytest.mark.parametrize("deflate", [{}, DEFLATE], ids=["plain", "deflate"])
async def test_the_policy_raise(deflate: dict[str, Any]) -> None:
    options: dict[str, Any] = {"write_limit": LIMIT, "write_limit_policy": "raise", **deflate}
    async with raw_pair(stalling=True, **options) as (conn, peer):
        await fill(conn)
        amount = conn.buffered_amount
        for binary in (True, False):
            with pytest.raises(WriteLimitError, match=f"{amount} bytes wait to be sent, and write_limit is {LIMIT}"):
                conn.write_message(b"refused", binary=binary)
        assert conn.buffered_amount == amount
        await receive_until(peer, lambda frame: conn.buffered_amount == 0)
        await conn.write_message("hello hello hello")
        frames = await receive_until(peer, lambda frame: frame.opcode == TEXT)
        # A compressor that had seen the refused ones would refer to them.
        payload = frames[-1].payload
        assert (inflated(payload) if deflate else payload) == b"hello hello hello"
        assert all(b"refused" not in frame.payload for frame in frames)


@pytest.mark.gen_test
@pytest.mark.parametrize("deflate", [{}, DEFLATE], ids=["plain", "deflate"])
async def test_the_policy_drop(deflate: dict[str, Any]) -> None:
    options: dict[str, Any] = {"write_limit": LIMIT, "write_limit_policy": "drop", **deflate}
    async with raw_pair(stalling=True, **options) as (conn, peer):
        protocol: Any = conn.protocol
        await fill(conn)
        amount, sent = conn.buffered_amount, protocol.counters.messages_out
        dropped = [conn.write_message(b"dropped") for _ in range(1000)]
        assert not any(future.done() for future in dropped)
        assert conn.buffered_amount == amount
        assert (protocol.counters.dropped, protocol.counters.messages_out) == (1000, sent)
        # Whoever awaits one goes on when there is room.
        await receive_until(peer, lambda frame: dropped[0].done())
        assert conn.buffered_amount == 0
        assert all(future.done() for future in dropped)
        await conn.write_message("sent")
        frames = await receive_until(peer, lambda frame: frame.opcode == TEXT)
        payload = frames[-1].payload
        assert (inflated(payload) if deflate else payload) == b"sent"
        assert protocol.counters.dropped == 1000


@pytest.mark.gen_test
async def test_a_loop_of_awaited_writes_that_are_dropped_lets_the_loop_run() -> None:
    async with raw_pair(stalling=True, write_limit=LIMIT, write_limit_policy="drop") as (conn, _):
        await fill(conn)

        async def write() -> None:
            while True:
                await conn.write_message("x")

        writing = asyncio.ensure_future(write())
        await asyncio.sleep(0.01)
        assert not writing.done()
        writing.cancel()
        await asyncio.wait([writing])


@pytest.mark.gen_test
@pytest.mark.parametrize("deflate", [{}, DEFLATE], ids=["plain", "deflate"])
async def test_the_policy_close(deflate: dict[str, Any], log: Log) -> None:
    options: dict[str, Any] = {"write_limit": LIMIT, "write_limit_policy": "close", **deflate}
    async with raw_pair(stalling=True, **options) as (conn, peer):
        await fill(conn)
        amount = conn.buffered_amount
        refused = conn.write_message("refused")
        with pytest.raises(WebSocketClosedError):
            await refused
        with pytest.raises(WebSocketClosedError):
            conn.write_message("late")
        record = log.only()
        assert record.levelno == logging.WARNING
        assert record.getMessage().endswith(
            f"is too slow and closed: {amount} bytes wait to be sent, and write_limit is {LIMIT}"
        )
        # A peer that reads again gets all that was taken, and the reason.
        frames = await peer.answer_close()
        assert all(frame.opcode == BINARY for frame in frames)
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (1013, "too slow")


@pytest.mark.gen_test
async def test_a_peer_that_is_closed_and_never_reads_again_is_aborted_and_told_as_too_slow() -> None:
    closed: list[Any] = []

    class Handler(StallingEcho):
        websocket_write_limit = MUCH
        websocket_close_timeout = 0.1

        def on_message(self, message: str | bytes) -> None:
            for _ in range(2):
                self.write_message(bytes(2 * MUCH), binary=True)

        def on_close(self) -> None:
            closed.append((self.close_code, self.close_reason))

    async with serving(Handler) as url, raw_client(url, stalling=True) as client:
        await client.send_frame(TEXT, b"go")
        await until(lambda: closed)
    assert closed == [(1013, "too slow")]


@pytest.mark.gen_test
async def test_one_message_may_be_larger_than_the_limit() -> None:
    async with raw_pair(stalling=True, write_limit=KIB, write_limit_policy="raise") as (conn, peer):
        writing = conn.write_message(bytes(MUCH), binary=True)
        with pytest.raises(WriteLimitError):
            conn.write_message("next")
        frames = await receive_until(peer, lambda frame: True)
        assert frames == [Frame(BINARY, bytes(MUCH))]
        await writing


@pytest.mark.gen_test
async def test_small_messages_are_limited_by_the_memory_that_they_take() -> None:
    async with raw_pair(stalling=True, write_limit=LIMIT, write_limit_policy="raise") as (conn, _):
        before = stalled(conn)
        count = 0
        with contextlib.suppress(WriteLimitError):
            while True:
                conn.write_message(b"")
                count += 1
        assert 20_000 < count < (LIMIT - before) // 200


@pytest.mark.gen_test
async def test_control_frames_pass_the_limit() -> None:
    async with raw_pair(stalling=True, write_limit=LIMIT, write_limit_policy="raise") as (conn, peer):
        await fill(conn)
        conn.ping(b"?")
        await peer.send_frame(PING, b"!")
        await asyncio.sleep(0.01)
        conn.close(1000)
        frames = await peer.answer_close()
        assert [frame for frame in frames if frame.opcode != BINARY] == [Frame(PING, b"?"), Frame(PONG, b"!")]


@pytest.mark.gen_test
async def test_without_a_limit_there_is_none() -> None:
    async with raw_pair(stalling=True, write_limit=None) as (conn, peer):
        for _ in range(10):
            conn.write_message(bytes(MUCH), binary=True)
        assert conn.buffered_amount > 9 * MUCH
        peer.reset()
        await conn.read_message()


@pytest.mark.gen_test
async def test_a_handler_has_them_as_settings() -> None:
    errors: list[Exception] = []

    class Handler(StallingEcho):
        websocket_write_limit_policy = "raise"

        def on_message(self, message: str | bytes) -> None:
            try:
                while True:
                    self.write_message(bytes(100 * KIB), binary=True)
            except WriteLimitError as error:
                errors.append(error)

    async with serving(Handler, websocket_write_limit=MUCH) as url, raw_client(url, stalling=True) as client:
        await client.send_frame(TEXT, b"go")
        await until(lambda: errors)
        assert str(MUCH) in str(errors[0])


# A connection that ends meanwhile


@pytest.mark.gen_test
@pytest.mark.parametrize("deflate", [{}, DEFLATE], ids=["plain", "deflate"])
@pytest.mark.parametrize("rerouted", [False, True], ids=["direct", "overridden"])
async def test_a_dead_peer_with_many_writes_is_one_line(deflate: dict[str, Any], rerouted: bool, log: Log) -> None:
    async with raw_pair(stalling=True, **deflate) as (conn, peer):
        protocol: Any = conn.protocol
        if rerouted:
            protocol._write_frame = protocol._write_frame
        stalled(conn)
        futures: list[Future[None]] = [conn.write_message(b"%5000d" % number) for number in range(2000)]
        amount = conn.buffered_amount
        awaiting = asyncio.ensure_future(wait_for(futures[1000]))
        await asyncio.sleep(0)
        peer.reset()
        assert await conn.read_message() is None
        assert await awaiting == "WebSocketClosedError"
        with pytest.raises(WebSocketClosedError):
            conn.write_message("late")
    record = log.only()
    assert record.levelno == logging.INFO
    assert record.getMessage().endswith(f" closed with {amount} bytes unsent, 2001 writes waiting")
    assert all(isinstance(future.exception(), WebSocketClosedError) for future in futures)


async def wait_for(future: Future[None]) -> str:
    try:
        await future
    except WebSocketClosedError as error:
        return type(error).__name__
    return "done"


@pytest.mark.gen_test
async def test_close_with_a_reason_is_kept_for_a_peer_that_reads_again() -> None:
    async with raw_pair(stalling=True) as (conn, peer):
        stalled(conn)
        conn.close(4000, "enough")
        await receive_until(peer, lambda frame: frame == Frame(CLOSE, close_payload(4000, "enough")))
        await peer.send_frame(CLOSE, close_payload(4000))
