"""What both ends put on the wire, as the other end sees it: masks, lengths, reserved bits, and nothing too many.

`RawPeer.receive` fails on a frame whose mask or length is not as RFC 6455 wants it.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.peer import RawPeer, StallingEcho, raw_client, raw_pair
from tests.support import Echo, serving
from tests.wire import BINARY, CLOSE, PING, PONG, RSV1, TEXT, Frame, inflated
from tornado_ws import WebSocketClosedError

#: Around the sizes at which the length takes more bytes.
SIZES = (0, 1, 125, 126, 65535, 65536)

#: More than the buffers of two sockets take.
MUCH = 8 * 1024 * 1024


class Talkative(Echo):
    """Says what it can say, and begins to close."""

    def on_message(self, message: str | bytes) -> None:
        for size in SIZES:
            self.write_message("t" * size)
            self.write_message(b"b" * size, binary=True)
        self.ping(b"ping")
        self.close(4000, "done")


async def check_all_that_is_said(peer: RawPeer) -> None:
    for size in SIZES:
        assert await peer.receive() == Frame(TEXT, b"t" * size)
        assert await peer.receive() == Frame(BINARY, b"b" * size)
    assert await peer.receive() == Frame(PING, b"ping")
    assert await peer.receive() == Frame(CLOSE, b"\x0f\xa0done")


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.1-server-does-not-mask", "6455-5.2-length-shortest", "6455-5.2-rsv-zero")
@pytest.mark.rfc("6455-5.4-control-not-fragmented", "6455-5.4-not-interleaved", "6455-5.5.1-close-code")
@pytest.mark.rfc("6455-5.5.2-pong")
@pytest.mark.rfc("6455-6.1-frame")
async def test_a_server_writes_whole_unmasked_frames_with_the_shortest_length() -> None:
    async with serving(Talkative) as url, raw_client(url) as client:
        await client.send(client.frame(PING, b"?"), client.frame(TEXT, b"speak"))
        assert await client.receive() == Frame(PONG, b"?")
        await check_all_that_is_said(client)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.1-client-masks", "6455-5.2-length-shortest", "6455-5.2-rsv-zero", "6455-5.3-mask-bit")
@pytest.mark.rfc("6455-5.4-control-not-fragmented", "6455-5.4-not-interleaved", "6455-5.5.1-close-code")
@pytest.mark.rfc("6455-5.3-fresh-key")
@pytest.mark.rfc("6455-5.5.2-pong")
@pytest.mark.rfc("6455-6.1-frame", "6455-10.3-new-key")
async def test_a_client_writes_whole_frames_each_under_a_mask_of_its_own() -> None:
    async with raw_pair() as (conn, peer):
        await peer.send_frame(PING, b"?")
        assert await peer.receive() == Frame(PONG, b"?")
        for size in SIZES:
            conn.write_message("t" * size)
            conn.write_message(b"b" * size, binary=True)
        conn.ping(b"ping")
        conn.close(4000, "done")
        await check_all_that_is_said(peer)
        assert len(peer.masks) == 2 * len(SIZES) + 3
        assert len(set(peer.masks)) == len(peer.masks)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.2-rsv-zero", "6455-5.8-extensions-negotiated")
@pytest.mark.parametrize("offered", [True, False])
@pytest.mark.rfc("6455-4.2.2-extensions", "6455-9-not-requested")
@pytest.mark.rfc("7692-6-rsv1-place", "7692-6.1-compressed")
async def test_a_server_sets_rsv1_where_deflate_was_agreed_on_and_nowhere_else(offered: bool) -> None:
    class Deflating(Talkative):
        def get_compression_options(self) -> dict[str, Any]:
            return {}

    offer: dict[str, Any] = {"Sec_WebSocket_Extensions": "permessage-deflate"} if offered else {}
    async with serving(Deflating) as url, raw_client(url, **offer) as client:
        assert client.header("Sec-WebSocket-Extensions") == ("permessage-deflate" if offered else None)
        await client.send_frame(TEXT, b"speak")
        for _ in range(2 * len(SIZES)):
            received = await client.receive()
            assert received is not None
            assert received.rsv == (RSV1 if offered else 0)
        assert await client.receive() == Frame(PING, b"ping")
        assert await client.receive() == Frame(CLOSE, b"\x0f\xa0done")


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.2-rsv-zero", "6455-5.8-extensions-negotiated")
@pytest.mark.parametrize("agreed", [True, False])
@pytest.mark.rfc("6455-9.1-not-before-agreed")
@pytest.mark.rfc("7692-6-rsv1-place", "7692-6.1-compressed")
async def test_a_client_sets_rsv1_where_deflate_was_agreed_on_and_nowhere_else(agreed: bool) -> None:
    headers = {"Sec_WebSocket_Extensions": "permessage-deflate"} if agreed else {}
    async with raw_pair(headers=headers, compression_options={}) as (conn, peer):
        conn.write_message("t" * 300)
        conn.ping(b"ping")
        received = await peer.receive()
        assert received is not None
        assert received.rsv == (RSV1 if agreed else 0)
        assert (inflated(received.payload) if agreed else received.payload) == b"t" * 300
        assert await peer.receive() == Frame(PING, b"ping")
        conn.close(1000)
        assert await peer.receive() == Frame(CLOSE, b"\x03\xe8")


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.1-no-data-after-close")
@pytest.mark.rfc("6455-5.5.1-both-at-once")
@pytest.mark.rfc("6455-6.1-open")
async def test_a_client_sends_nothing_behind_its_close_frame() -> None:
    async with raw_pair() as (conn, peer):
        protocol = conn.protocol
        assert protocol is not None
        conn.close(1000)
        with pytest.raises(WebSocketClosedError):
            conn.write_message("x")
        with pytest.raises(WebSocketClosedError):
            protocol.write_message("x")
        with pytest.raises(WebSocketClosedError):
            conn.ping()
        # No pong either, and no answer to a close frame that crosses ours.
        await peer.send(peer.frame(PING, b"?"), peer.frame(CLOSE, b"\x03\xe9"))
        assert await peer.receive_rest() == [Frame(CLOSE, b"\x03\xe8")]
        assert await conn.read_message() is None
        assert conn.close_code == 1001


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", [bytearray, memoryview])
@pytest.mark.rfc("6455-10.3-not-modified")
async def test_what_waits_to_be_sent_is_what_it_was_when_it_was_written(kind: Any) -> None:
    payload = bytearray(b"a" * MUCH)

    class Handler(StallingEcho):
        def on_message(self, message: str | bytes) -> None:
            future = self.write_message(kind(payload), binary=True)
            assert not future.done()
            payload[:] = b"b" * MUCH

    async with raw_pair(stalling=True) as (conn, peer):
        future = conn.write_message(kind(payload), binary=True)
        assert not future.done()
        payload[:] = b"b" * MUCH
        assert await peer.receive() == Frame(BINARY, b"a" * MUCH)
        await future
    payload[:] = b"a" * MUCH
    async with serving(Handler) as url, raw_client(url, stalling=True) as client:
        await client.send_frame(TEXT, b"write")
        assert await client.receive() == Frame(BINARY, b"a" * MUCH)


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", [bytearray, memoryview])
async def test_what_waits_for_the_end_of_the_turn_is_what_it_was_when_it_was_written(kind: Any) -> None:
    payload = bytearray(b"a")
    async with raw_pair() as (conn, peer):
        for letter in b"abc":
            payload[0] = letter
            future = conn.write_message(kind(payload), binary=True)
        payload[0] = ord("d")
        await future
        assert [await peer.receive() for _ in range(3)] == [Frame(BINARY, each) for each in (b"a", b"b", b"c")]


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5-control-length")
async def test_neither_end_sends_a_ping_of_more_than_125_bytes() -> None:
    class Pinging(Echo):
        def on_message(self, message: str | bytes) -> None:
            with pytest.raises(ValueError, match="125"):
                self.ping(b"x" * 126)
            self.ping(b"x" * 125)

    async with serving(Pinging) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"ping")
        assert await client.receive() == Frame(PING, b"x" * 125)
    async with raw_pair() as (conn, peer):
        with pytest.raises(ValueError, match="125"):
            conn.ping(b"x" * 126)
        conn.ping(b"x" * 125)
        assert await peer.receive() == Frame(PING, b"x" * 125)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.6-text")
async def test_neither_end_sends_text_that_is_not_utf8() -> None:
    class Garbling(Echo):
        def on_message(self, message: str | bytes) -> None:
            for garbled in ("\ud800", b"\xff"):
                with pytest.raises(ValueError, match=r"surrogates|utf-8"):
                    self.write_message(garbled)
            self.write_message(b"\xff", binary=True)

    async with serving(Garbling) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"garble")
        assert await client.receive() == Frame(BINARY, b"\xff")
    async with raw_pair() as (conn, peer):
        for garbled in ("\ud800", b"\xff"):
            with pytest.raises(ValueError, match=r"surrogates|utf-8"):
                conn.write_message(garbled)
        conn.write_message(b"\xff", binary=True)
        assert await peer.receive() == Frame(BINARY, b"\xff")


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.1-client-waits")
@pytest.mark.rfc("6455-7.1.1-client-waits")
async def test_a_client_closes_tcp_right_after_the_closing_handshake() -> None:
    """Whoever began it. It waits for no server, as in Tornado."""
    async with raw_pair() as (conn, peer):
        conn.close(1000)
        await peer.answer_close()
        assert await peer.receive() is None
    async with raw_pair() as (conn, peer):
        await peer.send_frame(CLOSE, b"\x03\xe8")
        assert await peer.receive_rest() == [Frame(CLOSE, b"\x03\xe8")]
