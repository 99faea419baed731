"""What a peer has chosen, and what is secret, in log lines and exceptions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from tests.conftest import Log
from tests.peer import opening_request, raw_client, raw_pair, raw_server, unanswered_client
from tests.support import Echo, serving
from tests.wire import CLOSE, close_payload
from tornado_ws import (
    HandshakeError,
    HandshakeRejectedError,
    WebSocketClosedError,
    handshake,
    reconnect,
    websocket_connect,
)
from tornado_ws.deflate.negotiation import check_extensions_response
from tornado_ws.escaping import plain, shown, without_password

EVIL = "x\nINFO:root:forged\x1b[2J\x85\u202e"


def test_text_is_shown_on_one_line_and_cut() -> None:
    assert shown(EVIL) == repr(EVIL)
    assert plain(EVIL) == repr(EVIL)[1:-1]
    assert plain("it's \xe9") == "it's \xe9"
    assert shown("a" * 300) == repr("a" * 200) + "…"
    assert shown([EVIL * 100]).isprintable()
    assert len(shown(["a" * 10_000])) == 201
    assert shown(None) == "None"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://user:s3cret@host:1/p?token=s3cret#s3cret", "ws://host:1/p"),
        ("ws://user:s3/cr@et@host/p", "ws://host/p"),
        ("user:s3cret@host/p", "user:host/p"),
        ("ws//user:s3cret@host", "host"),
        ("wss://host/p", "wss://host/p"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, expected: str) -> None:
    assert without_password(url) == expected


@pytest.mark.parametrize(
    "url", ["http://user:s3cret@host/", "user:s3cret@host/", "ws//user:s3cret@host", "ws://us\u2100er:s3cret@host/"]
)
@pytest.mark.gen_test
async def test_a_wrong_url_keeps_its_password_out_of_the_exception(url: str) -> None:
    with pytest.raises(ValueError, match=r"^URL ") as caught:
        await websocket_connect(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.gen_test
async def test_a_close_reason_is_escaped_in_the_exception_and_whole_beside_it() -> None:
    async with raw_pair() as (conn, peer):
        await peer.send_frame(CLOSE, close_payload(4000, EVIL))
        with pytest.raises(WebSocketClosedError) as caught:
            async for _ in conn:
                pass
    assert str(caught.value) == f"connection closed with 4000: {plain(EVIL)}"
    assert caught.value.close_reason == EVIL


@pytest.mark.gen_test
@pytest.mark.rfc("6455-10.1-input")
async def test_headers_of_a_request_are_escaped_and_cut(log: Log) -> None:
    for header in ({"Origin": "http://evil\x85/" + "y" * 5000}, {"Sec_WebSocket_Key": "\x85" + "y" * 5000}):
        async with serving(Echo) as url, unanswered_client(url) as client:
            await client.send(opening_request(url, **header))
            await client.receive_head()
    lines = [line for line in log.lines if "not allowed" in line or "Key" in line]
    assert len(lines) >= 2
    assert all(line.isprintable() and len(line) < 400 for line in lines)


@pytest.mark.gen_test
async def test_lines_of_reconnecting_show_no_secret_and_no_reason_raw(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tornado.general")
    error = HandshakeError(403, HTTPHeaders(), EVIL)
    assert str(error) == f"HTTP 403: {plain(EVIL)}"
    with pytest.raises(ConnectionError, match=r"refused|closed") as caught:
        async for _ in reconnect("ws://user:s3cret@127.0.0.1:1/p?token=s3cret", final=OSError):
            pass
    assert "s3cret" not in str(caught.value)
    lines = [record.getMessage() for record in caplog.records if record.name == "tornado.general"]
    assert len(lines) == 1
    assert "ws://127.0.0.1:1/p" in lines[0]
    assert "s3cret" not in lines[0]


_LONG = "\x1b[31m" + "y" * 5000
_ACCEPTING = {"Upgrade": "websocket", "Connection": "Upgrade"}


@pytest.mark.parametrize(
    "check",
    [
        lambda: handshake.check_selected_subprotocol(HTTPHeaders({"Sec-WebSocket-Protocol": _LONG}), ["a"]),
        lambda: handshake.check_response(HTTPHeaders({**_ACCEPTING, "Sec-WebSocket-Accept": _LONG}), "key"),
        lambda: check_extensions_response(_LONG, True),
    ],
    ids=["subprotocol", "accept", "extensions"],
)
def test_headers_of_an_answer_are_escaped_and_cut(check: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="y") as caught:
        check()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.gen_test
@pytest.mark.parametrize("status", ["200", "302", "403", "503"])
async def test_the_words_of_a_status_are_escaped_and_cut_wherever_they_show(status: str) -> None:
    words = "x\x9b2J\x85" + "y" * 5000
    async with raw_server() as server:
        connecting = websocket_connect(server.url.replace("ws://", "ws://user:s3cret@"))
        await server.accept(status=f"{status} {words}", Content_Length="0")
        with pytest.raises(HandshakeError) as caught:
            await connecting
    error: Any = caught.value
    assert words in error.reason
    texts = [str(error), repr(error), *map(str, error.args)]
    if isinstance(error, HandshakeRejectedError):
        assert error.response is not None
        assert error.message == plain(words)
        assert error.response.error is error
        with pytest.raises(HandshakeRejectedError):
            error.response.rethrow()
        # The response has the words, as Tornado's has.
        assert error.args[2] is error.response
        texts = [str(error), repr(error), error.message, str(error.args[1])]
    assert all(text.isprintable() and "y" in text and len(text) < 300 for text in texts)


@pytest.mark.gen_test
async def test_a_headers_value_is_cut_in_the_repr_and_the_arguments_too() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        await server.accept(Sec_WebSocket_Accept="\x85" + "y" * 5000)
        with pytest.raises(HandshakeError) as caught:
            await connecting
    texts = [str(caught.value), repr(caught.value), *map(str, caught.value.args)]
    assert all(text.isprintable() and len(text) < 400 for text in texts)


@pytest.mark.gen_test
async def test_an_address_that_a_header_gave_is_escaped(log: Log) -> None:
    class Handler(Echo):
        def prepare(self) -> None:
            self.request.remote_ip = EVIL * 100

    async with serving(Handler) as url, raw_client(url) as client:
        await client.send(b"\xff\xff")
        await client.receive_rest()
    assert [line for line in log.lines if plain(EVIL) in line]
    assert all(line.isprintable() and len(line) < 500 for line in log.lines)
    assert all(str(vars(record).get("websocket_peer", "")).isprintable() for record in log.records)
