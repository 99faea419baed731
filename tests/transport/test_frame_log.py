"""Frames in the log."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import pytest
from tornado.httpclient import HTTPRequest

from tests.conftest import Log, Tls
from tests.peer import raw_client, raw_pair, tls_client
from tests.support import Echo, connected, serving, until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, Frame, close_payload, deflated
from tornado_ws import WebSocketClosedError, broadcast
from tornado_ws.engine.contract import FIN
from tornado_ws.transport import frame_log
from tornado_ws.transport.frame_log import FrameTap

FRAMES = "tornado_ws.frames"


def lines_of(caplog: pytest.LogCaptureFixture, arrow: str) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.name == FRAMES]
    return [line[2:] for line in lines if line[0] == arrow]


@pytest.fixture
def frames(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Turns the log on, and gives the lines of one direction."""
    caplog.set_level(logging.DEBUG, FRAMES)

    def lines(arrow: str) -> list[str]:
        records: list[Any] = [record for record in caplog.records if record.name == FRAMES]
        assert all(record.websocket_peer.startswith("127.0.0.1") for record in records)
        return lines_of(caplog, arrow)

    return lines


class Deflated(Echo):
    def get_compression_options(self) -> dict[str, Any]:
        return {}


# What a line says


@pytest.mark.gen_test
async def test_frames_are_logged_readably(frames: Any) -> None:
    async with serving(Echo) as url, raw_client(url) as client:
        await client.send(
            client.frame(TEXT, b"Hel", fin=False),
            client.frame(PING, b"?"),
            client.frame(CONTINUATION, "lö".encode()),
            client.frame(BINARY, bytes(range(100))),
            client.frame(TEXT, b"x" * 70000),
            client.frame(TEXT, b""),
            client.frame(CLOSE, close_payload(1001, "bye")),
        )
        await client.receive_rest()
    binary = bytes(range(24)).hex(" ") + "…"
    long = "'" + "x" * 64 + "'… [70000 bytes]"
    assert frames("<") == [
        "TEXT 'Hel' [3 bytes, to be continued]",
        "PING 3f [1 bytes]",
        "CONT 'lö' [3 bytes]",
        f"BINARY {binary} [100 bytes]",
        f"TEXT {long}",
        "TEXT '' [0 bytes]",
        "CLOSE 1001 'bye' [5 bytes]",
    ]
    assert sorted(frames(">")) == sorted(
        [
            "PONG 3f [1 bytes]",
            "TEXT 'Hellö' [6 bytes]",
            f"BINARY {binary} [100 bytes]",
            f"TEXT {long}",
            "TEXT '' [0 bytes]",
            "CLOSE 1001 [2 bytes]",
        ]
    )


@pytest.mark.gen_test
async def test_deflated_frames_are_logged_as_what_they_say(frames: Any) -> None:
    async with (
        serving(Deflated) as url,
        raw_client(url, Sec_WebSocket_Extensions="permessage-deflate") as client,
    ):
        text = "hello " * 100
        payload = deflated(text.encode())
        await client.send_frame(TEXT, payload, rsv=RSV1)
        await client.send(client.frame(TEXT, payload[:5], rsv=RSV1, fin=False), client.frame(CONTINUATION, payload[5:]))
        sizes = []
        for _ in range(2):
            received = await client.receive()
            assert received is not None
            sizes.append(len(received.payload))
        await client.send_frame(TEXT, b"\xff\xff\xff", rsv=RSV1)
        await client.receive_rest()
    shown = repr(text[:64]) + "…"
    incoming = frames("<")
    assert incoming[0] == f"TEXT {shown} [{len(payload)} bytes, deflated]"
    assert incoming[1].endswith("[5 bytes, deflated, to be continued]")
    assert incoming[2].endswith(f"[{len(payload) - 5} bytes, deflated]")
    # Together they show the beginning.
    pieces = [line[line.index("'") + 1 : line.rindex("'")] for line in incoming[1:3]]
    assert text.startswith(pieces[0])
    assert "hello" in pieces[1]
    assert incoming[3].startswith("TEXT ")
    assert frames(">")[:2] == [f"TEXT {shown} [{size} bytes, deflated]" for size in sizes]
    assert sizes[1] < sizes[0]


@pytest.mark.gen_test
async def test_what_breaks_the_rules_is_logged_before_it_is_refused(frames: Any, log: Log) -> None:
    async with serving(Echo) as url, raw_client(url) as client:
        await client.send(client.frame(CLOSE, b"\x00"))
        await client.receive_rest()
        assert frames("<") == ["CLOSE 00 [1 bytes]"]
    async with serving(Echo) as url, raw_client(url) as client:
        await client.send(client.frame(0x3, b"abc"))
        await client.receive_rest()
        assert frames("<")[1] == "opcode 0x3 61 62 63 [3 bytes]"


@pytest.mark.gen_test
async def test_what_the_peer_says_cannot_write_lines_of_its_own(frames: Any) -> None:
    evil = "x\n> CLOSE\x1b[2J\x85\u202e"
    async with serving(Echo) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, evil.encode()), client.frame(CLOSE, close_payload(4000, evil)))
        await client.receive_rest()
    assert frames("<") == [f"TEXT {evil!r} [18 bytes]", f"CLOSE 4000 {evil!r} [20 bytes]"]
    assert all(line.isprintable() for line in frames("<") + frames(">"))


@pytest.mark.gen_test
async def test_a_broadcast_is_logged_for_each_connection(frames: Any) -> None:
    handlers: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            handlers.append(self)

    async with serving(Handler) as url, raw_client(url) as one, raw_client(url) as two:
        await until(lambda: len(handlers) == 2)
        assert broadcast(handlers, "news") == 2
        for client in (one, two):
            assert await client.receive() == Frame(TEXT, b"news")
    assert frames(">") == ["TEXT 'news' [4 bytes]"] * 2


# The log is a tap


@contextlib.asynccontextmanager
async def client_of(url: str, tls: Tls | None) -> AsyncIterator[Any]:
    async with tls_client(url, tls.client) if tls is not None else raw_client(url) as client:
        yield client


@pytest.mark.parametrize("over_tls", [False, True])
@pytest.mark.gen_test
async def test_all_that_comes_is_read_and_answered(frames: Any, tls: Tls, over_tls: bool) -> None:
    used = tls if over_tls else None
    large = bytes(range(256)) * 4000
    async with serving(Echo, ssl_options=used and used.server) as url, client_of(url, used) as client:
        for payload in (b"a", b"b"):
            await client.send_frame(TEXT, payload)
            assert await client.receive() == Frame(TEXT, payload)
        await client.send_frame(PING, b"?")
        assert await client.receive() == Frame(PONG, b"?")
        await client.send_frame(BINARY, large)
        assert await client.receive() == Frame(BINARY, large)
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(2000)])
        for number in range(2000):
            assert await client.receive() == Frame(TEXT, b"%d" % number)
        await client.send_frame(CLOSE)
        assert await client.receive() == Frame(CLOSE)
    texts = ["a", "b", *map(str, range(2000))]
    for arrow in "<>":
        lines = frames(arrow)
        assert [line.split()[1] for line in lines if line.startswith("TEXT")] == [repr(text) for text in texts]
        assert next(line for line in lines if line.startswith("BINARY")).endswith(f"… [{len(large)} bytes]")


@pytest.mark.parametrize("over_tls", [False, True])
@pytest.mark.gen_test
async def test_a_logged_client_reads_too(frames: Any, tls: Tls, over_tls: bool) -> None:
    options: dict[str, Any] = {"ssl_options": tls.client} if over_tls else {}
    async with serving(Deflated, ssl_options=tls.server if over_tls else None) as url:
        if over_tls:
            url = url.replace("ws://", "wss://")
        async with connected(HTTPRequest(url, **options), compression_options={}) as conn:
            for message in ("hello " * 100, "x" * 300_000, "end"):
                await conn.write_message(message)
                assert await conn.read_message() == message
    # Both ends are of this process.
    assert len(frames("<")) == len(frames(">")) >= 6


def has_read(protocol: Any, total: int) -> bool:
    return bool(protocol._signs_of_life().read == total)


@pytest.mark.parametrize("is_on", [False, True])
@pytest.mark.gen_test
async def test_the_log_changes_nothing_about_the_path(caplog: pytest.LogCaptureFixture, is_on: bool) -> None:
    if is_on:
        caplog.set_level(logging.DEBUG, FRAMES)
    async with raw_pair() as (conn, peer):
        protocol: Any = conn.protocol
        await until(lambda: protocol._transport is not None)
        assert (protocol._transport.tap is not None) == is_on
        assert not protocol._steps_replaced
        assert protocol._out is protocol._transport
        # What the keepalive takes for life: every byte, be it half a header.
        whole = peer.frame(PING, b"12")
        begun = protocol._signs_of_life().read
        count = 0
        for piece in (whole[:1], whole[1:3], whole[3:]):
            await peer.send(piece)
            count += len(piece)
            await until(functools.partial(has_read, protocol, begun + count))
    assert (lines_of(caplog, "<")[:1] == ["PING 31 32 [2 bytes]"]) == is_on


@pytest.mark.parametrize("deflate", [False, True])
def test_a_long_frame_takes_no_memory(frames: Any, deflate: bool) -> None:
    class Connection:
        connection_id = 1
        peer_name = "127.0.0.1"

    tap = FrameTap(Connection())
    first_byte = BINARY | (RSV1 if deflate else 0)
    # A terabyte is announced.
    tap.received(bytes([FIN | first_byte, 0xFF]) + (1 << 40).to_bytes(8, "big") + b"abcd")
    piece = bytes(1 << 20)
    tracemalloc.start()
    try:
        for _ in range(16):
            tap.received(piece)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
    assert peak < 8 << 20
    assert frames("<") == []


@pytest.mark.gen_test
async def test_a_log_whose_filter_raises_is_given_up_and_not_the_connection(
    frames: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise LookupError("the filter is broken")

    frame_log.logger.addFilter(refuse)
    try:
        async with serving(Echo) as url, raw_client(url) as client:
            for payload in (b"a", b"b"):
                await client.send_frame(TEXT, payload)
                assert await client.receive() == Frame(TEXT, payload)
    finally:
        frame_log.logger.removeFilter(refuse)
    assert capfd.readouterr().err.count("LookupError: the filter is broken") == 1


# When it is on


@pytest.mark.parametrize(
    ("name", "level", "is_on"),
    [
        ("tornado_ws.frames", logging.DEBUG, True),
        ("tornado_ws.frames", 5, True),
        ("tornado_ws.frames", logging.INFO, False),
        ("tornado_ws", logging.DEBUG, False),
        ("", logging.DEBUG, False),
    ],
)
@pytest.mark.gen_test
async def test_only_a_level_of_its_own_turns_it_on(
    caplog: pytest.LogCaptureFixture, name: str, level: int, is_on: bool
) -> None:
    caplog.set_level(level, name)
    async with serving(Echo) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert await client.receive() == Frame(TEXT, b"x")
    assert lines_of(caplog, "<")[:1] == ["TEXT 'x' [1 bytes]"] * is_on


@pytest.mark.gen_test
async def test_it_is_decided_when_a_connection_opens(caplog: pytest.LogCaptureFixture) -> None:
    async with raw_pair() as (conn, _):
        protocol: Any = conn.protocol
        await until(lambda: protocol._transport is not None)
        caplog.set_level(logging.DEBUG, FRAMES)
        await conn.write_message("x")
    assert lines_of(caplog, ">") == []


# A handler that sends the log over WebSockets


def at_once(send: Callable[[], None]) -> None:
    send()


def soon(send: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon_threadsafe(send)


def in_a_task(send: Callable[[], None]) -> None:
    async def later() -> None:
        await asyncio.sleep(0)
        send()

    _tasks.append(asyncio.get_running_loop().create_task(later()))


_tasks: list[asyncio.Task[None]] = []


class Showing(Echo):
    """An echo whose clients get the log too."""

    shown: ClassVar[list[Any]] = []

    def open(self) -> None:
        self.shown.append(self)

    def on_close(self) -> None:
        self.shown.remove(self)


@pytest.fixture(params=[at_once, soon, in_a_task])
def log_shown(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Sends each line of the log to the handlers in ``Showing.shown``, and gives the lines."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = self.format(record)
            lines.append(line)

            def send() -> None:
                for client in list(Showing.shown):
                    with contextlib.suppress(WebSocketClosedError):
                        client.write_message("log: " + line)

            request.param(send)

    handler = Handler()
    frame_log.logger.addHandler(handler)
    yield lines
    frame_log.logger.removeHandler(handler)
    Showing.shown.clear()
    _tasks.clear()


class ShowingDeflated(Deflated, Showing):
    pass


@pytest.mark.parametrize("handler", [Showing, ShowingDeflated])
@pytest.mark.gen_test
async def test_a_frame_that_a_handler_caused_is_not_logged(
    frames: Any, log_shown: list[str], handler: type[Showing]
) -> None:
    async with serving(handler) as url, connected(url, compression_options={}) as conn:
        await until(lambda: Showing.shown)
        await conn.write_message("one")
        # Two ends in this process, each of which sends it and receives it.
        expected = ["> TEXT 'one'", "< TEXT 'one'"] * 2
        messages: list[Any] = []
        while len(messages) < 5:
            messages.append(await conn.read_message())
        conn.ping(b"!")
        # What was caused before has come by then.
        await until(lambda: any(line.startswith("< PONG") for line in log_shown))
        seen = [line.split(" [")[0] for line in log_shown if "TEXT" in line]
        assert sorted(seen) == sorted(expected)
        assert sorted(message.split(" [")[0] for message in messages) == sorted(
            ["one", *["log: " + line for line in expected]]
        )
