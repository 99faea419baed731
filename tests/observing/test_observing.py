"""What can be seen of connections: counters, and who a line of the log is about."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from typing import Any

import pytest

import tornado_ws
from tests.conftest import Log
from tests.peer import Recording, StallingEcho, raw_client, raw_pair
from tests.support import Echo, connected, serving, until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, RSV1, TEXT, deflated
from tornado_ws import ConnectionFilter, Counters, WebSocketHandler
from tornado_ws.observing import logs

# Counters


@pytest.mark.gen_test
async def test_a_connection_counts_messages_their_bytes_and_those_on_the_wire() -> None:
    seen: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            seen.append(self.ws_connection)

    async with serving(Handler) as url, raw_client(url) as client:
        await client.send(
            client.frame(TEXT, "ä".encode(), fin=False), client.frame(CONTINUATION, b"b"), client.frame(PING, b"123")
        )
        await client.send_frame(BINARY, bytes(1000))
        for _ in range(3):
            await client.receive()
        counters = seen[0].counters
        # Headers take 2 bytes, 4 for 1,000 bytes of payload, and 4 more for the mask of a client.
        assert counters == Counters(
            messages_in=2,
            messages_out=2,
            message_bytes_in=1003,
            message_bytes_out=1003,
            wire_bytes_in=(6 + 2) + (6 + 1) + (6 + 3) + (8 + 1000),
            wire_bytes_out=(2 + 3) + (2 + 3) + (4 + 1000),
            buffered_amount=0,
        )
        assert counters.compression_ratio_out == pytest.approx(1003 / 1014)
        with pytest.raises(dataclasses.FrozenInstanceError):
            counters.messages_in = 0


@pytest.mark.gen_test
async def test_a_compression_ratio_tells_what_deflate_saves() -> None:
    async with raw_pair(headers={"Sec_WebSocket_Extensions": "permessage-deflate"}, compression_options={}) as (
        conn,
        peer,
    ):
        protocol: Any = conn.protocol
        assert protocol.counters.compression_ratio_in is None
        assert protocol.counters.compression_ratio_out is None
        await conn.write_message("x" * 10000)
        await peer.send_frame(TEXT, deflated(b"y" * 20000), rsv=RSV1)
        await conn.read_message()
        counters = protocol.counters
        assert (counters.messages_in, counters.messages_out) == (1, 1)
        assert (counters.message_bytes_in, counters.message_bytes_out) == (20000, 10000)
        assert counters.compression_ratio_in > 200
        assert counters.compression_ratio_out > 200


@pytest.mark.gen_test
async def test_what_waits_is_seen_on_both_ends() -> None:
    handlers: list[Any] = []

    class Handler(StallingEcho):
        def open(self) -> None:
            super().open()
            handlers.append(self)

    async with serving(Handler) as url, raw_client(url, stalling=True):
        await until(lambda: handlers)
        connection = handlers[0].ws_connection
        assert connection.buffered_amount == 0
        writing = connection.write_message(bytes(1 << 20), binary=True)
        before = connection.buffered_amount
        assert (1 << 20) - 500_000 < before <= (1 << 20) + 10
        assert connection.counters.buffered_amount == before
        assert tornado_ws.counters().buffered_amount == before
        connection.write_message(b"0123456789", binary=True)
        assert connection.buffered_amount == before + 12
    await until(writing.done)
    assert connection.buffered_amount == 0

    async with raw_pair(stalling=True) as (conn, peer):
        conn.write_message(bytes(1 << 24), binary=True)
        assert conn.buffered_amount > 1 << 20
        peer.reset()
        await conn.read_message()
        assert conn.buffered_amount == 0
    assert conn.protocol is None
    assert conn.buffered_amount == 0


def since(before: tornado_ws.ProcessCounters) -> dict[str, int]:
    now = tornado_ws.counters()
    counted = [field.name for field in dataclasses.fields(now) if field.name != "latency"]
    return {name: getattr(now, name) - getattr(before, name) for name in counted}


@pytest.mark.gen_test
async def test_the_process_counts_what_is_open_and_what_was(each_poller: str) -> None:
    before = tornado_ws.counters()
    async with serving(Echo) as url:
        async with connected(url) as one, connected(url) as two:
            for conn in (one, one, two):
                await conn.write_message("12345")
                await conn.read_message()
            seen = since(before)
            # Both ends are of this process.
            assert (seen["messages_in"], seen["messages_out"]) == (6, 6)
            assert (seen["message_bytes_in"], seen["message_bytes_out"]) == (30, 30)
            assert seen["wire_bytes_in"] == seen["wire_bytes_out"] == 3 * (7 + 11)
            assert (seen["open_connections"], seen["connections"]) == (4, 4)
        await until(lambda: since(before)["open_connections"] == 0)
        seen = since(before)
    assert (seen["messages_in"], seen["messages_out"]) == (6, 6)
    assert seen["connections"] == 4
    # Two of the close frames are an answer to the others.
    assert seen["wire_bytes_in"] == seen["wire_bytes_out"] > 3 * (7 + 11)


@pytest.mark.gen_test
async def test_messages_handled_after_the_socket_is_closed_count_once() -> None:
    before = tornado_ws.counters()
    gate = asyncio.Event()
    calls: list[Any] = []

    class Slow(Recording):
        async def on_message(self, message: str | bytes) -> None:
            await gate.wait()
            self.calls.append(message)

    async with serving(Slow, calls=calls) as url, raw_client(url) as client:
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(5)])
        await until(lambda: since(before)["wire_bytes_in"] == 35)
        client.reset()
        await until(lambda: since(before)["messages_in"] == 1)
        await asyncio.sleep(0.01)
        gate.set()
        await until(lambda: calls[-1][0] == "close")
        seen = since(before)
    assert seen["messages_in"] == sum(isinstance(call, str) for call in calls[1:-1]) == 5
    assert (seen["open_connections"], seen["connections"]) == (0, 1)


@pytest.mark.gen_test
async def test_connections_of_a_loop_in_another_thread_count_too() -> None:
    before = tornado_ws.counters()
    looked = threading.Event()
    is_open = threading.Event()

    async def talk() -> None:
        async with serving(Echo) as url, connected(url) as conn:
            await conn.write_message("x")
            await conn.read_message()
            is_open.set()
            looked.wait(3)

    thread = threading.Thread(target=asyncio.run, args=(talk(),))
    thread.start()
    is_open.wait(3)
    seen = since(before)
    looked.set()
    thread.join()
    assert (seen["open_connections"], seen["messages_in"]) == (2, 2)
    assert (since(before)["open_connections"], since(before)["messages_in"]) == (0, 2)


# Who a line is about


@pytest.mark.gen_test
async def test_our_own_lines_say_which_connection_they_are_about(log: Log) -> None:
    ids = []
    async with serving(Echo) as url:
        for _ in range(2):
            async with raw_client(url) as client:
                await client.send_frame(TEXT, b"\xff")
                await client.receive_rest()
            record: Any = log.records[-1]
            assert record.websocket_peer == "127.0.0.1"
            ids.append(record.websocket_id)
    async with raw_pair() as (conn, peer):
        host, port = peer.sock.getsockname()
        await peer.send_frame(TEXT, b"\xff")
        await conn.read_message()
        record = log.records[-1]
        assert record.websocket_peer == f"{host}:{port}"
        ids.append(record.websocket_id)
    assert sorted(set(ids)) == ids


@pytest.fixture
def filtered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that a handler with a `ConnectionFilter` writes."""
    monkeypatch.setattr(ConnectionFilter, "_is_used", False)
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Handler()
    handler.addFilter(ConnectionFilter())
    handler.setFormatter(logging.Formatter("%(websocket_id)s %(websocket_peer)s %(message)s"))
    logger = logging.getLogger("an application")
    logger.propagate = False
    logger.addHandler(handler)
    return lines


@pytest.mark.gen_test
async def test_a_filter_tells_the_connection_of_the_applications_lines(filtered: list[str]) -> None:
    app_log = logging.getLogger("an application")
    others: list[Any] = []

    class Handler(WebSocketHandler):
        async def open(self) -> None:
            others.append(self.ws_connection)
            app_log.warning("open")

        async def on_message(self, message: str | bytes) -> None:
            await asyncio.sleep(0)
            app_log.warning("on_message")
            app_log.warning("about another", extra=logs.extra_of(others[0]))

        def on_close(self) -> None:
            app_log.warning("on_close")

    async with serving(Handler) as url:
        async with raw_client(url) as one, raw_client(url) as two:
            await until(lambda: len(others) == 2)
            first, second = (connection.connection_id for connection in others)
            for client in (two, one):
                await client.send(client.frame(TEXT, b"x"), client.frame(CLOSE))
                await client.receive_rest()
        await until(lambda: len(filtered) == 8)
    app_log.warning("of nobody")
    assert set(filtered[:2]) == {f"{number} 127.0.0.1 open" for number in (first, second)}
    assert filtered[2:] == [
        f"{second} 127.0.0.1 on_message",
        f"{first} 127.0.0.1 about another",
        f"{second} 127.0.0.1 on_close",
        f"{first} 127.0.0.1 on_message",
        f"{first} 127.0.0.1 about another",
        f"{first} 127.0.0.1 on_close",
        "- - of nobody",
    ]


@pytest.mark.gen_test
async def test_a_client_callback_has_its_connection_too(filtered: list[str]) -> None:
    app_log = logging.getLogger("an application")
    async with raw_pair(on_message_callback=lambda message: app_log.warning("%s", message)) as (conn, peer):
        protocol: Any = conn.protocol
        await peer.send_frame(TEXT, b"hello")
        await until(lambda: filtered)
        host, port = peer.sock.getsockname()
        assert filtered == [f"{protocol.connection_id} {host}:{port} hello"]
        app_log.warning("not of a callback")
        assert filtered[1] == "- - not of a callback"


@pytest.mark.gen_test
async def test_without_a_filter_a_context_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConnectionFilter, "_is_used", False)
    async with raw_pair() as (conn, _):
        protocol: Any = conn.protocol
        await until(lambda: protocol._transport is not None)
        assert logs._current not in protocol._transport.context
