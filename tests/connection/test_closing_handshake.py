"""The closing handshake, begun by either end, on a server and on a client."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from tests.conftest import Log
from tests.peer import Recording, Sockets, raw_client, raw_pair
from tests.support import Echo, connected, serving, standing_loop, until
from tests.wire import CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close_payload
from tornado_ws import WebSocketClosedError

GOOD = [
    (None, None),
    (1000, None),
    (1001, "going away"),
    (1003, "x" * 123),
    (1007, ""),
    (1011, "\N{SNOWMAN}" * 41),
    (1012, None),
    (1013, None),
    (1014, None),
    (3000, "registered"),
    (4999, "private"),
]


def payload_of(code: int | None, reason: str | None) -> bytes:
    return b"" if code is None else close_payload(code, reason or "")


# Begun by the peer


@pytest.mark.gen_test
@pytest.mark.parametrize(("code", "reason"), GOOD)
@pytest.mark.rfc("6455-5.5.1-answered", "6455-5.5.1-tcp-closed")
@pytest.mark.rfc("6455-7.1.5-no-code")
async def test_a_server_echoes_the_clients_code(code: int | None, reason: str | None, log: Log) -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(CLOSE, payload_of(code, reason))
        assert await client.receive_rest() == [Frame(CLOSE, payload_of(code, None))]
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", code, reason or None)]
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.parametrize(("code", "reason"), GOOD)
@pytest.mark.rfc("6455-5.5.1-answered", "6455-5.5.1-tcp-closed")
@pytest.mark.rfc("6455-7.1.5-no-code")
async def test_a_client_echoes_the_servers_code(code: int | None, reason: str | None, log: Log) -> None:
    async with raw_pair() as (conn, peer):
        await peer.send_frame(CLOSE, payload_of(code, reason))
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (code, reason or None)
        assert await peer.receive_rest() == [Frame(CLOSE, payload_of(code, None))]
        with pytest.raises(WebSocketClosedError):
            conn.write_message("too late")
        with pytest.raises(WebSocketClosedError):
            conn.ping()
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.1-answered-soon")
async def test_messages_before_the_close_frame_are_answered_before_it_is() -> None:
    calls: list[Any] = []

    class Slow(Recording):
        async def on_message(self, message: str | bytes) -> None:
            await asyncio.sleep(0.02)
            self.calls.append(message)
            await self.write_message(message)

    async with serving(Slow, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"), client.frame(CLOSE, b"\x03\xe8"))
        assert await client.receive_rest() == [Frame(TEXT, b"1"), Frame(TEXT, b"2"), Frame(CLOSE, b"\x03\xe8")]
        await until(lambda: len(calls) == 4)
    assert calls == ["open", "1", "2", ("close", 1000, None)]


@pytest.mark.gen_test
async def test_a_close_frame_inside_a_fragmented_message() -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"never", fin=False), client.frame(CLOSE, b"\x03\xe8"))
        await client.send(client.frame(CONTINUATION, b"finished"))
        assert await client.receive_rest() == [Frame(CLOSE, b"\x03\xe8")]
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 1000, None)]


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.2-pong")
async def test_nothing_after_the_peers_close_frame_is_looked_at() -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(CLOSE, b"\x03\xe8"), client.frame(PING, b"?"), client.frame(TEXT, b"?"))
        await client.send(*[client.frame(TEXT, b"more" * 20)] * 3000)
        assert await client.receive_rest() == [Frame(CLOSE, b"\x03\xe8")]
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 1000, None)]


@pytest.mark.gen_test
@pytest.mark.rfc("6455-7.1.5-first-code")
async def test_the_first_close_frame_counts() -> None:
    calls: list[Any] = []
    closes = [(CLOSE, close_payload(4001, "first")), (CLOSE, close_payload(4002, "second"))]
    async with serving(Recording, calls=calls) as url, raw_client(url) as client:
        await client.send(*[client.frame(*close) for close in closes])
        assert await client.receive_rest() == [Frame(CLOSE, close_payload(4001))]
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 4001, "first")]
    async with raw_pair() as (conn, peer):
        await peer.send(*[peer.frame(*close) for close in closes])
        assert await peer.receive_rest() == [Frame(CLOSE, close_payload(4001))]
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (4001, "first")


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.1-server-closes-tcp")
@pytest.mark.rfc("6455-7.1.1-server-first")
async def test_a_server_closes_tcp_right_after_the_closing_handshake() -> None:
    """It waits for none of its timeouts."""
    async with serving(Echo, websocket_close_timeout=1000) as url, raw_client(url) as client:
        await client.send_frame(CLOSE)
        assert await client.receive_rest() == [Frame(CLOSE)]


@pytest.mark.gen_test
async def test_after_a_complete_handshake_nothing_is_kept_for_the_peer() -> None:
    async with serving(Echo, websocket_close_timeout=1000) as url:
        sockets = Sockets()
        async with raw_client(url) as client:
            await client.send_frame(CLOSE)
            assert await client.receive_rest() == [Frame(CLOSE)]
            # It has not closed its side, and is the only one that has a socket of this connection.
            await until(lambda: len(sockets.new()) == 1)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-7.1.1-clean")
async def test_a_peer_that_goes_on_sending_can_still_read_the_answer() -> None:
    """What is not read when the socket is closed would turn FIN into a reset, which may destroy what went before."""
    released = asyncio.Event()

    class Busy(Echo):
        async def on_message(self, message: str | bytes) -> None:
            await released.wait()

    async with serving(Busy) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"busy"), client.frame(CLOSE, b"\x03\xe8"))
        await asyncio.sleep(0.02)
        await client.send(client.frame(TEXT, b"unread"))
        released.set()
        assert await client.receive_rest() == [Frame(CLOSE, b"\x03\xe8")]
        await client.send(client.frame(TEXT, b"and more"))


# Begun by us


@pytest.mark.gen_test
@pytest.mark.parametrize(("code", "reason"), GOOD)
@pytest.mark.rfc("6455-7.1.2-close-frame", "6455-7.1.5-first-code", "6455-7.3-closing-handshake")
async def test_a_server_closes(code: int | None, reason: str | None, log: Log) -> None:
    calls: list[Any] = []

    class Closing(Recording):
        def on_message(self, message: str | bytes) -> None:
            self.close(code, reason)

    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"close")
        assert await client.receive() == Frame(CLOSE, payload_of(code, reason))
        await client.send_frame(CLOSE, close_payload(4321, "answer"))
        assert await client.receive() is None
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 4321, "answer")]
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.parametrize(("code", "reason"), GOOD)
@pytest.mark.rfc("6455-7.1.2-close-frame", "6455-7.1.5-first-code", "6455-7.3-closing-handshake")
async def test_a_client_closes(code: int | None, reason: str | None, log: Log) -> None:
    async with raw_pair() as (conn, peer):
        conn.close(code, reason)
        assert await peer.receive() == Frame(CLOSE, payload_of(code, reason))
        await peer.send_frame(CLOSE, close_payload(4321, "answer"))
        assert await peer.receive() is None
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (4321, "answer")
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_reason_alone_goes_with_1000() -> None:
    async with raw_pair() as (conn, peer):
        conn.close(reason="bye")
        assert await peer.receive() == Frame(CLOSE, close_payload(1000, "bye"))


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.1-both-at-once")
async def test_both_ends_close_at_once() -> None:
    calls: list[Any] = []

    class Closing(Recording):
        def on_message(self, message: str | bytes) -> None:
            self.close(4001)

    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"close"), client.frame(CLOSE, close_payload(4002)))
        assert await client.receive_rest() == [Frame(CLOSE, close_payload(4001))]
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 4002, None)]


@pytest.mark.gen_test
async def test_messages_behind_our_close_frame_still_arrive_until_the_peers() -> None:
    """Section 5.5.1: the peer may have sent them before it saw our close frame."""
    calls: list[Any] = []

    class Closing(Recording):
        def on_message(self, message: str | bytes) -> None:
            self.calls.append(message)
            if message == "close":
                self.close(1001)

    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"close")
        assert await client.receive() == Frame(CLOSE, b"\x03\xe9")
        # No pong either: a close frame is the last one.
        await client.send(client.frame(TEXT, b"1"), client.frame(PING, b"?"), client.frame(TEXT, b"2"))
        await client.send_frame(CLOSE, b"\x03\xe9")
        assert await client.receive_rest() == []
        await until(lambda: len(calls) == 5)
    assert calls == ["open", "close", "1", "2", ("close", 1001, None)]


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.1-no-data-after-close")
@pytest.mark.rfc("6455-6.1-open")
async def test_nothing_is_sent_behind_our_close_frame() -> None:
    calls: list[Any] = []

    class Closing(Recording):
        def on_message(self, message: str | bytes) -> None:
            protocol = self.ws_connection
            assert protocol is not None
            self.close(1000)
            with pytest.raises(WebSocketClosedError):
                self.write_message("x")
            with pytest.raises(WebSocketClosedError):
                self.ping(b"x")
            with pytest.raises(WebSocketClosedError):
                protocol.write_message("x")
            with pytest.raises(WebSocketClosedError):
                protocol.write_ping(b"x")
            self.close(1001)
            protocol.close(1002)
            assert protocol.is_closing()
            self.calls.append("checked")

    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"close")
        assert await client.answer_close() == []
        assert await client.receive_rest() == []
    assert calls == ["open", "checked", ("close", 1000, None)]


@pytest.mark.gen_test
async def test_a_client_that_closes_with_messages_unread_need_not_read_them() -> None:
    async with raw_pair() as (conn, peer):
        await peer.send(*[peer.frame(TEXT, b"%d" % number) for number in range(10)])
        assert await conn.read_message() == "0"
        conn.close(1000)
        await peer.answer_close()
        assert await peer.receive() is None
        await until(conn.stream.closed)
        assert conn.close_code == 1000


@pytest.mark.gen_test
async def test_a_client_that_closes_with_very_many_messages_unread_need_not_read_them() -> None:
    """More than are read ahead: what stands between us and the peer's close frame has to be read all the same."""
    async with raw_pair() as (conn, peer):
        await peer.send(*[peer.frame(TEXT, b"x" * 1000)] * 1000)
        await asyncio.sleep(0.05)
        conn.close(1000)
        await peer.answer_close()
        assert await peer.receive() is None
        await until(conn.stream.closed)
        assert conn.close_code == 1000


# A peer that does not answer


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.1-tcp-closed")
@pytest.mark.rfc("6455-7.1.5-no-close-frame")
async def test_a_client_that_never_answers_is_cut_off(log: Log) -> None:
    calls: list[Any] = []

    class Closing(Recording):
        websocket_close_timeout = 0.05

        def on_message(self, message: str | bytes) -> None:
            self.close(4000)

    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"close")
        assert await client.receive() == Frame(CLOSE, b"\x0f\xa0")
        assert calls == ["open"]
        assert await client.receive() is None
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 1006, "closing handshake timed out")]
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.1-tcp-closed")
async def test_a_server_that_never_answers_is_cut_off() -> None:
    async with raw_pair(close_timeout=0.05) as (conn, peer):
        conn.close(4000)
        assert await peer.receive() == Frame(CLOSE, b"\x0f\xa0")
        assert await peer.receive() is None
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (1006, "closing handshake timed out")


@pytest.mark.gen_test
async def test_an_answer_in_time_counts_though_the_application_is_busy_for_longer() -> None:
    calls: list[Any] = []

    class Busy(Recording):
        websocket_close_timeout = 0.5

        async def on_message(self, message: str | bytes) -> None:
            self.close(4000)
            await asyncio.sleep(1)

    async with serving(Busy, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"close")
        assert await client.receive() == Frame(CLOSE, b"\x0f\xa0")
        await client.send_frame(CLOSE, close_payload(4000, "fine"))
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 4000, "fine")]


@pytest.mark.gen_test
@pytest.mark.rfc("6455-7.1.5-no-close-frame")
async def test_a_peer_that_hangs_up_instead_of_answering() -> None:
    calls: list[Any] = []

    class Closing(Recording):
        def on_message(self, message: str | bytes) -> None:
            self.close(4000)

    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"close")
        assert await client.receive() == Frame(CLOSE, b"\x0f\xa0")
        client.half_close()
        assert await client.receive() is None
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", None, None)]


@pytest.mark.gen_test
async def test_a_peer_that_never_hangs_up_is_let_go() -> None:
    """After the closing handshake the peer has a moment to close its side, then the socket goes all the same."""
    async with serving(Echo, websocket_close_timeout=0.05) as url, raw_client(url) as client:
        await client.send_frame(CLOSE)
        assert await client.receive_rest() == [Frame(CLOSE)]
        # That was FIN; a socket that is really gone answers with RST.
        assert await client.is_cut_off(client.frame(PONG))


# Codes and reasons that may not be sent

BAD = [
    (0, None),
    (999, None),
    (1004, None),
    (1005, None),
    (1006, None),
    (1015, None),
    (1016, None),
    (2999, "x"),
    (-1, None),
    (1000, "x" * 124),
    (None, "x" * 124),
    (1000, "\N{SNOWMAN}" * 42),
]


@pytest.mark.gen_test
@pytest.mark.parametrize(("code", "reason"), BAD)
@pytest.mark.rfc("6455-7.4.2-ranges")
@pytest.mark.rfc("6455-7.4.1-1005", "6455-7.4.1-1006", "6455-7.4.1-1015")
async def test_a_server_refuses_to_send_them_and_nothing_has_happened(code: int | None, reason: str | None) -> None:
    calls: list[Any] = []

    class Closing(Recording):
        def on_message(self, message: str | bytes) -> Any:
            protocol = self.ws_connection
            assert protocol is not None
            with pytest.raises(ValueError, match=r"allowed are|are allowed"):
                self.close(code, reason)
            assert self.ws_connection is protocol
            assert not protocol.is_closing()
            return self.write_message("still here")

    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        for _ in range(2):
            await client.send_frame(TEXT, b"close")
            assert await client.receive() == Frame(TEXT, b"still here")
        await client.send_frame(CLOSE)
        assert await client.receive_rest() == [Frame(CLOSE)]
        await until(lambda: len(calls) == 2)


@pytest.mark.gen_test
@pytest.mark.parametrize(("code", "reason"), BAD)
@pytest.mark.rfc("6455-7.4.2-ranges")
@pytest.mark.rfc("6455-7.4.1-1005", "6455-7.4.1-1006", "6455-7.4.1-1015")
async def test_a_client_refuses_to_send_them_and_nothing_has_happened(code: int | None, reason: str | None) -> None:
    async with serving(Echo) as url, connected(url) as conn:
        with pytest.raises(ValueError, match=r"allowed are|are allowed"):
            conn.close(code, reason)
        await conn.write_message("still here")
        assert await conn.read_message() == "still here"


def test_who_closes_where_the_loop_stands_still_waits_in_that_loop() -> None:
    """Not in the one that is the current one of the thread."""
    stack = contextlib.AsyncExitStack()
    with standing_loop() as loop, standing_loop() as other:
        conn, _ = loop.run_until_complete(stack.enter_async_context(raw_pair(close_timeout=0.05)))
        asyncio.set_event_loop(other)
        try:
            conn.close()
        finally:
            asyncio.set_event_loop(None)
        loop.run_until_complete(until(conn.stream.closed))
        loop.run_until_complete(stack.aclose())
