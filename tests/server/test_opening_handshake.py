"""The opening handshake as a server sees it: what is refused, with which status, and what is agreed on."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from tests.conftest import Log
from tests.peer import KEY, Recording, frame, opening_request, raw_client, unanswered_client
from tests.support import Echo, serving, until
from tests.wire import BINARY, CLOSE, PING, PONG, RSV1, TEXT, Frame, deflated, inflated
from tornado_ws import WebSocketHandler


class Bad(NamedTuple):
    #: The requirement that it breaks, by its name in tests/conformance.
    rule: str
    status: int
    headers: dict[str, Any]
    start: str = "GET {path} HTTP/1.1"
    says: str = ""


BAD_REQUESTS = {
    "POST": Bad("6455-4.2.1-method", 405, {"Content_Length": "0"}, start="POST {path} HTTP/1.1"),
    "HEAD": Bad("6455-4.2.1-method", 405, {}, start="HEAD {path} HTTP/1.1"),
    "HTTP/1.0": Bad("6455-4.2.1-method", 400, {}, start="GET {path} HTTP/1.0", says="HTTP/1.1"),
    "no Host": Bad("6455-4.2.1-host", 400, {"Host": None}),
    "no key": Bad("6455-4.2.1-key", 400, {"Sec_WebSocket_Key": None}, says="Sec-WebSocket-Key"),
    "empty key": Bad("6455-4.2.1-key", 400, {"Sec_WebSocket_Key": ""}, says="Sec-WebSocket-Key"),
    "key of 15 bytes": Bad("6455-4.2.1-key", 400, {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAA"}, says="16 bytes"),
    "key of 17 bytes": Bad("6455-4.2.1-key", 400, {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAAA="}, says="16 bytes"),
    "key that is not base64": Bad("6455-4.2.1-key", 400, {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=!"}),
    "key without its padding": Bad("6455-4.2.1-key", 400, {"Sec_WebSocket_Key": KEY.rstrip("=")}),
    "key that is not ASCII": Bad("6455-4.2.1-key", 400, {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZ\xe9=="}),
    "two keys": Bad("6455-11.3.1-key-once", 400, {"Sec_WebSocket_Key": f"{KEY}\r\nSec-WebSocket-Key: {KEY}"}),
    "no Upgrade": Bad("6455-4.2.1-upgrade", 400, {"Upgrade": None}, says="Upgrade"),
    "Upgrade to something else": Bad("6455-4.2.1-upgrade", 400, {"Upgrade": "h2c"}, says="Upgrade"),
    "Upgrade to something longer": Bad(
        "6455-4.2.1-upgrade", 400, {"Upgrade": "websocket2, xwebsocket"}, says="Upgrade"
    ),
    "no Connection": Bad("6455-4.2.1-connection", 400, {"Connection": None}, says="Connection"),
    "Connection without Upgrade": Bad("6455-4.2.1-connection", 400, {"Connection": "keep-alive"}, says="Connection"),
    "Connection with something longer": Bad(
        "6455-4.2.1-connection", 400, {"Connection": "upgraded, no-upgrade"}, says="Connection"
    ),
    "no version": Bad("6455-4.2.1-version", 426, {"Sec_WebSocket_Version": None}),
    "version 8": Bad("6455-4.2.1-version", 426, {"Sec_WebSocket_Version": "8"}),
    "version 7": Bad("6455-4.2.1-version", 426, {"Sec_WebSocket_Version": "7"}),
    "version 14": Bad("6455-4.2.1-version", 426, {"Sec_WebSocket_Version": "14"}),
    "two versions": Bad("6455-11.3.5-version-once", 426, {"Sec_WebSocket_Version": "13, 8"}),
}


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.rfc(bad.rule)) for name, bad in BAD_REQUESTS.items()]
)
@pytest.mark.rfc("6455-4.2.2-version", "6455-4.4-versions", "6455-10.7-http-status", "6455-10.7-validated")
async def test_a_bad_request_is_refused(name: str, log: Log) -> None:
    bad = BAD_REQUESTS[name]
    calls: list[Any] = []
    async with (
        serving(Recording, calls=calls) as url,
        raw_client(url, start=bad.start, **bad.headers) as client,
    ):
        assert client.status == bad.status
        if bad.status == 426:
            assert client.header("Sec-WebSocket-Version") == "13"
        client.half_close()
        body = b""
        while data := await client.receive_bytes():
            body += data
        assert bad.says in body.decode()
    assert calls == []
    assert not [record for record in log.records if record.exc_info or record.levelname == "ERROR"]


GOOD_HEADERS: dict[str, dict[str, Any]] = {
    "as browsers send it": {"Connection": "keep-alive, Upgrade"},
    "in other letters": {"Connection": "UPGRADE", "Upgrade": "WebSocket"},
    "lists with holes": {"Connection": ", keep-alive,,upgrade ,", "Upgrade": "h2c, websocket"},
    "Connection twice": {"Connection": "keep-alive\r\nConnection: Upgrade"},
    "a body of no bytes": {"Content_Length": "0"},
}


@pytest.mark.gen_test
@pytest.mark.parametrize("name", GOOD_HEADERS)
@pytest.mark.rfc("6455-4.2.2-answer", "6455-4.2.2-no-subprotocol", "6455-4.2.1-upgrade", "6455-4.2.1-connection")
async def test_a_good_request_is_accepted(name: str) -> None:
    async with serving(Echo) as url, raw_client(url, **GOOD_HEADERS[name]) as client:
        assert client.status == 101
        assert client.header("Upgrade") == "websocket"
        assert client.header("Connection") == "Upgrade"
        assert client.header("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert client.header("Sec-WebSocket-Extensions") is None
        assert client.header("Sec-WebSocket-Protocol") is None
        assert client.header("Content-Type") is None
        assert client.header("Content-Length") is None
        await client.send_frame(TEXT, b"hello")
        assert await client.receive() == Frame(TEXT, b"hello")


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.2.1-other-headers")
async def test_headers_may_come_in_any_order_and_unknown_ones_are_ignored() -> None:
    async with serving(Echo) as url:
        lines = opening_request(url, X_Unknown="?", Sec_WebSocket_Unknown="?", Priority="u=1").decode().split("\r\n")
        start, *headers = lines[:-2]
        for request in (headers, headers[::-1]):
            async with unanswered_client(url) as client:
                await client.send("\r\n".join([start, *request, "", ""]).encode())
                await client.receive_head()
                assert client.status == 101


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.2.1-absolute-uri")
async def test_a_request_for_an_absolute_uri_finds_nothing() -> None:
    async with serving(Echo) as url:
        target = url.replace("ws", "http", 1)
        async with raw_client(url, start=f"GET {target}/ HTTP/1.1") as client:
            assert client.status == 404


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.2.2-resource")
async def test_what_is_not_there_is_a_404() -> None:
    async with serving(Echo) as url, raw_client(f"{url}/nowhere") as client:
        assert client.status == 404
        assert client.header("Sec-WebSocket-Accept") is None


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.2.2-answer", "6455-11.3.2-extensions-once", "6455-11.3.3-accept-once")
@pytest.mark.rfc("6455-11.3.4-protocol-once")
async def test_an_answer_has_each_header_once() -> None:
    class Handler(Deflating):
        def select_subprotocol(self, subprotocols: list[str]) -> str:
            return subprotocols[0]

    offers: dict[str, Any] = {"Sec_WebSocket_Protocol": "a, b", "Sec_WebSocket_Extensions": "permessage-deflate"}
    async with serving(Handler) as url, raw_client(url, **offers) as client:
        assert client.head.startswith("HTTP/1.1 101 ")
        names = [line.partition(":")[0].lower() for line in client.head.split("\r\n")[1:]]
        assert len(set(names)) == len(names)
        expected = {"upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol"}
        assert {*expected, "sec-websocket-extensions"} <= set(names)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.2.2-origin", "6455-10.2-403")
async def test_a_foreign_origin_is_refused() -> None:
    async with serving(Echo) as url, raw_client(url, Origin="http://elsewhere.example") as client:
        assert client.status == 403


@pytest.mark.gen_test
async def test_frames_sent_together_with_the_request_are_not_lost() -> None:
    early = frame(TEXT, b"1", masked=True) + frame(PING, b"ping", masked=True) + frame(BINARY, b"2", masked=True)
    async with serving(Echo) as url, raw_client(url, early=early + frame(TEXT, b"cut", masked=True)[:5]) as client:
        received = [await client.receive() for _ in range(3)]
        # The ping does not wait for the messages.
        assert sorted(filter(None, received)) == [Frame(TEXT, b"1"), Frame(BINARY, b"2"), Frame(PONG, b"ping")]
        await client.send(frame(CLOSE, masked=True))


@pytest.mark.gen_test
async def test_a_large_amount_sent_together_with_the_request_is_not_lost() -> None:
    early = b"".join(frame(TEXT, b"%d" % number, masked=True) for number in range(2000))
    async with serving(Echo) as url, raw_client(url, early=early) as client:
        for number in range(2000):
            assert await client.receive() == Frame(TEXT, b"%d" % number)


# Subprotocols


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("header", "offered"),
    [
        (None, []),
        ("", []),
        ("a", ["a"]),
        ("a, b", ["a", "b"]),
        (" a ,,b,", ["a", "b"]),
        ("a\r\nX: y", ["a"]),
        ("a\r\nSec-WebSocket-Protocol: b", ["a", "b"]),
    ],
)
@pytest.mark.rfc("6455-4.2.1-subprotocols", "6455-4.2.2-subprotocol", "6455-4.2.2-no-subprotocol")
@pytest.mark.rfc("6455-11.3.4-protocol-lines")
async def test_offered_subprotocols_reach_select_subprotocol(header: str | None, offered: list[str]) -> None:
    seen: list[Any] = []

    class Handler(Echo):
        def select_subprotocol(self, subprotocols: list[str]) -> str | None:
            seen.append(subprotocols)
            return subprotocols[-1] if subprotocols else None

        def open(self) -> None:
            seen.append(self.selected_subprotocol)

    async with serving(Handler) as url, raw_client(url, Sec_WebSocket_Protocol=header) as client:
        assert client.status == 101
        assert client.header("Sec-WebSocket-Protocol") == (offered[-1] if offered else None)
        await until(lambda: len(seen) == 2)
    assert seen == [offered, offered[-1] if offered else None]


@pytest.mark.gen_test
@pytest.mark.parametrize("header", [None, "a, b"])
@pytest.mark.rfc("6455-4.2.2-subprotocol")
async def test_a_subprotocol_that_was_not_offered_is_a_500_and_one_line(header: str | None, log: Log) -> None:
    calls: list[Any] = []

    class Handler(Recording):
        def select_subprotocol(self, subprotocols: list[str]) -> str | None:
            return "100% mine"

    async with (
        serving(Handler, calls=calls) as url,
        raw_client(url, Sec_WebSocket_Protocol=header) as client,
    ):
        assert client.status == 500
        assert client.header("Sec-WebSocket-Accept") is None
        assert client.header("Upgrade") is None
    assert calls == []
    assert "select_subprotocol returned '100% mine'" in log.only().getMessage()


@pytest.mark.gen_test
async def test_a_token_among_the_offered_subprotocols_is_not_logged(log: Log) -> None:
    class Handler(Echo):
        def select_subprotocol(self, subprotocols: list[str]) -> str:
            return "v2.app"

    secret = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0"
    offered = f"v1.app, bearer.{secret}"
    async with serving(Handler) as url, raw_client(url, Sec_WebSocket_Protocol=offered) as client:
        assert client.status == 500
    assert "the client offered ['v1.app', 'bearer.eyJhbGciOiJIUzI1N'…]" in log.only().getMessage()
    assert not any(secret in line for line in log.lines)


# permessage-deflate

OFFERS = {
    # RFC 7692 section 7.1
    "permessage-deflate": "permessage-deflate",
    "permessage-deflate; client_max_window_bits": "permessage-deflate",
    "permessage-deflate; server_no_context_takeover": "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover": "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9": "permessage-deflate; server_max_window_bits=9",
    'permessage-deflate; server_max_window_bits="10"': "permessage-deflate; server_max_window_bits=10",
    "permessage-deflate; client_max_window_bits=8": "permessage-deflate; client_max_window_bits=8",
    "permessage-deflate; foo=1, permessage-deflate": "permessage-deflate",
    "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=12": (
        "permessage-deflate; server_max_window_bits=12"
    ),
    "permessage-deflate; server_max_window_bits=12, permessage-deflate; server_max_window_bits=10": (
        "permessage-deflate; server_max_window_bits=12"
    ),
    "x-other; y=z, permessage-deflate": "permessage-deflate",
    "x-other; y=z\r\nSec-WebSocket-Extensions: permessage-deflate": "permessage-deflate",
    "permessage-deflate; server_max_window_bits=8": None,
    "permessage-deflate; server_max_window_bits=16": None,
    "permessage-deflate; server_max_window_bits=09": None,
    "permessage-deflate; server_max_window_bits": None,
    "permessage-deflate; server_max_window_bits=a": None,
    "permessage-deflate; client_max_window_bits=7": None,
    "permessage-deflate; client_no_context_takeover=1": None,
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover": None,
    "permessage-deflate; foo": None,
    "permessage-deflate;": None,
    "permessage-deflate=1": None,
    'permessage-deflate; server_max_window_bits="10': None,
    "permessage-deflate server_max_window_bits=10": None,
    "=;,;=": None,
    "permessage-bzip2": None,
    "x-webkit-deflate-frame": None,
    "\xe9": None,
    "": None,
}


class Deflating(Echo):
    def get_compression_options(self) -> dict[str, Any]:
        return {}


@pytest.mark.gen_test
@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.rfc("6455-4.2.2-extensions", "6455-9-not-requested", "6455-9.1-malformed-offer", "6455-9.1-split")
@pytest.mark.rfc("6455-9.1-preference")
@pytest.mark.rfc("7692-5-rsv1-conflict", "7692-5-preference", "7692-7-decline-unknown", "7692-7-decline-value")
@pytest.mark.rfc("7692-7-decline-twice", "7692-7-decline-unsupported", "7692-7.1.1.1-answered")
@pytest.mark.rfc("7692-7.1.1.1-not-taken-over", "7692-7.1.1-no-value", "7692-7.1.2-value")
async def test_the_first_good_offer_is_taken_and_bad_ones_are_declined(offer: str, log: Log) -> None:
    agreed = OFFERS[offer]
    async with serving(Deflating) as url, raw_client(url, Sec_WebSocket_Extensions=offer) as client:
        assert client.status == 101
        assert client.header("Sec-WebSocket-Extensions") == agreed
        for _ in range(2):
            if agreed is None:
                await client.send_frame(TEXT, b"hello")
                assert await client.receive() == Frame(TEXT, b"hello")
            else:
                await client.send_frame(TEXT, deflated(b"hello"), rsv=RSV1)
                received = await client.receive()
                assert received is not None
                assert (received.opcode, received.rsv) == (TEXT, RSV1)
                if "server_no_context_takeover" in agreed:
                    assert inflated(received.payload) == b"hello"
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.2.2-extensions")
async def test_deflate_is_not_agreed_on_where_the_handler_does_not_want_it() -> None:
    async with serving(Echo) as url, raw_client(url, Sec_WebSocket_Extensions="permessage-deflate") as client:
        assert client.status == 101
        assert client.header("Sec-WebSocket-Extensions") is None


# The handler's own word


@pytest.mark.gen_test
@pytest.mark.rfc("6455-4.4-versions")
async def test_a_handler_may_refuse_every_version() -> None:
    class Handler(WebSocketHandler):
        def get_websocket_protocol(self) -> None:
            return None

    async with serving(Handler) as url, raw_client(url) as client:
        assert client.status == 426
        assert client.header("Sec-WebSocket-Version") == "13"


@pytest.mark.gen_test
async def test_a_post_that_a_handler_passes_on_to_get_is_refused_all_the_same() -> None:
    class Handler(Echo):
        async def post(self) -> None:
            await self.get()

    async with (
        serving(Handler) as url,
        raw_client(url, start="POST {path} HTTP/1.1", Content_Length="0") as client,
    ):
        assert client.status == 400
