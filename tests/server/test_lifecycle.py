"""When `open` and `on_close` are called, how often, and what exceptions in the application's callbacks lead to."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest

from tests.conftest import Log, Tls
from tests.peer import RawPeer, Recording, frame, opening_request, raw_client, raw_pair, unanswered_client
from tests.support import Echo, connected, disconnect, serving, until
from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, Frame
from tornado_ws import WebSocketClosedError, websocket_connect


class Broken(Exception):
    pass


# on_close exactly once, and only after open


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["close frame", "FIN", "RST", "violation", "our abort", "our stream.close"])
async def test_on_close_is_called_exactly_once(way: str) -> None:
    calls: list[Any] = []
    handlers: list[Recording] = []

    class Handler(Recording):
        def open(self) -> None:
            super().open()
            handlers.append(self)

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await until(lambda: handlers)
        protocol: Any = handlers[0].ws_connection
        if way == "close frame":
            await client.send(client.frame(CLOSE, b"\x03\xe8") * 2)
        elif way == "FIN":
            client.half_close()
        elif way == "RST":
            client.reset()
        elif way == "violation":
            await client.send(client.frame(0x3) * 2)
        elif way == "our abort":
            protocol._abort()
            protocol._abort()
        else:
            protocol.stream.close()
            protocol.stream.close()
        await until(lambda: len(calls) == 2)
        # Whatever else is called, by the application or by Tornado, must not call it again.
        handlers[0].on_connection_close()
        handlers[0].on_ws_connection_close(1000, "again")
        handlers[0].close()
        protocol._abort()
        protocol.close()
        await asyncio.sleep(0.01)
        assert handlers[0].ws_connection is None
    assert len(calls) == 2
    assert calls[1][0] == "close"
    code = {"close frame": 1000, "violation": 1002}.get(way)
    assert calls[1][1] == code


@pytest.mark.gen_test
async def test_on_close_waits_for_a_slow_open() -> None:
    calls: list[Any] = []

    class Slow(Recording):
        async def open(self) -> None:  # type: ignore[override]
            self.calls.append("open")
            await asyncio.sleep(0.03)
            self.calls.append("opened")

    async with serving(Slow, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(CLOSE, b"\x03\xe8"))
        client.half_close()
        await until(lambda: len(calls) == 4)
    assert calls == ["open", "opened", "1", ("close", 1000, None)]


@pytest.mark.gen_test
async def test_on_close_waits_for_a_slow_on_message() -> None:
    calls: list[Any] = []

    class Slow(Recording):
        async def on_message(self, message: str | bytes) -> None:
            self.calls.append(message)
            await asyncio.sleep(0.02)
            self.calls.append("done")

    async with serving(Slow, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"))
        client.half_close()
        await until(lambda: len(calls) == 6)
    assert calls == ["open", "1", "done", "2", "done", ("close", None, None)]


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["FIN", "RST"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_open_is_not_called_for_a_client_that_left_during_prepare(
    way: str, secure: bool, log: Log, tls: Tls
) -> None:
    calls: list[Any] = []
    prepared = asyncio.Event()

    class Handler(Recording):
        def prepare(self) -> Awaitable[None]:
            self.calls.append("prepare")
            return self.wait()

        async def wait(self) -> None:
            await prepared.wait()

    async with serving(Handler, calls=calls, ssl_options=tls.server if secure else None) as url:
        host, port = url.removeprefix("ws://").split(":")
        _, writer = await asyncio.open_connection(
            host, int(port), ssl=tls.client if secure else None, server_hostname="localhost" if secure else None
        )
        writer.write(opening_request(url))
        await until(lambda: calls)
        if way == "RST":
            writer.transport.abort()
        else:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.02)
        prepared.set()
        await asyncio.sleep(0.02)
    assert calls == ["prepare"]
    assert log.lines == []


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["FIN", "RST"])
async def test_what_a_client_left_behind_is_handed_out_if_it_may_still_listen(way: str, log: Log) -> None:
    """One that has sent FIN may have closed only its side; Tornado delivers what it has sent."""
    calls: list[Any] = []
    prepared = asyncio.Event()

    class Handler(Recording):
        async def prepare(self) -> None:
            self.calls.append("prepare")
            await prepared.wait()

        async def get(self, *args: Any, **kwargs: Any) -> None:
            # Ends with the connection.
            await super().get(*args, **kwargs)
            self.calls.append("end of get")

        def on_message(self, message: str | bytes) -> None:
            # An answer would fail, as nobody takes it, and be logged.
            self.calls.append(message)

    async with serving(Handler, calls=calls) as url:
        async with unanswered_client(url) as client:
            await client.send(opening_request(url), client.frame(TEXT, b"hello"))
            await until(lambda: calls)
            if way == "RST":
                client.reset()
        prepared.set()
        await until(lambda: "end of get" in calls)
    handed_out = ["open", "hello", ("close", None, None)] if way == "FIN" else []
    assert calls == ["prepare", *handed_out, "end of get"]
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_client_may_say_all_it_has_to_say_before_open() -> None:
    calls: list[Any] = []
    early = frame(TEXT, b"hello", masked=True) + frame(CLOSE, b"\x03\xe8", masked=True)
    async with serving(Recording, calls=calls) as url, raw_client(url, early=early) as client:
        assert await client.receive_rest() == [Frame(TEXT, b"hello"), Frame(CLOSE, b"\x03\xe8")]
        await until(lambda: len(calls) == 3)
    assert calls == ["open", "hello", ("close", 1000, None)]


# Exceptions


class Failing(Recording):
    """Raises in one of its callbacks."""

    def initialize(self, calls: list[Any], where: str, coroutine: bool) -> None:  # type: ignore[override]
        super().initialize(calls)
        self.where = where
        self.coroutine = coroutine

    def fail_in(self, place: str) -> Awaitable[None] | None:
        if place != self.where:
            return None
        if self.coroutine:
            return self.fail_later()
        raise Broken(place)

    async def fail_later(self) -> None:
        await asyncio.sleep(0)
        raise Broken(self.where)

    def open(self) -> Any:
        super().open()
        return self.fail_in("open")

    def on_message(self, message: str | bytes) -> Any:
        return self.fail_in("on_message")

    def on_ping(self, data: bytes) -> Any:
        return self.fail_in("on_ping")

    def on_pong(self, data: bytes) -> Any:
        return self.fail_in("on_pong")


def failing_routes(calls: list[Any], where: str, coroutine: bool) -> list[Any]:
    return [("/", Failing, {"calls": calls, "where": where, "coroutine": coroutine})]


OPCODES = {"open": TEXT, "on_message": BINARY, "on_ping": PING, "on_pong": PONG}


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("where", "coroutine"),
    [
        ("open", False),
        ("open", True),
        ("on_message", False),
        ("on_message", True),
        ("on_ping", False),
        ("on_pong", False),
    ],
)
async def test_an_exception_is_logged_and_aborts_the_connection(where: str, coroutine: bool, log: Log) -> None:
    calls: list[Any] = []
    async with serving(failing_routes(calls, where, coroutine)) as url, raw_client(url) as client:
        await client.send_frame(OPCODES[where], b"x")
        frames = await client.receive_rest()
        assert frames == ([Frame(PONG, b"x")] if where == "on_ping" else [])
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", None, None)]
    assert [record.exc_info[0] for record in log.records if record.exc_info] == [Broken]
    assert len(log.records) == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("coroutine", [False, True], ids=["function", "coroutine"])
@pytest.mark.parametrize("where", ["open", "on_message", "on_pong", "on_close"])
async def test_a_log_exception_that_raises_keeps_no_connection_open(where: str, coroutine: bool, log: Log) -> None:
    calls: list[Any] = []

    class Handler(Failing):
        def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
            raise ValueError("cannot log")

        def on_close(self) -> Any:
            super().on_close()
            return self.fail_in("on_close")

        async def get(self, *args: Any, **kwargs: Any) -> None:
            # Ends with the connection.
            await super().get(*args, **kwargs)
            self.calls.append("end of get")

    routes: list[Any] = [("/", Handler, {"calls": calls, "where": where, "coroutine": coroutine})]
    async with serving(routes) as url, raw_client(url) as client:
        await client.send_frame(OPCODES.get(where, CLOSE), b"")
        await client.receive_rest()
        await until(lambda: "end of get" in calls)
    assert [call for call in calls if call != b""] == ["open", ("close", None, None), "end of get"]
    assert [record.message for record in log.records] == [f"log_exception of {Handler.__qualname__} raised"]


@pytest.mark.gen_test
@pytest.mark.parametrize("where", ["on_ping", "on_pong"])
async def test_an_exception_in_a_coroutine_on_ping_is_logged_when_it_happens(where: str, log: Log) -> None:
    """Not only when the collector finds it, by which time nobody knows whose it was."""
    async with serving(failing_routes([], where, True)) as url, raw_client(url) as client:
        await client.send_frame(OPCODES[where], b"x")
        await until(lambda: log.records)
    assert [record.name for record in log.records] == ["tornado.application"]


@pytest.mark.gen_test
async def test_an_exception_in_on_close_is_logged(log: Log) -> None:
    class Handler(Echo):
        def on_close(self) -> None:
            raise Broken

    async with serving(Handler) as url, raw_client(url) as client:
        await client.send_frame(CLOSE)
        assert await client.receive_rest() == [Frame(CLOSE)]
        await until(lambda: log.records)
    assert [record.exc_info[0] for record in log.records if record.exc_info] == [Broken]
    # By the handler's own `log_exception`, which says whose it was.
    assert log.lines[0].startswith("Uncaught exception GET /")


@pytest.mark.gen_test
@pytest.mark.parametrize("coroutine", [False, True], ids=["function", "coroutine"])
async def test_no_message_is_handed_out_after_one_that_raised(coroutine: bool, log: Log) -> None:
    calls: list[Any] = []

    class Handler(Recording):
        def on_message(self, message: str | bytes) -> Any:
            self.calls.append(message)
            if coroutine:
                return self.fail_later()
            raise Broken

        async def fail_later(self) -> None:
            await asyncio.sleep(0.01)
            raise Broken

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"), client.frame(TEXT, b"3"))
        assert await client.receive_rest() == []
        await until(lambda: calls[-1][0] == "close")
    assert calls == ["open", "1", ("close", None, None)]
    assert len(log.records) == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("coroutine", [False, True], ids=["function", "coroutine"])
async def test_no_message_is_handed_out_after_an_abort(coroutine: bool) -> None:
    calls: list[Any] = []

    class Handler(Recording):
        def on_message(self, message: str | bytes) -> Any:
            self.calls.append(message)
            return self.abort_later() if coroutine else self.abort()

        async def abort_later(self) -> None:
            await asyncio.sleep(0.01)
            self.abort()

        def abort(self) -> None:
            protocol: Any = self.ws_connection
            protocol._abort()

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"), client.frame(TEXT, b"3"))
        assert await client.receive_rest() == []
        await until(lambda: calls[-1][0] == "close")
    assert calls == ["open", "1", ("close", None, None)]


@pytest.mark.gen_test
async def test_an_exception_in_a_clients_callback_is_logged_and_aborts(log: Log) -> None:
    messages: list[Any] = []

    def on_message(message: str | bytes | None) -> None:
        messages.append(message)
        if message is not None:
            raise Broken

    async with raw_pair(on_message_callback=on_message) as (_, peer):
        await peer.send(peer.frame(TEXT, b"1"), peer.frame(TEXT, b"2"))
        assert await peer.receive_rest() == []
        await until(lambda: len(messages) == 2)
    assert messages == ["1", None]
    assert [record.exc_info[0] for record in log.records if record.exc_info] == [Broken]


@pytest.mark.gen_test
async def test_a_cancelled_on_message_is_as_one_that_raised() -> None:
    calls: list[Any] = []

    class Handler(Recording):
        async def on_message(self, message: str | bytes) -> None:
            raise asyncio.CancelledError

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"1")
        assert await client.receive_rest() == []
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", None, None)]


@pytest.mark.gen_test
@pytest.mark.parametrize("result", ["a failed Future", "no awaitable"])
async def test_what_on_message_returns_may_be_wrong(result: str, log: Log) -> None:
    calls: list[Any] = []

    class Handler(Recording):
        def on_message(self, message: str | bytes) -> Any:
            if result == "no awaitable":
                return 42
            future = asyncio.get_running_loop().create_future()
            future.set_exception(Broken())
            return future

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"))
        assert await client.receive_rest() == []
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", None, None)]
    assert len(log.records) == 1
    assert log.records[0].exc_info


# Tasks that are cancelled, as by a server that shuts down


def request_task() -> asyncio.Task[Any]:
    """Return the only task that handles a request."""
    (task,) = (task for task in asyncio.all_tasks() if "_execute" in repr(task))
    return task


@pytest.mark.gen_test
async def test_cancelling_a_slow_open() -> None:
    calls: list[Any] = []

    class Slow(Recording):
        async def open(self) -> None:  # type: ignore[override]
            super().open()
            await asyncio.sleep(10)

    async with serving(Slow, calls=calls) as url, raw_client(url) as client:
        await until(lambda: calls)
        request_task().cancel()
        assert await client.receive() is None
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", None, None)]


@pytest.mark.gen_test
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_get_of_the_applications_lasts_as_long_as_the_connection(cancelled: bool) -> None:
    calls: list[Any] = []

    class Handler(Recording):
        async def get(self) -> None:
            self.calls.append("begin")
            await super().get()
            self.calls.append("end")

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert await client.receive() == Frame(TEXT, b"x")
        assert calls == ["begin", "open", "x"]
        if cancelled:
            request_task().cancel()
            assert await client.receive() is None
        else:
            await client.send_frame(CLOSE)
            await client.receive_rest()
        await until(lambda: len(calls) == 5)
    assert calls[3:] == [("close", None, None), "end"] or (cancelled and calls[3:] == ["end", ("close", None, None)])


# Closing inside callbacks


@pytest.mark.gen_test
async def test_close_in_open() -> None:
    calls: list[Any] = []

    class Handler(Recording):
        def open(self) -> None:
            super().open()
            self.write_message("go away")
            self.close(4000, "full")

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        assert await client.answer_close() == [Frame(TEXT, b"go away")]
        assert await client.receive() is None
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 4000, "full")]


@pytest.mark.gen_test
async def test_close_of_another_connection_in_on_message() -> None:
    """Both are ready in the same turn of the poller, and the first one's callback closes the second one."""
    handlers: list[Recording] = []
    calls: list[Any] = []

    class Handler(Recording):
        def open(self) -> None:
            handlers.append(self)

        def on_message(self, message: str | bytes) -> None:
            for handler in handlers:
                if handler is not self and handler.ws_connection is not None:
                    protocol: Any = handler.ws_connection
                    if message == "abort":
                        protocol._abort()
                    else:
                        handler.close(4001)

    async with (
        serving(Handler, calls=calls) as url,
        raw_client(url) as first,
        raw_client(url) as second,
        raw_client(url) as third,
    ):
        await until(lambda: len(handlers) == 3)
        await asyncio.gather(*(peer.send_frame(TEXT, b"close") for peer in (first, second, third)))
        frames = [await peer.receive() for peer in (first, second, third)]
        assert frames == [Frame(CLOSE, b"\x0f\xa1")] * 3
        for peer in (first, second, third):
            await peer.send_frame(CLOSE)
            assert await peer.receive() is None
    assert len(calls) == 3


@pytest.mark.gen_test
async def test_abort_of_another_connection_in_on_message() -> None:
    handlers: list[Recording] = []
    calls: list[Any] = []

    class Handler(Recording):
        def open(self) -> None:
            handlers.append(self)

        def on_message(self, message: str | bytes) -> None:
            self.calls.append(message)
            for handler in handlers:
                if handler is not self:
                    protocol: Any = handler.ws_connection
                    protocol._abort()
            self.write_message("alone")

    async with serving(Handler, calls=calls) as url, raw_client(url) as first, raw_client(url) as second:
        await until(lambda: len(handlers) == 2)
        await asyncio.gather(first.send_frame(TEXT, b"abort"), second.send_frame(TEXT, b"abort"))

        async def outcome(peer: RawPeer) -> Frame | None:
            try:
                return await peer.receive()
            except ConnectionError:
                return None

        assert sorted(map(str, [await outcome(first), await outcome(second)])) == sorted(
            map(str, [Frame(TEXT, b"alone"), None])
        )
    assert calls.count("abort") == 1


# The client


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["close frame", "FIN", "RST", "our close"])
async def test_a_client_callback_gets_none_exactly_once(way: str) -> None:
    messages: list[Any] = []
    async with raw_pair(on_message_callback=messages.append) as (conn, peer):
        if way == "close frame":
            await peer.send_frame(CLOSE, b"\x03\xe9")
        elif way == "FIN":
            peer.half_close()
        elif way == "RST":
            peer.reset()
        else:
            conn.close()
            await peer.answer_close()
        await until(lambda: messages)
        await asyncio.sleep(0.01)
        assert messages == [None]
        assert conn.close_code == (1001 if way == "close frame" else None)
        with pytest.raises(WebSocketClosedError):
            await conn.write_message("x")
        conn.close()


@pytest.mark.gen_test
async def test_a_client_that_closes_at_once() -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url:
        conn = await websocket_connect(url)
        conn.close(1001, "changed my mind")
        assert await conn.read_message() is None
        await until(lambda: len(calls) == 2)
        assert conn.close_code == 1001
    assert calls == ["open", ("close", 1001, "changed my mind")]


@pytest.mark.gen_test
async def test_a_client_whose_stream_is_closed_at_once() -> None:
    async with serving(Echo) as url:
        conn = await websocket_connect(url)
        conn.stream.close()
        assert await conn.read_message() is None
        assert conn.close_code is None


@pytest.mark.gen_test
async def test_a_client_that_nobody_closed_says_so() -> None:
    async with serving(Echo) as url, connected(url) as conn:
        with pytest.warns(ResourceWarning, match="Unclosed WebSocketClientConnection"):
            conn.__del__()
        await disconnect(conn)
        # Closed by now, so a second warning would be an error here.
        conn.__del__()


# Nothing is left


@pytest.mark.gen_test
@pytest.mark.parametrize("options", [{}, {"ping_interval": 30, "compression_options": {}}], ids=["plain", "all on"])
async def test_client_connections_can_be_collected(options: dict[str, Any]) -> None:
    references: list[weakref.ref[Any]] = []

    def dead() -> bool:
        gc.collect()
        return not any(reference() for reference in references)

    async def use() -> None:
        async with connected(url, **options) as conn:
            references.append(weakref.ref(conn))
            references.append(weakref.ref(conn.protocol))
            await conn.write_message("x")
            assert await conn.read_message() == "x"
            await disconnect(conn)

    async with serving(Echo) as url:
        await use()
        await until(dead)


@pytest.mark.gen_test
async def test_many_connections_in_a_row_leave_the_loop_as_it_was() -> None:
    async with serving(Echo) as url:
        for number in range(50):
            async with connected(HTTPRequest(url)) as conn:
                await conn.write_message(str(number))
                assert await conn.read_message() == str(number)
        await until(lambda: len(asyncio.all_tasks()) == 1)
