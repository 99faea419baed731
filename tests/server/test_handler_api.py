"""What a ``WebSocketHandler`` can do, version by version, from Tornado 4.3 on."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Generator
from typing import Any

import pytest
from tornado import gen
from tornado.httpclient import HTTPError, HTTPRequest
from tornado.web import RequestHandler

from tests.peer import raw_client
from tests.support import Echo, connected, disconnect, serving, until
from tests.wire import CLOSE, TEXT, Frame
from tornado_ws import WebSocketClosedError, WebSocketHandler, websocket_connect

# messages

GREEK = "\N{GREEK SMALL LETTER ALPHA}"

MESSAGES = [
    pytest.param("text", False, "text", id="str"),
    pytest.param("", False, "", id="empty str"),
    pytest.param(GREEK + "\N{GRINNING FACE}", False, None, id="non-ASCII str"),
    pytest.param(GREEK, True, GREEK.encode(), id="str as binary"),
    pytest.param(b"bytes", False, "bytes", id="bytes as text"),
    pytest.param(b"\x00\xff", True, None, id="bytes"),
    pytest.param(b"", True, None, id="empty bytes"),
    pytest.param({"a": [1, None]}, False, '{"a": [1, null]}', id="dict"),
    pytest.param({"a": 1}, True, b'{"a": 1}', id="dict as binary"),
    pytest.param("x" * 125, False, None, id="125 bytes"),
    pytest.param("x" * 126, False, None, id="126 bytes"),
    pytest.param("x" * 65535, False, None, id="65535 bytes"),
    pytest.param("x" * 65536, False, None, id="65536 bytes"),
]


@pytest.mark.gen_test
@pytest.mark.parametrize(("message", "binary", "expected"), MESSAGES)
async def test_write_message_of_both_ends(message: Any, binary: bool, expected: str | bytes | None) -> None:
    received: list[str | bytes] = []

    class Handler(WebSocketHandler):
        def on_message(self, got: str | bytes) -> Awaitable[None]:
            received.append(got)
            return self.write_message(message, binary)

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message(message, binary=binary)
        answer = await conn.read_message()
    assert [*received, answer] == [message if expected is None else expected] * 2


@pytest.mark.gen_test
async def test_write_message_returns_a_future_that_need_not_be_awaited(caplog: pytest.LogCaptureFixture) -> None:
    futures: list[Any] = []

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            futures.extend(self.write_message(str(number)) for number in range(3))

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("go")
        assert [await conn.read_message() for _ in range(3)] == ["0", "1", "2"]
        for future in futures:
            assert asyncio.isfuture(future)
            assert await future is None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.gen_test
async def test_writing_to_a_closed_connection_raises() -> None:
    raised: list[str] = []

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            self.close()
            self.try_all()

        def on_close(self) -> None:
            self.try_all()

        def try_all(self) -> None:
            for name in ("write_message", "ping"):
                with pytest.raises(WebSocketClosedError):
                    getattr(self, name)(b"x")
                raised.append(name)

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("close")
        assert await conn.read_message() is None
        await until(lambda: len(raised) == 4)


# coroutines


@pytest.mark.gen_test
async def test_on_message_waits_for_a_coroutine_open() -> None:
    events: list[Any] = []

    class Handler(WebSocketHandler):
        async def open(self) -> None:
            events.append("open")
            await asyncio.sleep(0.02)
            events.append("opened")

        def on_message(self, message: str | bytes) -> None:
            events.append(message)

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("one")
        await conn.write_message("two")
        await until(lambda: len(events) == 4)
    assert events == ["open", "opened", "one", "two"]


class Awaiting(WebSocketHandler):
    async def on_message(self, message: str | bytes) -> None:
        await asyncio.sleep(float(message))
        await self.write_message(message)


class Yielding(WebSocketHandler):
    @gen.coroutine
    def on_message(self, message: str | bytes) -> Generator[Any, Any, None]:
        yield gen.sleep(float(message))
        yield self.write_message(message)


@pytest.mark.gen_test
@pytest.mark.parametrize("handler", [Awaiting, Yielding])
async def test_a_coroutine_on_message_is_called_for_one_message_at_a_time(handler: type[WebSocketHandler]) -> None:
    delays = ["0.02", "0", "0.01", "0"]
    async with serving(handler) as url, connected(url) as conn:
        for delay in delays:
            await conn.write_message(delay)
        assert [await conn.read_message() for _ in delays] == delays


@pytest.mark.gen_test
@pytest.mark.parametrize("where", ["open", "on_message", "coroutine on_message"])
async def test_an_exception_is_logged_and_ends_the_connection(where: str, caplog: pytest.LogCaptureFixture) -> None:
    closed: list[Any] = []

    class Handler(WebSocketHandler):
        def open(self) -> None:
            if where == "open":
                raise ZeroDivisionError

        def on_message(self, message: str | bytes) -> Any:
            if where == "coroutine on_message":
                return self.fail()
            raise ZeroDivisionError

        async def fail(self) -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

        def on_close(self) -> None:
            closed.append(self.close_code)

    async with serving(Handler) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert await client.receive() is None
        await until(lambda: closed)
    assert closed == [None]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


# the opening handshake


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("pattern", "path", "args", "kwargs"),
    [
        (r"/chat/(\w+)/(\d+)", "/chat/room/7", ["room", "7"], {}),
        (r"/chat/(?P<room>\w+)/(?P<number>\d+)", "/chat/room/7", [], {"room": "room", "number": "7"}),
        (r"/chat/([^/]*)/(\d+)?", "/chat/a%20b/", ["a b", None], {}),
        (r"/chat/?.*", "/chat/x?token=1", [], {}),
    ],
)
async def test_groups_of_the_url_are_arguments_of_open(
    pattern: str, path: str, args: list[Any], kwargs: dict[str, Any]
) -> None:
    opened: list[Any] = []

    class Handler(Echo):
        def open(self, *args: str, **kwargs: str) -> None:
            opened.append((list(args), kwargs, list(self.open_args), self.open_kwargs, self.get_argument("token", "")))

    async with serving([(pattern, Handler)]) as url, connected(url + path):
        await until(lambda: opened)
    assert opened == [(args, kwargs, args, kwargs, "1" if "token" in path else "")]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("header", "offered"),
    [({}, []), ({"Sec-WebSocket-Protocol": "a, b"}, ["a", "b"]), ({"Sec-WebSocket-Protocol": "a,b ,c"}, list("abc"))],
)
async def test_select_subprotocol_is_called_exactly_once(header: dict[str, str], offered: list[str]) -> None:
    seen: list[Any] = []

    class Handler(Echo):
        def select_subprotocol(self, subprotocols: list[str]) -> str | None:
            seen.append(subprotocols)
            return subprotocols[-1] if subprotocols else None

        def open(self) -> None:
            seen.append(self.selected_subprotocol)

    async with serving(Handler) as url, connected(HTTPRequest(url, headers=header)) as conn:
        await until(lambda: len(seen) == 2)
        assert conn.selected_subprotocol == seen[1]
    assert seen == [offered, offered[-1] if offered else None]


@pytest.mark.gen_test
async def test_headers_of_prepare_and_set_default_headers_reach_the_101() -> None:
    class Handler(Echo):
        def set_default_headers(self) -> None:
            self.set_header("X-Default", "default")

        async def prepare(self) -> None:
            await asyncio.sleep(0)
            self.set_header("X-Prepare", "prepared")
            self.set_cookie("session", "1")

    async with serving(Handler) as url, raw_client(url) as client:
        assert client.status == 101
        assert (client.header("X-Default"), client.header("X-Prepare")) == ("default", "prepared")
        assert (client.header("Set-Cookie") or "").startswith("session=1")
        assert client.header("Content-Type") is None
        await client.send_frame(CLOSE)
        assert await client.receive() == Frame(CLOSE, b"")


@pytest.mark.gen_test
async def test_prepare_may_finish_instead_of_the_upgrade() -> None:
    class Handler(Echo):
        def prepare(self) -> None:
            self.set_status(401)
            self.finish()

    async with serving(Handler) as url:
        with pytest.raises(HTTPError) as refused:
            await websocket_connect(url)
    assert refused.value.code == 401


@pytest.mark.gen_test
@pytest.mark.parametrize("where", ["open", "on_message"])
@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("write", ["x"]),
        ("redirect", ["/"]),
        ("set_header", ["X", "y"]),
        ("set_cookie", ["a", "b"]),
        ("set_status", [200]),
        ("flush", []),
        ("finish", []),
    ],
)
async def test_http_methods_raise_after_the_upgrade(where: str, method: str, args: list[Any]) -> None:
    errors: list[BaseException] = []

    class Handler(Echo):
        def try_it(self) -> None:
            with pytest.raises(RuntimeError, match="Method not supported for Web Sockets") as raised:
                getattr(self, method)(*args)
            errors.append(raised.value)

        def open(self) -> None:
            if where == "open":
                self.try_it()

        def on_message(self, message: str | bytes) -> Any:
            if where == "on_message":
                self.try_it()
            return super().on_message(message)

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("x")
        assert await conn.read_message() == "x"
    assert len(errors) == 1


@pytest.mark.gen_test
async def test_plain_http_is_refused() -> None:
    async with serving(Echo) as url, raw_client(url, Upgrade="h2c") as client:
        assert client.status == 400
    async with serving(Echo) as url, raw_client(url, Sec_WebSocket_Version="12") as client:
        assert (client.status, client.header("Sec-WebSocket-Version")) == (426, "13")


# origins, by the rules of the Tornado that is installed

HAS_TRUSTED_ORIGINS = hasattr(RequestHandler, "check_trusted_origin")


class Origin(Echo):
    asked: list[str]

    def check_origin(self, origin: str) -> bool:
        self.settings["asked"].append(origin)
        return super().check_origin(origin)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("headers", "status", "asked"),
    [
        pytest.param({}, 101, False, id="no origin"),
        pytest.param({"Origin": "http://HOST"}, 101, not HAS_TRUSTED_ORIGINS, id="same origin"),
        pytest.param({"Origin": "http://evil.example"}, 403, True, id="another origin"),
        pytest.param({"Origin": "http://HOST.evil.example"}, 403, True, id="host as a prefix"),
        pytest.param({"Origin": "null"}, 403, True, id="opaque origin"),
    ],
)
@pytest.mark.rfc("6455-4.2.2-origin", "6455-10.2-verifies", "6455-10.2-403")
async def test_check_origin_by_default(headers: dict[str, str], status: int, asked: bool) -> None:
    calls: list[str] = []
    async with serving(Origin, asked=calls) as url:
        host = url.removeprefix("ws://")
        sent: dict[str, Any] = {name: value.replace("HOST", host) for name, value in headers.items()}
        async with raw_client(url, **sent) as client:
            assert client.status == status
    assert calls == ([sent["Origin"]] if asked else [])


@pytest.mark.gen_test
@pytest.mark.skipif(not HAS_TRUSTED_ORIGINS, reason="Sec-Fetch-Site and trusted_origins are Tornado 6.6's")
@pytest.mark.parametrize(
    ("site", "origin", "status", "asked"),
    [
        ("same-origin", "http://evil.example", 101, False),
        ("none", "http://evil.example", 101, False),
        ("cross-site", "http://evil.example", 403, True),
        ("cross-site", "https://trusted.example", 101, True),
        ("same-site", "http://evil.example", 403, True),
    ],
)
async def test_sec_fetch_site_and_trusted_origins(site: str, origin: str, status: int, asked: bool) -> None:
    calls: list[str] = []
    settings: dict[str, Any] = {"asked": calls, "trusted_origins": ["https://trusted.example"]}
    async with (
        serving(Origin, **settings) as url,
        raw_client(url, Origin=origin, Sec_Fetch_Site=site) as client,
    ):
        assert client.status == status
    assert calls == ([origin] if asked else [])


@pytest.mark.gen_test
@pytest.mark.parametrize("allowed", [True, False])
async def test_check_origin_may_be_overridden(allowed: bool) -> None:
    class Handler(Echo):
        def check_origin(self, origin: str) -> bool:
            assert origin == "http://elsewhere.example"
            return allowed

    async with serving(Handler) as url, raw_client(url, Origin="http://elsewhere.example") as client:
        assert client.status == (101 if allowed else 403)


# closing

CLOSINGS = [
    pytest.param((), (None, None), id="nothing"),
    pytest.param((1000,), (1000, None), id="code"),
    pytest.param((1001, "going away"), (1001, "going away"), id="code and reason"),
    pytest.param((None, "reason"), (1000, "reason"), id="reason alone"),
    pytest.param(
        (4999, "\N{GREEK SMALL LETTER ALPHA}" * 61), (4999, "\N{GREEK SMALL LETTER ALPHA}" * 61), id="longest"
    ),
]


@pytest.mark.gen_test
@pytest.mark.parametrize(("given", "seen"), CLOSINGS)
async def test_the_server_closes(given: tuple[Any, ...], seen: tuple[Any, ...]) -> None:
    closed: list[Any] = []

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            self.close(*given)

        def on_close(self) -> None:
            closed.append(self.close_code)

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("close")
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == seen
        await until(lambda: closed)
    # The client echoes the code.
    assert closed == [seen[0]]


@pytest.mark.gen_test
@pytest.mark.parametrize(("given", "seen"), CLOSINGS)
async def test_the_client_closes(given: tuple[Any, ...], seen: tuple[Any, ...]) -> None:
    closed: list[Any] = []

    class Handler(Echo):
        def on_close(self) -> None:
            closed.append((self.close_code, self.close_reason))

    async with serving(Handler) as url, connected(url) as conn:
        conn.close(*given)
        assert await conn.read_message() is None
        await until(lambda: closed)
        assert conn.close_code == seen[0]
    assert closed == [seen]


@pytest.mark.gen_test
@pytest.mark.parametrize("end", ["server", "client"])
async def test_a_code_or_reason_that_may_not_be_sent_is_an_error_and_changes_nothing(end: str) -> None:
    refused: list[Any] = []
    forbidden: list[tuple[Any, ...]] = [(code,) for code in (0, 999, 1004, 1005, 1006, 1015, 2999)]
    forbidden.append((1000, "x" * 124))

    def try_all(close: Any) -> None:
        for args in forbidden:
            with pytest.raises(ValueError, match=r"^close (code|reason) "):
                close(*args)
            refused.append(args)

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> Any:
            if end == "server":
                try_all(self.close)
            return super().on_message(message)

    async with serving(Handler) as url, connected(url) as conn:
        if end == "client":
            try_all(conn.close)
        await conn.write_message("still there")
        assert await conn.read_message() == "still there"
    assert refused == forbidden


@pytest.mark.gen_test
@pytest.mark.parametrize("code", [5000, 10000, 70000])
@pytest.mark.rfc("6455-7.4.2-ranges")
async def test_a_code_that_no_range_has_goes_as_1008(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """Bokeh closes with 10000 and 10001, from callbacks of the loop too, where an error would leave it open."""

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            self.close(code, "its own reason")

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("go")
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (1008, "its own reason")
    assert [str(code) in record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [True]


@pytest.mark.gen_test
async def test_messages_before_the_close_arrive() -> None:
    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            for number in range(20):
                self.write_message(str(number))
            self.close(4000)

    async with serving(Handler) as url, connected(url) as conn:
        await conn.write_message("go")
        assert [await conn.read_message() for _ in range(21)] == [*map(str, range(20)), None]
        assert conn.close_code == 4000


@pytest.mark.gen_test
async def test_on_close_is_called_once_when_the_client_vanishes() -> None:
    closed: list[Any] = []

    class Handler(Echo):
        def on_close(self) -> None:
            closed.append((self.close_code, self.close_reason))

    async with serving(Handler) as url, raw_client(url) as client:
        client.reset()
        await until(lambda: closed)
        await asyncio.sleep(0.01)
    assert closed == [(None, None)]


# pings and options


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("data", "expected"), [((), b""), ((b"bytes",), b"bytes"), (("str",), b"str"), ((bytes(125),), bytes(125))]
)
async def test_ping_comes_back_as_a_pong_with_its_payload(data: tuple[Any, ...], expected: bytes) -> None:
    pongs: list[bytes] = []

    class Handler(Echo):
        def open(self) -> None:
            with pytest.raises(ValueError, match="125"):
                self.ping(bytes(126))
            self.ping(*data)

        def on_pong(self, data: bytes) -> None:
            pongs.append(data)

    async with serving(Handler) as url, connected(url):
        await until(lambda: pongs)
    assert pongs == [expected]


@pytest.mark.gen_test
async def test_on_ping_gets_the_payload_of_the_clients_ping() -> None:
    pings: list[bytes] = []

    class Handler(Echo):
        def on_ping(self, data: bytes) -> None:
            pings.append(data)

    async with serving(Handler) as url, connected(url) as conn:
        conn.ping(b"payload")
        await until(lambda: pings)
    assert pings == [b"payload"]


@pytest.mark.gen_test
async def test_set_nodelay() -> None:
    flags: list[int] = []

    class Handler(Echo):
        def open(self) -> None:
            assert self.ws_connection is not None
            assert self.ws_connection.stream is not None
            for value in (False, True):
                self.set_nodelay(value)
                flags.append(self.ws_connection.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async with serving(Handler) as url, connected(url) as conn:
        await until(lambda: len(flags) == 2)
        await disconnect(conn)
    assert [bool(flag) for flag in flags] == [False, True]


@pytest.mark.gen_test
async def test_settings_of_the_application() -> None:
    """``websocket_ping_interval``, ``websocket_ping_timeout`` and ``websocket_max_message_size`` (Tornado 4.5)."""

    class Handler(Echo):
        def on_message(self, message: str | bytes) -> None:
            self.write_message({"values": [self.ping_interval, self.ping_timeout, self.max_message_size]})

    settings = {"websocket_ping_interval": 30, "websocket_ping_timeout": 20, "websocket_max_message_size": 123}
    for given, expected in ((settings, [30, 20, 123]), ({}, [None, None, 10 * 1024 * 1024])):
        async with serving(Handler, **given) as url, connected(url) as conn:  # type: ignore[arg-type]
            await conn.write_message("x")
            assert json.loads(await conn.read_message() or "") == {"values": expected}
