"""Options of permessage-deflate on real connections: where they are checked, what is negotiated, what is sent."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest

from tests.conftest import Log
from tests.peer import raw_client, raw_pair, raw_server
from tests.support import Echo, connected, serving, until
from tests.wire import BINARY, CLOSE, RSV1, TEXT, Frame, deflated, inflated
from tornado_ws import WebSocketHandler, websocket_connect
from tornado_ws.errors import InvalidHandshakeError
from tornado_ws.testing import expect


def echo(options: dict[str, Any]) -> type[Echo]:
    class Handler(Echo):
        def get_compression_options(self) -> dict[str, Any]:
            return options

    return Handler


# Where a mistake is found


def test_a_wrong_option_is_an_error_of_the_handlers_class() -> None:
    with pytest.raises(ValueError, match="compression option mem_level is 10; it has to be a level from 1 to 9"):
        echo({"mem_level": 10})


def test_what_cannot_be_asked_without_a_request_is_not_an_error_of_the_class() -> None:
    class AsksTheApplication(WebSocketHandler):
        def get_compression_options(self) -> dict[str, Any]:
            return {"mem_level": self.settings["level"]}

    class CallsTheOneAbove(AsksTheApplication):
        def get_compression_options(self) -> dict[str, Any]:
            return {**super().get_compression_options(), "threshold": 1}

    class Off(WebSocketHandler):
        def get_compression_options(self) -> None:
            return None

    class Odd(WebSocketHandler):
        def get_compression_options(self) -> Any:
            return "on"

    assert all(issubclass(cls, WebSocketHandler) for cls in (CallsTheOneAbove, Off, Odd))


@pytest.mark.gen_test
async def test_an_option_that_is_wrong_in_this_application_refuses_the_handshake_in_one_line(log: Log) -> None:
    class Handler(Echo):
        def get_compression_options(self) -> dict[str, Any]:
            return {"mem_level": self.settings["level"]}

    async with serving(Handler, level=10) as url:
        async with raw_client(url, Sec_WebSocket_Extensions="permessage-deflate") as peer:
            assert peer.status == 500
        async with raw_client(url) as peer:
            assert peer.status == 500
    assert len([line for line in log.lines if "compression option mem_level is 10; it has to be" in line]) == 2
    assert not [record for record in log.records if record.exc_info]


@pytest.mark.gen_test
async def test_a_wrong_option_of_a_client_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="compression option backend is 'gzip'; it has to be one of zlib,"):
        websocket_connect("ws://127.0.0.1:1/", compression_options={"backend": "gzip"})


@pytest.mark.gen_test
@pytest.mark.parametrize("given", ["{}", '{"compression_level": 1}', ["x"], [], (), "", 0])
async def test_what_is_no_dict_turns_compression_on_as_in_tornado(given: Any) -> None:
    class Late(Echo):
        def get_compression_options(self) -> Any:
            return self.settings["given"]

    async with serving([("/", echo(given)), ("/late", Late)], given=given) as url:
        for path in ("/", "/late"):
            async with connected(url + path, compression_options=given) as conn:
                assert conn.headers is not None
                assert conn.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
                await conn.write_message("x" * 1000)
                await expect(conn, "x" * 1000)


# What is negotiated

SERVER: list[tuple[dict[str, Any], str, str]] = [
    ({}, "permessage-deflate; client_max_window_bits", "permessage-deflate"),
    ({"max_wbits": 11}, "permessage-deflate", "permessage-deflate; server_max_window_bits=11"),
    (
        {"max_wbits": 11},
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; server_max_window_bits=10",
    ),
    (
        {"max_wbits": 11},
        "permessage-deflate; server_max_window_bits=12",
        "permessage-deflate; server_max_window_bits=11",
    ),
    (
        {"client_max_wbits": 9},
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=9",
    ),
    (
        {"client_max_wbits": 12},
        "permessage-deflate; client_max_window_bits=10",
        "permessage-deflate; client_max_window_bits=10",
    ),
    ({"client_max_wbits": 9}, "permessage-deflate", "permessage-deflate"),
    ({"server_no_context_takeover": True}, "permessage-deflate", "permessage-deflate; server_no_context_takeover"),
    ({"client_no_context_takeover": True}, "permessage-deflate", "permessage-deflate; client_no_context_takeover"),
    (
        {},
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    ),
]


@pytest.mark.gen_test
@pytest.mark.parametrize(("options", "offer", "answer"), SERVER)
@pytest.mark.rfc("6455-9-parameters")
@pytest.mark.rfc("7692-7.1.2.1-answered", "7692-7.1.2.2-not-offered", "7692-7.1.2.2-answered")
async def test_a_server_answers_with_what_both_allow(options: dict[str, Any], offer: str, answer: str) -> None:
    async with serving(echo(options)) as url, raw_client(url, Sec_WebSocket_Extensions=offer) as peer:
        assert peer.header("Sec-WebSocket-Extensions") == answer
        await peer.send_frame(TEXT, deflated(b"Hello"), rsv=RSV1)
        frame = await peer.receive()
        assert frame is not None
        assert inflated(frame.payload) == b"Hello"


CLIENT: list[tuple[dict[str, Any], str, str]] = [
    ({}, "permessage-deflate; client_max_window_bits", "permessage-deflate; server_max_window_bits=9"),
    (
        {"max_wbits": 11},
        "permessage-deflate; server_max_window_bits=11; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=10",
    ),
    ({"client_max_wbits": 9}, "permessage-deflate; client_max_window_bits=9", "permessage-deflate"),
    (
        {"server_no_context_takeover": True, "client_no_context_takeover": True},
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover",
    ),
]


@pytest.mark.gen_test
@pytest.mark.parametrize(("options", "offer", "answer"), CLIENT)
async def test_a_client_offers_what_it_was_told_to(options: dict[str, Any], offer: str, answer: str) -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url, compression_options=options)
        peer = await server.accept(Sec_WebSocket_Extensions=answer)
        assert peer.header("Sec-WebSocket-Extensions") == offer
        conn = await connecting
        conn.write_message("x" * 2000)
        frame = await peer.receive()
        assert frame is not None
        assert inflated(frame.payload) == b"x" * 2000
        conn.close()
        peer.close()
        await until(conn.stream.closed)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"max_wbits": 11}, "permessage-deflate"),
        ({"max_wbits": 11}, "permessage-deflate; server_max_window_bits=12"),
        ({"server_no_context_takeover": True}, "permessage-deflate"),
    ],
)
@pytest.mark.rfc("7692-7-fail-unsupported", "7692-7.1.2.1-too-large")
async def test_a_client_refuses_a_server_that_does_not_do_what_it_was_asked_for(
    options: dict[str, Any], answer: str
) -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url, compression_options=options)
        await server.accept(Sec_WebSocket_Extensions=answer)
        with pytest.raises(InvalidHandshakeError, match="asked for was server_"):
            await connecting


@pytest.mark.gen_test
async def test_both_ends_keep_to_small_windows_and_to_no_takeover() -> None:
    far_apart = [(bytes(range(256)) * 8).hex(), "short", (bytes(range(256)) * 8).hex()]
    for options in (
        {"max_wbits": 9, "client_max_wbits": 10},
        {"server_no_context_takeover": True, "client_no_context_takeover": True},
        {"backend": "auto", "max_wbits": 10},
        {"takeover_memory": 0},
    ):
        async with serving(echo(options)) as url, connected(url, compression_options=options) as conn:
            for message in far_apart:
                await conn.write_message(message)
                await expect(conn, message)


# What is sent

#: Its repetition refers further back than a window of 512 bytes.
FAR_BACK = bytes(range(256)) * 2 + bytes(range(200)) + bytes(range(255, -1, -1)) + bytes(range(200))


def inflates(payload: bytes, wbits: int) -> bool:
    """Whether a window of ``wbits`` is enough, byte by byte, for zlib does not look at it inside one call."""
    inflater = zlib.decompressobj(-wbits)
    try:
        return b"".join(inflater.decompress(bytes((byte,))) for byte in payload + b"\x00\x00\xff\xff") == FAR_BACK * 2
    except zlib.error:
        return False


@pytest.mark.gen_test
@pytest.mark.parametrize("wbits", [9, 15])
@pytest.mark.rfc("7692-7.2.1-window")
async def test_each_end_keeps_to_the_window_that_it_was_given(wbits: int) -> None:
    class Handler(echo({})):  # type: ignore[misc]
        def on_message(self, message: str | bytes) -> None:
            self.write_message(FAR_BACK * 2, binary=True)

    offer = f"permessage-deflate; server_max_window_bits={wbits}"
    async with serving(Handler) as url, raw_client(url, Sec_WebSocket_Extensions=offer) as client:
        await client.send_frame(TEXT, b"go")
        frame = await client.receive()
        assert frame is not None
        assert frame.rsv == RSV1
        assert inflates(frame.payload, wbits)
        # Or the agreement had no effect.
        assert inflates(frame.payload, 9) is (wbits == 9)
    answer = {"Sec_WebSocket_Extensions": f"permessage-deflate; client_max_window_bits={wbits}"}
    async with raw_pair(headers=answer, compression_options={}) as (conn, peer):
        conn.write_message(FAR_BACK * 2, binary=True)
        frame = await peer.receive()
        assert frame is not None
        assert frame.rsv == RSV1
        assert inflates(frame.payload, wbits)
        assert inflates(frame.payload, 9) is (wbits == 9)


@pytest.mark.gen_test
@pytest.mark.parametrize("takes_over", [True, False])
@pytest.mark.rfc("7692-7.1.1.2-not-taken-over", "7692-7.1.1.2-supported", "7692-7.1.1.1-not-taken-over")
@pytest.mark.rfc("7692-7.1.1.1-supported", "7692-7.1.1.1-answered")
async def test_each_end_takes_no_window_over_where_it_was_told_not_to(takes_over: bool) -> None:
    message = "a message that is its own best dictionary"
    parameter = "" if takes_over else "; server_no_context_takeover"
    header = f"permessage-deflate{parameter}"
    async with serving(echo({})) as url, raw_client(url, Sec_WebSocket_Extensions=header) as client:
        assert client.header("Sec-WebSocket-Extensions") == header
        for _ in range(2):
            await client.send_frame(TEXT, message.encode())
        first, second = await client.receive(), await client.receive()
        assert (first == second) is not takes_over
        assert first is not None
        assert inflated(first.payload) == message.encode()
    answer = {"Sec_WebSocket_Extensions": header.replace("server", "client")}
    async with raw_pair(headers=answer, compression_options={}) as (conn, peer):
        for _ in range(2):
            conn.write_message(message)
        first, second = await peer.receive(), await peer.receive()
        assert (first == second) is not takes_over
        assert first is not None
        assert inflated(first.payload) == message.encode()


@pytest.mark.gen_test
@pytest.mark.rfc("7692-7.2.2-taken-over", "7692-7.2.2-window")
async def test_each_end_inflates_with_the_window_of_the_messages_before() -> None:
    """Of 32 KiB: what a message refers to lies just not beyond it."""
    deflater = zlib.compressobj(wbits=-15)
    beginning = random.Random(1).randbytes(200)
    # A compressor looks no further back than 262 bytes less than the window.
    messages = [beginning, random.Random(2).randbytes(32768 - 262 - 200), beginning]
    payloads = [
        (deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")
        for message in messages
    ]
    assert len(payloads[2]) < 20
    offer = "permessage-deflate"
    async with serving(echo({})) as url, raw_client(url, Sec_WebSocket_Extensions=offer) as client:
        inflater = zlib.decompressobj(-15)
        for payload, message in zip(payloads, messages, strict=True):
            await client.send_frame(BINARY, payload, rsv=RSV1)
            frame = await client.receive()
            assert frame is not None
            assert inflater.decompress(frame.payload + b"\x00\x00\xff\xff") == message
    async with raw_pair(headers={"Sec_WebSocket_Extensions": offer}, compression_options={}) as (conn, peer):
        await peer.send(*[peer.frame(BINARY, payload, rsv=RSV1) for payload in payloads])
        assert [await conn.read_message() for _ in messages] == messages


@pytest.mark.gen_test
@pytest.mark.rfc("7692-6.1-uncompressed")
async def test_a_message_can_go_uncompressed() -> None:
    class Handler(echo({})):  # type: ignore[misc]
        def on_message(self, message: str | bytes) -> None:
            self.write_message(message, isinstance(message, bytes), compress=False)
            self.write_message(message, isinstance(message, bytes))

    async with serving(Handler) as url, raw_client(url, Sec_WebSocket_Extensions="permessage-deflate") as peer:
        for opcode, message in ((TEXT, b"text"), (BINARY, b"\xff")):
            await peer.send_frame(opcode, message)
            assert await peer.receive() == Frame(opcode, message)
            frame = await peer.receive()
            assert frame is not None
            assert frame.rsv == RSV1


@pytest.mark.gen_test
@pytest.mark.rfc("7692-6.1-uncompressed")
async def test_a_message_of_a_client_can_go_uncompressed() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url, compression_options={"threshold": 5})
        peer = await server.accept(Sec_WebSocket_Extensions="permessage-deflate")
        conn = await connecting
        conn.write_message("12345", compress=False)
        conn.write_message("1234")
        conn.write_message({"a": 1})
        assert [await peer.receive() for _ in range(2)] == [Frame(TEXT, b"12345"), Frame(TEXT, b"1234")]
        frame = await peer.receive()
        assert frame is not None
        assert (frame.rsv, inflated(frame.payload)) == (RSV1, b'{"a": 1}')
        conn.close()
        peer.close()
        await until(conn.stream.closed)


@pytest.mark.gen_test
async def test_it_may_be_said_where_nothing_was_negotiated_and_on_a_protocol_that_does_not_know_of_it() -> None:
    class Handler(Echo):
        def open(self) -> None:
            self.write_message("hello", compress=False)

        def on_message(self, message: str | bytes) -> Any:
            connection: Any = self.ws_connection
            inner = connection.write_message
            connection.write_message = lambda message, binary=False: inner(message, binary)
            return super().on_message(message)

    async with serving(Handler) as url, connected(url) as conn:
        await expect(conn, "hello")
        conn.write_message("a", compress=False)
        await expect(conn, "a")


# Bombs


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("ratio", "size", "refused"), [(20, 1_000_000, True), (2000, 1_000_000, False), (2, 60_000, False)]
)
async def test_a_message_that_inflates_to_too_many_times_its_size_is_refused(
    ratio: float, size: int, refused: bool
) -> None:
    options = {"max_ratio": ratio}
    async with serving(echo(options)) as url, raw_client(url, Sec_WebSocket_Extensions="permessage-deflate") as peer:
        await peer.send_frame(BINARY, deflated(b"before"), rsv=RSV1)
        await peer.send_frame(BINARY, deflated(bytes(size)), rsv=RSV1)
        assert await peer.receive() is not None
        frame = await peer.receive()
        assert frame is not None
        if refused:
            assert (frame.opcode, frame.payload[2:]) == (CLOSE, b"message inflates to more than 20 times its size")
            assert int.from_bytes(frame.payload[:2], "big") == 1009
        else:
            assert inflated(frame.payload) == bytes(size)
