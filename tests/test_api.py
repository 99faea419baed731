"""The public API: its signatures against Tornado's own snapshot, and the client in all its calling styles.

What a handler can do is in `tests.server.test_handler_api`.
"""

from __future__ import annotations

import inspect
import socket
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tornado
from tornado import gen, httpclient
from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import HTTPTimeoutError
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

import tornado_ws
from tests.support import Echo, connected, disconnect, serving, until
from tornado_ws import (
    WebSocketClientConnection,
    WebSocketClosedError,
    WebSocketError,
    WebSocketProtocol13,
    websocket_connect,
)

# Tornado's snapshot of its API (in its wheel since 6.6)

#: Set by an answer that is no 101.
OF_A_REFUSAL = {"WebSocketClientConnection.reason"}

SNAPSHOT = Path(tornado.__file__).parent / "test" / "api.txt"


class Entry(NamedTuple):
    name: str
    kind: str
    detail: str


def snapshot() -> Iterator[Entry]:
    """Read lines such as ``tornado.websocket.X.close: method(self, code=None, reason=None)``."""
    for line in SNAPSHOT.read_text().splitlines() if SNAPSHOT.exists() else ():
        name, _, what = line.partition(": ")
        if name.startswith("tornado.websocket."):
            kind, _, detail = what.partition("(")
            yield Entry(name.removeprefix("tornado.websocket."), kind, detail.removesuffix(")"))


def entries(*kinds: str) -> list[Any]:
    return [pytest.param(entry, id=entry.name) for entry in snapshot() if entry.kind in kinds]


with_snapshot = pytest.mark.skipif(not SNAPSHOT.exists(), reason="Tornado's snapshot of its API came with 6.6")


def ours(name: str) -> Any:
    found: Any = tornado_ws
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    return found


def signature_of(text: str) -> inspect.Signature:
    namespace: dict[str, Any] = {}
    exec(f"def function({text}): ...", namespace)
    return inspect.signature(namespace["function"])


@with_snapshot
@pytest.mark.parametrize("entry", entries("class", "property", "data"))
def test_name_of_the_snapshot_exists(entry: Entry) -> None:
    found = ours(entry.name)
    if entry.kind == "property":
        assert isinstance(found, property)
    elif entry.kind == "class":
        module, _, base = entry.detail.rpartition(".")
        namespace = tornado_ws if module == "tornado.websocket" else __import__(module, fromlist=[base])
        assert issubclass(found, getattr(namespace, base))


@with_snapshot
@pytest.mark.parametrize("entry", entries("method", "function", "staticmethod"))
def test_signature_of_the_snapshot_is_accepted(entry: Entry) -> None:
    """Every parameter of Tornado's is ours, with its default and, if it is positional, in its place."""
    found = ours(entry.name)
    assert isinstance(found, staticmethod) == (entry.kind == "staticmethod")
    if entry.name.endswith(".open"):
        # A variable of type Callable in Tornado too, so that mypy lets a subclass choose the arguments.
        assert callable(found)
        return
    got = list(inspect.signature(getattr(found, "__func__", found)).parameters.values())
    wanted = list(signature_of(entry.detail).parameters.values())
    for index, parameter in enumerate(wanted):
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            assert got[index].name == parameter.name
        accepted = next(one for one in got if one.name == parameter.name)
        assert (accepted.kind, accepted.default) == (parameter.kind, parameter.default)
    names = {parameter.name for parameter in wanted}
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    assert all(one.default is not one.empty or one.kind in variadic for one in got if one.name not in names)


@with_snapshot
@pytest.mark.gen_test
async def test_attributes_of_the_snapshot_are_there_on_live_objects() -> None:
    handlers: list[Any] = []

    class Handler(Echo):
        def open(self) -> None:
            handlers.append(self)

    async with serving(Handler) as url, connected(url) as conn:
        await until(lambda: handlers)
        live: dict[str, list[Any]] = {
            "WebSocketClientConnection": [conn],
            "WebSocketHandler": handlers,
            "WebSocketProtocol": [conn.protocol, handlers[0].ws_connection],
            "WebSocketProtocol13": [conn.protocol, handlers[0].ws_connection],
        }
        missing = [
            entry.name
            for entry in snapshot()
            if entry.kind == "attribute" and entry.name not in OF_A_REFUSAL
            for owner, _, name in [entry.name.partition(".")]
            if not all(hasattr(instance, name) for instance in live[owner])
        ]
    assert missing == []


@with_snapshot
def test_the_snapshot_has_only_kinds_that_are_checked() -> None:
    kinds = {"class", "property", "data", "method", "function", "staticmethod", "attribute"}
    assert {entry.kind for entry in snapshot()} <= kinds


# a server of pytest-tornado's


@pytest.fixture
def closings() -> list[Any]:
    """What the handlers of `app` say when they are closed."""
    return []


@pytest.fixture
def app(closings: list[Any]) -> Application:
    class Handler(Echo):
        def on_close(self) -> None:
            closings.append((self.close_code, self.close_reason))

    return Application([("/", Handler)])


@pytest.fixture
def url(http_server: HTTPServer, http_port: int) -> str:
    return f"ws://127.0.0.1:{http_port}/"


@pytest.mark.gen_test
async def test_await_style(url: str, closings: list[Any]) -> None:
    conn = await websocket_connect(url)
    await conn.write_message("hello")
    assert await conn.read_message() == "hello"
    conn.close(1000, "bye")
    assert await conn.read_message() is None
    await until(lambda: closings)
    assert closings == [(1000, "bye")]


@pytest.mark.gen_test
def test_yield_style(url: str, closings: list[Any]) -> Generator[Any, Any, None]:
    @gen.coroutine
    def loop() -> Generator[Any, Any, list[Any]]:
        messages = []
        conn = yield websocket_connect(url)
        yield conn.write_message("hello")
        yield conn.write_message(b"\xff", binary=True)
        while (message := (yield conn.read_message())) is not None:
            messages.append(message)
            if len(messages) == 2:
                conn.close()
        return messages

    messages = yield loop()
    assert messages == ["hello", b"\xff"]
    while not closings:
        yield gen.sleep(0.001)


@pytest.mark.gen_test
async def test_callback_style(url: str, closings: list[Any]) -> None:
    """``callback`` gets the Future of the connection, ``read_message``'s callback the Future of the message."""
    connections: list[Any] = []
    messages: list[Any] = []
    with pytest.warns(DeprecationWarning, match="callback"):
        future = websocket_connect(url, callback=connections.append)
    conn = await future
    await until(lambda: connections)
    assert connections[0].result() is conn
    returned = conn.read_message(messages.append)
    await conn.write_message("hello")
    await until(lambda: messages)
    assert messages[0].result() == "hello" == await returned
    await disconnect(conn)
    await until(lambda: closings)


@pytest.mark.gen_test
async def test_on_message_callback_gets_messages_and_none_at_the_end(url: str, closings: list[Any]) -> None:
    messages: list[Any] = []
    conn = await websocket_connect(url, on_message_callback=messages.append)
    await conn.write_message("one")
    await conn.write_message(b"two", binary=True)
    await until(lambda: len(messages) == 2)
    conn.close()
    await until(lambda: len(messages) == 3)
    assert messages == ["one", b"two", None]
    await until(lambda: closings)


# the order of the arguments until Tornado 5.0


def request_for(url: str) -> Any:
    return httpclient._RequestProxy(HTTPRequest(url), HTTPRequest._DEFAULTS)


def connect_by_hand(*args: Any, **kwargs: Any) -> Any:
    return WebSocketClientConnection(*args, **kwargs).connect_future


Call = Callable[[str, IOLoop, Callable[[Any], None]], Any]

OLD_CALLS: dict[str, Call] = {
    "url, io_loop": lambda url, loop, got: websocket_connect(url, loop),  # type: ignore[arg-type]
    "url, io_loop, callback, timeout, on_message_callback, compression_options": (
        lambda url, loop, got: websocket_connect(url, loop, lambda future: None, 5, got, {})  # type: ignore[arg-type]
    ),
    "url, None, callback": lambda url, loop, got: websocket_connect(url, None, lambda future: None),  # type: ignore[arg-type]
    "io_loop=": lambda url, loop, got: websocket_connect(url, io_loop=loop),  # type: ignore[call-arg]
    "io_loop=None": lambda url, loop, got: websocket_connect(url, io_loop=None),  # type: ignore[call-arg]
    "io_loop=, callback=": lambda url, loop, got: websocket_connect(url, io_loop=loop, callback=lambda future: None),  # type: ignore[call-arg]
    "connection: io_loop, request": lambda url, loop, got: connect_by_hand(loop, request_for(url)),
    "connection: io_loop, request, on_message_callback, compression_options": (
        lambda url, loop, got: connect_by_hand(loop, request_for(url), got, {})
    ),
    "connection: io_loop=, request=": lambda url, loop, got: connect_by_hand(io_loop=loop, request=request_for(url)),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("order", OLD_CALLS)
async def test_old_order_of_arguments(order: str, url: str, closings: list[Any], io_loop: IOLoop) -> None:
    messages: list[Any] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        future = OLD_CALLS[order](url, io_loop, messages.append)
    assert [warning.category for warning in said if "io_loop" in str(warning.message)] == [DeprecationWarning]
    assert [warning.filename for warning in said] == [__file__] * len(said)
    conn = await future
    await conn.write_message("hello")
    if "on_message_callback" in order:
        await until(lambda: messages)
        assert messages == ["hello"]
        assert "permessage-deflate" in conn.request.headers["Sec-WebSocket-Extensions"]
    else:
        assert await conn.read_message() == "hello"
    await disconnect(conn)
    await until(lambda: closings)


MODERN_CALLS: dict[str, Call] = {
    "url, callback": lambda url, loop, got: websocket_connect(url, lambda future: None),
    "url, callback, connect_timeout, on_message_callback": (
        lambda url, loop, got: websocket_connect(url, lambda future: None, 5, got)
    ),
    "url, None, connect_timeout": lambda url, loop, got: websocket_connect(url, None, 5),
    "connection: request": lambda url, loop, got: connect_by_hand(request_for(url)),
    "connection: request, on_message_callback": lambda url, loop, got: connect_by_hand(request_for(url), got),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("order", MODERN_CALLS)
async def test_modern_order_of_arguments(order: str, url: str, closings: list[Any], io_loop: IOLoop) -> None:
    messages: list[Any] = []
    with warnings.catch_warnings():
        # Nothing but this one may be said of the modern order.
        warnings.filterwarnings("ignore", "The callback argument", DeprecationWarning)
        future = MODERN_CALLS[order](url, io_loop, messages.append)
    conn = await future
    await conn.write_message("hello")
    if "on_message_callback" in order:
        await until(lambda: messages)
    else:
        messages.append(await conn.read_message())
    assert messages == ["hello"]
    await disconnect(conn)
    await until(lambda: closings)


# requests


class Headers(Echo):
    def on_message(self, message: str | bytes) -> None:
        self.write_message({name: self.request.headers.get(name) for name in ("X-Who", "User-Agent")})


@pytest.mark.gen_test
async def test_http_request_with_headers_as_a_plain_dict() -> None:
    async with serving(Headers) as url:
        request = HTTPRequest(url, headers={"X-Who": "me", "User-Agent": "test"})
        async with connected(request) as conn:
            await conn.write_message("headers")
            assert await conn.read_message() == '{"X-Who": "me", "User-Agent": "test"}'


@pytest.mark.gen_test
@pytest.mark.parametrize("offered", [["chat"], ["superchat", "chat"], []])
async def test_subprotocols_of_the_client(offered: list[str]) -> None:
    class Handler(Echo):
        def select_subprotocol(self, subprotocols: list[str]) -> str | None:
            assert subprotocols == offered
            return subprotocols[-1] if subprotocols else None

    async with serving(Handler) as url, connected(url, subprotocols=offered or None) as conn:
        assert conn.selected_subprotocol == (offered[-1] if offered else None)


@pytest.mark.gen_test
async def test_on_ping_and_on_pong_may_be_set_on_the_connection() -> None:
    class Handler(Echo):
        def on_ping(self, data: bytes) -> None:
            self.ping(b"back " + data)

    seen: list[Any] = []
    async with serving(Handler) as url, connected(url) as conn:
        conn.on_ping = lambda data: seen.append(("ping", data))  # type: ignore[method-assign]
        conn.on_pong = lambda data: seen.append(("pong", data))  # type: ignore[method-assign]
        conn.ping(b"x")
        await until(lambda: len(seen) == 2)
        with pytest.raises(ValueError, match="125"):
            conn.ping(bytes(126))
        conn.ping()
        await until(lambda: len(seen) == 4)
    assert seen == [("pong", b"x"), ("ping", b"back x"), ("pong", b""), ("ping", b"back ")]


@pytest.mark.gen_test
async def test_max_message_size_of_the_client() -> None:
    closed: list[Any] = []

    class Handler(Echo):
        def on_close(self) -> None:
            closed.append(self.close_code)

    async with serving(Handler) as url, connected(url, max_message_size=100) as conn:
        for size in (100, 101):
            await conn.write_message("x" * size)
            assert await conn.read_message() == ("x" * size if size == 100 else None)
        await until(lambda: closed)
    assert closed == [1009]


@pytest.mark.gen_test
async def test_ping_interval_and_ping_timeout_of_the_client() -> None:
    pings: list[bytes] = []

    class Handler(Echo):
        def on_ping(self, data: bytes) -> None:
            pings.append(data)

    async with serving(Handler) as url, connected(url, ping_interval=0.2, ping_timeout=0.2) as conn:
        await until(lambda: len(pings) >= 3)
        assert isinstance(conn.protocol, WebSocketProtocol13)
        assert (conn.protocol.ping_interval, conn.protocol.ping_timeout) == (0.2, 0.2)


@pytest.mark.gen_test
@pytest.mark.parametrize("options", [{}, {"compression_level": 1, "mem_level": 1}, {"compression_level": 9}])
async def test_compression_options_of_both_ends(options: dict[str, Any]) -> None:
    class Handler(Echo):
        def get_compression_options(self) -> dict[str, Any]:
            return options

    async with serving(Handler) as url, connected(url, compression_options=options) as conn:
        message = "the same again and again, " * 400
        await conn.write_message(message)
        assert await conn.read_message() == message
        protocol: Any = conn.protocol
        assert protocol._message_bytes_out == protocol._message_bytes_in == len(message)
        assert protocol._wire_bytes_out < len(message) / 10
        assert protocol._wire_bytes_in < len(message) / 10


# failures


@pytest.mark.gen_test
async def test_connect_timeout_covers_the_opening_handshake() -> None:
    """A server that takes the connection and never answers."""
    silent, port = bind_unused_port()
    with silent, pytest.raises(HTTPTimeoutError):
        await websocket_connect(f"ws://127.0.0.1:{port}/", connect_timeout=0.02)


@pytest.mark.gen_test
async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises((OSError, StreamClosedError)):
            await websocket_connect(f"ws://127.0.0.1:{unused.getsockname()[1]}/")


class NotAWebSocket(RequestHandler):
    def get(self, status: str) -> None:
        self.set_status(int(status))


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("status", "error"),
    [(404, httpclient.HTTPError), (403, httpclient.HTTPError), (500, httpclient.HTTPError), (200, WebSocketError)],
)
async def test_refused_handshake(status: int, error: type[Exception]) -> None:
    async with serving([(r"/(\d+)", NotAWebSocket)]) as url:
        with pytest.raises(error) as refused:
            await websocket_connect(f"{url}/{status}")
    if error is httpclient.HTTPError:
        assert refused.value.code == status  # type: ignore[attr-defined]


@pytest.mark.gen_test
async def test_read_message_gives_none_again_after_the_end() -> None:
    class Handler(Echo):
        def open(self) -> None:
            self.write_message("last")
            self.close()

    async with serving(Handler) as url, connected(url) as conn:
        assert [await conn.read_message() for _ in range(4)] == ["last", None, None, None]


@pytest.mark.gen_test
async def test_writing_to_a_closed_connection() -> None:
    async with serving(Echo) as url, connected(url) as conn:
        conn.close()
        with pytest.raises(WebSocketClosedError):
            await conn.write_message("too late")
        with pytest.raises(WebSocketClosedError):
            conn.ping()
        conn.close()
        assert await conn.read_message() is None
