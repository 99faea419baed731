"""Callbacks that may be coroutines are run to their end; hooks whose value is wanted refuse them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import pytest
from tornado import gen
from tornado.httpclient import HTTPRequest

from tests.conftest import Log
from tests.peer import Recording, raw_client
from tests.server.test_shutdown import Served
from tests.support import Echo, connected, serving, until
from tests.wire import CLOSE
from tornado_ws import ClosedAll, WebSocketClientConnection, close_all, reconnect
from tornado_ws.connection.interfaces import WebSocketProtocol

FOREIGN = "http://foreign.example"


@pytest.fixture(autouse=True)
def _no_coroutine_is_forgotten() -> Iterator[None]:
    """A coroutine that nobody awaited is told when it is collected: here, and as an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        yield
        gc.collect()
    assert [str(warning.message) for warning in caught if warning.category is RuntimeWarning] == []


class Slow(Recording):
    """Has a coroutine ``on_close`` that ends when the test says so."""

    handlers: list[Slow]
    may_end: asyncio.Event

    def open(self) -> None:
        super().open()
        type(self).handlers.append(self)

    async def on_close(self) -> None:  # type: ignore[override]
        self.calls.append("closing")
        await type(self).may_end.wait()
        super().on_close()


def slow() -> type[Slow]:
    """Return a class of its own for a test."""
    return type("Slow", (Slow,), {"handlers": [], "may_end": asyncio.Event()})


# on_close


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["close frame", "FIN", "violation", "on_connection_close", "close"])
async def test_a_coroutine_on_close_runs_and_wait_closed_waits_for_it(way: str) -> None:
    calls: list[Any] = []
    handler_class = slow()
    async with serving(handler_class, calls=calls) as url, raw_client(url) as client:
        await until(lambda: handler_class.handlers)
        handler = handler_class.handlers[0]
        waiting = asyncio.ensure_future(handler.wait_closed())
        await asyncio.sleep(0)
        if way == "close frame":
            await client.send(client.frame(CLOSE, b"\x03\xe8"))
        elif way == "FIN":
            client.half_close()
        elif way == "violation":
            await client.send(client.frame(0x3))
        elif way == "on_connection_close":
            handler.on_connection_close()
        else:
            handler.close(1000)
            await client.send(client.frame(CLOSE, b"\x03\xe8"))
        await until(lambda: "closing" in calls)
        assert handler.ws_connection is None
        # Whoever comes now waits as well.
        late = asyncio.ensure_future(handler.wait_closed())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert not late.done()
        handler_class.may_end.set()
        await asyncio.gather(waiting, late)
        assert calls[1] == "closing"
        assert calls[2][0] == "close"
        await handler.wait_closed()
    assert len(calls) == 3
    handler_class.handlers.clear()


@pytest.mark.gen_test
@pytest.mark.parametrize("old", [False, True], ids=["async def", "gen.coroutine"])
async def test_an_exception_of_a_coroutine_on_close_is_logged_and_ends_it(old: bool, log: Log) -> None:
    handlers: list[Any] = []

    async def fail(self: Any) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError("in on_close")

    def fail_old(self: Any) -> Any:
        yield gen.moment
        raise ZeroDivisionError("in on_close")

    class Broken(Echo):
        def open(self) -> None:
            handlers.append(self)

        on_close = gen.coroutine(fail_old) if old else fail

    async with serving(Broken) as url:
        async with connected(url):
            await until(lambda: handlers)
            waiting = asyncio.ensure_future(handlers[0].wait_closed())
            await asyncio.sleep(0)
        await waiting
        await until(lambda: log.lines)
    assert len(log.lines) == 1
    assert log.lines[0].startswith("Uncaught exception GET /")
    assert log.records[0].exc_info is not None
    assert isinstance(log.records[0].exc_info[1], ZeroDivisionError)
    handlers.clear()


@pytest.mark.gen_test
async def test_a_coroutine_on_close_that_waits_for_the_end_does_not_wait_for_itself() -> None:
    calls: list[Any] = []

    class Waiting(Recording):
        async def on_close(self) -> None:  # type: ignore[override]
            await self.wait_closed()
            super().on_close()

    async with serving(Waiting, calls=calls) as url:
        async with connected(url):
            await until(lambda: calls)
        await until(lambda: len(calls) == 2)


@pytest.mark.gen_test
async def test_what_else_on_close_returns_means_nothing(log: Log) -> None:
    calls: list[Any] = []

    class Returning(Recording):
        def on_close(self) -> Any:
            super().on_close()
            return [True, "text"]

    async with serving(Returning, calls=calls) as url:
        async with connected(url):
            await until(lambda: calls)
        await until(lambda: len(calls) == 2)
    assert log.lines == []


@pytest.mark.gen_test
async def test_a_generator_on_close_which_would_never_begin_is_logged(log: Log) -> None:
    class Undecorated(Echo):
        def on_close(self) -> Any:
            yield gen.moment

    async with serving(Undecorated) as url:
        async with connected(url) as conn:
            await conn.write_message("open")
            await conn.read_message()
        await until(lambda: log.lines)
    assert log.records[0].exc_info is not None
    assert "Undecorated.on_close returned a generator" in str(log.records[0].exc_info[1])


@pytest.mark.gen_test
async def test_coroutines_around_on_close_run_too() -> None:
    """Packages override `on_connection_close` in place of `on_close`, and call what it was."""
    calls: list[Any] = []
    handlers: list[Any] = []

    class Around(Recording):
        def open(self) -> None:
            handlers.append(self)

        async def on_connection_close(self) -> None:  # type: ignore[override]
            calls.append("before")
            await asyncio.sleep(0)
            super().on_connection_close()
            await asyncio.sleep(0)
            calls.append("behind")

        async def on_ws_connection_close(self, close_code: Any = None, close_reason: Any = None) -> None:  # type: ignore[override]
            super().on_ws_connection_close(close_code, close_reason)
            await asyncio.sleep(0)
            calls.append("around")

    async with serving(Around, calls=calls) as url:
        async with connected(url):
            await until(lambda: handlers)
            waiting = asyncio.ensure_future(handlers[0].wait_closed())
            await asyncio.sleep(0)
        await waiting
    assert sorted(map(str, calls)) == sorted(map(str, ["before", ("close", None, None), "behind", "around"]))
    handlers.clear()


@pytest.mark.gen_test
async def test_a_plain_on_connection_close_around_a_coroutine_on_close() -> None:
    calls: list[Any] = []
    handler_class = slow()

    class Engine(handler_class):  # type: ignore[misc, valid-type]
        def on_connection_close(self) -> None:
            super().on_connection_close()
            calls.append("on_connection_close")

    async with serving(Engine, calls=calls) as url:
        async with connected(url):
            await until(lambda: Engine.handlers)
            waiting = asyncio.ensure_future(Engine.handlers[0].wait_closed())
            await asyncio.sleep(0)
        await until(lambda: len(calls) == 3)
        assert not waiting.done()
        handler_class.may_end.set()
        await waiting
    assert calls == ["open", "closing", "on_connection_close", ("close", None, None)]
    Engine.handlers.clear()


@pytest.mark.gen_test
async def test_close_all_waits_for_a_coroutine_on_close() -> None:
    handler_class = slow()
    async with Served(handler_class) as served, raw_client(served.url) as client:
        await until(lambda: handler_class.handlers)
        closing = asyncio.ensure_future(close_all(served.application))
        assert await client.receive() is not None
        await client.send(client.frame(CLOSE, b"\x03\xe9"))
        await until(lambda: "closing" in served.calls)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not closing.done()
        handler_class.may_end.set()
        assert await closing == ClosedAll(1, 0)
        assert served.calls[-1] == ("close", 1001, None)
    handler_class.handlers.clear()


@pytest.mark.gen_test
@pytest.mark.parametrize("answers", [True, False])
async def test_close_all_does_not_wait_for_longer_than_its_timeout(answers: bool) -> None:
    """And tells of each connection how it ended though its `on_close` goes on."""
    handler_class = slow()
    async with Served(handler_class) as served, contextlib.AsyncExitStack() as stack:
        if answers:
            await stack.enter_async_context(connected(served.url))
        else:
            await stack.enter_async_context(raw_client(served.url))
        await until(lambda: handler_class.handlers)
        assert await close_all(served.application, timeout=0.3) == ClosedAll(int(answers), int(not answers))
        assert served.calls[-1] == "closing"
        handler_class.may_end.set()
        await until(lambda: served.calls[-1] != "closing")
    handler_class.handlers.clear()


# Hooks with a value


def kinds(value: Any) -> dict[str, Any]:
    """Return methods that answer with ``value``, later."""

    async def coroutine(self: Any, *args: Any) -> Any:
        return value

    def returned(self: Any, *args: Any) -> Any:
        return coroutine(self)

    def generator(self: Any, *args: Any) -> Any:
        yield value

    def returned_later(self: Any, *args: Any) -> Any:
        yield gen.moment
        return value

    async def asynchronous(self: Any, *args: Any) -> AsyncIterator[Any]:
        yield value

    def thread(self: Any, *args: Any) -> Any:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(value)
        return future

    return {
        "coroutine": coroutine,
        "returned": returned,
        "gen.coroutine": gen.coroutine(returned_later),
        "generator": generator,
        "async generator": asynchronous,
        "thread": thread,
    }


@pytest.mark.gen_test
@pytest.mark.parametrize("answer", [False, True])
@pytest.mark.parametrize("kind", kinds(None))
async def test_an_origin_is_refused_when_its_check_gives_no_answer(kind: str, answer: bool, log: Log) -> None:
    handler = type("Checked", (Echo,), {"check_origin": kinds(answer)[kind]})
    async with serving(handler) as url, raw_client(url, Origin=FOREIGN) as client:
        assert client.status == 403
    errors = [record.getMessage() for record in log.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "Checked.check_origin returned a" in errors[0]
    assert repr(FOREIGN) in errors[0]


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", kinds(None))
@pytest.mark.parametrize(
    ("hook", "value"),
    [
        ("select_subprotocol", None),
        ("get_compression_options", {}),
        ("get_websocket_protocol", None),
        ("ping_interval", 1),
        ("ping_timeout", 1),
        ("max_message_size", 1024),
        ("websocket_close_timeout", 1),
        ("websocket_write_limit", None),
    ],
)
async def test_a_hook_that_has_to_return_a_value_is_no_coroutine(hook: str, value: Any, kind: str, log: Log) -> None:
    method = kinds(value)[kind]
    is_method = hook.startswith(("select", "get"))
    handler = type("Hooked", (Echo,), {hook: method if is_method else property(method)})
    async with serving(handler) as url, raw_client(url, Sec_WebSocket_Protocol="a") as client:
        assert client.status == 500
    errors = [str(record.exc_info[1]) for record in log.records if record.exc_info]
    assert len(errors) == 1
    assert f"Hooked.{hook} returned a" in errors[0]


@pytest.mark.gen_test
async def test_a_client_whose_protocol_would_come_later_fails_to_connect() -> None:
    class Client(WebSocketClientConnection):
        async def get_websocket_protocol(self) -> WebSocketProtocol:  # type: ignore[override]
            raise NotImplementedError

    async with serving(Echo) as url:
        conn = Client(HTTPRequest(url))
        with pytest.raises(TypeError, match=r"Client\.get_websocket_protocol returned a coroutine"):
            await conn.connect_future


@pytest.mark.gen_test
async def test_a_client_runs_a_coroutine_on_connection_close() -> None:
    ended: list[str] = []

    class Client(WebSocketClientConnection):
        async def on_connection_close(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            super().on_connection_close()
            ended.append("on_connection_close")

    async with serving(Echo) as url:
        conn = Client(HTTPRequest(url))
        await conn.connect_future
        conn.close()
        await conn.wait_closed()
        assert ended == ["on_connection_close"]


@pytest.mark.gen_test
async def test_reconnect_refuses_a_coroutine_final() -> None:
    async def final(error: Exception) -> bool:
        return False

    def refused(_: Exception) -> Awaitable[bool]:
        return final(_)

    with pytest.raises(TypeError, match="final returned a coroutine"):
        async for _ in reconnect("ws://127.0.0.1:1", final=refused):  # type: ignore[arg-type]
            pass
