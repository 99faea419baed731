"""Opening handshakes that fail on the server's answer, and what the client's application learns of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tornado import version_info
from tornado.httpclient import HTTPClientError, HTTPError, HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import HTTPStreamClosedError
from tornado.web import RequestHandler

from tests.conftest import Log
from tests.peer import Sockets, raw_pair, raw_server
from tests.support import serving, until
from tests.wire import PONG, TEXT, Frame
from tornado_ws import (
    HandshakeError,
    HandshakeRejectedError,
    InvalidHandshakeError,
    WebSocketError,
    WebSocketProtocol13,
    websocket_connect,
)

DEFLATE: dict[str, Any] = {"compression_options": {}}
CHAT: dict[str, Any] = {"subprotocols": ["chat", "superchat"]}

#: Headers of a 101, options of the client, what the exception has to say, and the requirement that they break.
BAD_ANSWERS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "no accept value": ({"Sec_WebSocket_Accept": None}, {}, "Sec-WebSocket-Accept is ''", "6455-4.1-response-accept"),
    "another accept value": (
        {"Sec_WebSocket_Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
        {},
        "Sec-WebSocket-Accept is",
        "6455-4.1-response-accept",
    ),
    "no Upgrade": ({"Upgrade": None}, {}, "Upgrade header is None", "6455-4.1-response-upgrade"),
    "Upgrade to something else": ({"Upgrade": "h2c"}, {}, "Upgrade header is 'h2c'", "6455-4.1-response-upgrade"),
    "no Connection": ({"Connection": None}, {}, "Connection header is None", "6455-4.1-response-connection"),
    "Connection without Upgrade": (
        {"Connection": "keep-alive"},
        {},
        "Connection header is 'keep-alive'",
        "6455-4.1-response-connection",
    ),
    "Connection with something longer": (
        {"Connection": "upgraded"},
        {},
        "Connection header is 'upgraded'",
        "6455-4.1-response-connection",
    ),
    "subprotocol, none offered": (
        {"Sec_WebSocket_Protocol": "chat"},
        {},
        "selected subprotocol 'chat'",
        "6455-4.1-response-subprotocol",
    ),
    "subprotocol not offered": (
        {"Sec_WebSocket_Protocol": "Chat"},
        CHAT,
        "selected subprotocol 'Chat'",
        "6455-4.1-response-subprotocol",
    ),
    "two subprotocols": (
        {"Sec_WebSocket_Protocol": "chat, superchat"},
        CHAT,
        "selected subprotocol",
        "6455-11.3.4-protocol-once",
    ),
    "subprotocol twice": (
        {"Sec_WebSocket_Protocol": "chat\r\nSec-WebSocket-Protocol: superchat"},
        CHAT,
        "selected subprotocol",
        "6455-11.3.4-protocol-once",
    ),
    "extension, none offered": (
        {"Sec_WebSocket_Extensions": "permessage-deflate"},
        {},
        "offered was none",
        "6455-4.1-response-extension",
    ),
    "another extension": (
        {"Sec_WebSocket_Extensions": "x-webkit-deflate-frame"},
        DEFLATE,
        "selected extensions",
        "6455-4.1-response-extension",
    ),
    "deflate twice": (
        {"Sec_WebSocket_Extensions": "permessage-deflate, permessage-deflate"},
        DEFLATE,
        "selected extensions",
        "7692-5-one-answer",
    ),
    "unknown parameter": (
        {"Sec_WebSocket_Extensions": "permessage-deflate; foo"},
        DEFLATE,
        "parameter 'foo'",
        "7692-7-fail-unknown",
    ),
    "parameter twice": (
        {"Sec_WebSocket_Extensions": "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9"},
        DEFLATE,
        "given twice",
        "7692-7-fail-twice",
    ),
    "window of 7 bits": (
        {"Sec_WebSocket_Extensions": "permessage-deflate; server_max_window_bits=7"},
        DEFLATE,
        "has value '7'",
        "7692-7-fail-value",
    ),
    "window without a value": (
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
        DEFLATE,
        "has value None",
        "7692-7-fail-value",
    ),
    "takeover with a value": (
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_no_context_takeover=1"},
        DEFLATE,
        "has value '1'",
        "7692-7-fail-value",
    ),
    "malformed extensions": (
        {"Sec_WebSocket_Extensions": "permessage-deflate;"},
        DEFLATE,
        "malformed",
        "6455-9.1-malformed-answer",
    ),
}


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.rfc(rule)) for name, (*_, rule) in BAD_ANSWERS.items()]
)
@pytest.mark.rfc("6455-10.7-validated")
async def test_a_bad_101_is_an_error_that_says_why(name: str, log: Log) -> None:
    headers, options, says, _ = BAD_ANSWERS[name]
    async with raw_server() as server:
        connecting = websocket_connect(server.url, **options)
        peer = await server.accept(early=b"\x81\x05hello", X_Server="mine", **headers)
        with pytest.raises(InvalidHandshakeError) as caught:
            await connecting
        assert await peer.receive_bytes() == b""
    error = caught.value
    assert isinstance(error, StreamClosedError)
    assert isinstance(error, WebSocketError)
    assert isinstance(error, HandshakeError)
    assert error.status == 101
    assert isinstance(error.headers, HTTPHeaders)
    assert error.headers["X-Server"] == "mine"
    assert says in error.reason
    assert error.reason in str(error)
    assert log.lines == []


GOOD_ANSWERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lists": ({"Connection": "keep-alive, upgrade"}, {}),
    "in other letters": ({"Connection": "UPGRADE", "Upgrade": "WebSocket"}, {}),
    "no subprotocol": ({}, CHAT),
    "the second subprotocol": ({"Sec_WebSocket_Protocol": "superchat"}, CHAT),
    "no extension": ({}, DEFLATE),
    "deflate": ({"Sec_WebSocket_Extensions": "permessage-deflate"}, DEFLATE),
    "deflate with all parameters": (
        {
            "Sec_WebSocket_Extensions": "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            'server_max_window_bits=8; client_max_window_bits="15"'
        },
        DEFLATE,
    ),
    "a Content-Length": ({"Content_Length": "0"}, {}),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("name", GOOD_ANSWERS)
@pytest.mark.rfc("6455-4.1-response-upgrade", "6455-4.1-response-connection")
async def test_a_good_101_is_accepted(name: str) -> None:
    headers, options = GOOD_ANSWERS[name]
    async with raw_server() as server:
        connecting = websocket_connect(server.url, **options)
        peer = await server.accept(**headers)
        assert peer.header("Sec-WebSocket-Version") == "13"
        assert peer.header("Host") == server.url.removeprefix("ws://")
        conn = await connecting
        assert conn.selected_subprotocol == headers.get("Sec_WebSocket_Protocol")
        await peer.send_frame(TEXT, b"hello")
        assert await conn.read_message() == "hello"
        conn.close()
        await peer.answer_close()
        assert await conn.read_message() is None


@pytest.mark.gen_test
@pytest.mark.parametrize(("bits", "first_byte"), [(8, 0x81), (9, 0xC1)])
@pytest.mark.rfc("7692-7-fail-unsupported", "7692-7.2.1-window", "7692-6.1-uncompressed")
async def test_a_client_does_not_compress_for_a_window_that_zlib_cannot_keep_to(bits: int, first_byte: int) -> None:
    answer = f"permessage-deflate; client_max_window_bits={bits}"
    async with raw_pair(headers={"Sec_WebSocket_Extensions": answer}, compression_options={}) as (conn, peer):
        conn.write_message("a" * 300)
        assert (await peer.receive_bytes())[0] == first_byte
        peer.close()
        assert await conn.read_message() is None


class Answers(RequestHandler):
    async def get(self, status: str) -> None:
        self.set_header("X-Server", "mine")
        if status == "302":
            self.redirect("/404")
            return
        self.set_status(int(status))
        if status == "401":
            self.set_header("WWW-Authenticate", "Basic")
        if status != "204":
            self.write("who are you?")


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [302, 401, 403, 404, 500, 503])
@pytest.mark.rfc("6455-4.1-not-101")
async def test_an_error_status_is_an_http_error_that_says_more(status: int, log: Log) -> None:
    async with serving([(r"/(\d+)", Answers)]) as url:
        sockets = Sockets()
        with pytest.raises(HandshakeRejectedError) as caught:
            await websocket_connect(f"{url}/{status}")
        await until(lambda: not sockets.new())
    error = caught.value
    assert isinstance(error, HTTPError)
    assert isinstance(error, HTTPClientError)
    assert isinstance(error, WebSocketError)
    assert (error.status, error.code) == (status, status)
    assert error.response is not None
    assert error.response.code == status
    assert error.response.body == (b"" if status == 302 else b"who are you?")
    assert error.headers["X-Server"] == "mine"
    assert error.reason == error.message == error.response.reason
    assert str(status) in str(error)
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [200, 204])
@pytest.mark.rfc("6455-4.1-not-101")
async def test_a_status_that_is_no_error_is_a_websocket_error(status: int, log: Log) -> None:
    async with serving([(r"/(\d+)", Answers)]) as url:
        sockets = Sockets()
        with pytest.raises(HandshakeError) as caught:
            await websocket_connect(f"{url}/{status}")
        await until(lambda: not sockets.new())
    error = caught.value
    assert isinstance(error, WebSocketError)
    assert not isinstance(error, HTTPError | StreamClosedError)
    assert error.status == status
    assert error.headers["X-Server"] == "mine"
    assert str(status) in str(error)
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching Pro", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade"])
async def test_a_server_that_hangs_up_inside_its_answer(answer: bytes) -> None:
    async with raw_server() as server:
        sockets = Sockets()
        connecting = websocket_connect(server.url)
        peer = await server.accept_tcp()
        await peer.receive_head()
        await peer.send(answer)
        peer.close()
        # As from Tornado's own client.
        with pytest.raises(HTTPStreamClosedError):
            await connecting
        await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_a_server_that_speaks_another_protocol() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        peer = await server.accept_tcp()
        await peer.receive_head()
        await peer.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        with pytest.raises(StreamClosedError):
            await connecting
        assert await peer.receive_bytes() == b""


@pytest.mark.gen_test
async def test_a_103_before_the_101_is_no_answer() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        peer = await server.accept_tcp()
        await peer.receive_head()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await asyncio.sleep(0.01)
        accept = WebSocketProtocol13.compute_accept_value(peer.header("Sec-WebSocket-Key") or "")
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept.encode(),
            b"\x81\x05hello",
        )
        conn = await connecting
        assert await conn.read_message() == "hello"
        assert "Link" not in (conn.headers or {})
        peer.close()
        assert await conn.read_message() is None


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-tcp-fails")
async def test_nobody_listens() -> None:
    async with raw_server() as server:
        url = server.url
    sockets = Sockets()
    with pytest.raises(ConnectionRefusedError):
        await websocket_connect(url)
    assert not sockets.new()


@pytest.mark.gen_test
@pytest.mark.rfc("6455-5.5.3-same-data")
async def test_frames_behind_the_101_in_one_segment_are_not_lost() -> None:
    early = b"\x81\x05first" + b"\x89\x04ping" + b"\x82\x06second" + b"\x81\x05th"
    async with raw_pair(early=early) as (conn, peer):
        assert await conn.read_message() == "first"
        assert await peer.receive() == Frame(PONG, b"ping")
        assert await conn.read_message() == b"second"
        await peer.send(b"ird")
        assert await conn.read_message() == "third"


@pytest.mark.gen_test
async def test_frames_behind_the_101_reach_the_callback() -> None:
    messages: list[Any] = []
    async with raw_pair(early=b"\x81\x05first\x81\x06second", on_message_callback=messages.append):
        await until(lambda: len(messages) == 2)
    assert messages[:2] == ["first", "second"]


@pytest.mark.gen_test
async def test_a_close_frame_behind_the_101() -> None:
    async with raw_pair(early=b"\x81\x05first\x88\x02\x03\xe9") as (conn, peer):
        assert await conn.read_message() == "first"
        assert await conn.read_message() is None
        assert conn.close_code == 1001
        assert await peer.receive_rest() == [Frame(0x8, b"\x03\xe9")]


# What is wrong with the call itself


@pytest.mark.parametrize("url", ["http://localhost/", "localhost", "", "wsx://localhost"])
@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-uri-valid")
async def test_a_url_with_another_scheme_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="allowed are ws and wss"):
        await websocket_connect(url)


@pytest.mark.gen_test
async def test_a_tls_option_that_cannot_be_used_leaves_no_socket(log: Log, tmp_path: Path) -> None:
    async with raw_server() as server:
        request = HTTPRequest(server.url.replace("ws://", "wss://"), ssl_options={"certfile": str(tmp_path / "none")})
        with pytest.raises(FileNotFoundError):
            await websocket_connect(request)
        peer = await server.accept_tcp()
        assert await peer.receive_bytes() == b""
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.1-tls-fails")
async def test_a_server_that_is_not_trusted(tls: Any) -> None:
    async with serving(Answers, ssl_options=tls.server) as url:
        sockets = Sockets()
        with pytest.raises(OSError, match="certificate verify failed"):
            await websocket_connect(url.replace("ws://", "wss://"))
        await until(lambda: not sockets.new())


@pytest.mark.gen_test
@pytest.mark.parametrize("line", [b"X: y\r\n", b"x"], ids=["headers", "a header"])
async def test_a_head_without_end_is_a_connection_that_ended(line: bytes) -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        peer = await server.accept_tcp()
        await peer.receive_head()
        assert await peer.is_cut_off(b"HTTP/1.1 101 Switching Protocols\r\nX: y" + line * 20000)
        with pytest.raises(StreamClosedError):
            await connecting


@pytest.mark.gen_test
async def test_a_refusal_in_very_many_pieces_is_not_read_to_the_end() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        peer = await server.accept_tcp()
        await peer.receive_head()
        await peer.send(b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 5000)
        with pytest.raises(HandshakeRejectedError) as caught:
            await connecting
        assert caught.value.response is not None
        # Tornado 6.6 puts together the chunks that are there.
        assert len(caught.value.response.body) == (5000 if version_info >= (6, 6) else 1024)
