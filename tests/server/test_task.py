"""The task of a connection: all callbacks run in it, and coroutines that wait go on in it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import select
import sys
import threading
import weakref
from asyncio import tasks
from collections.abc import Generator
from typing import Any

import pytest
from tornado import gen

from tests.conftest import Log
from tests.peer import RawPeer, end, raw_client
from tests.support import PATIENCE, Echo, connected, serving, until
from tests.wire import PING, PONG, TEXT, Frame
from tornado_ws import WebSocketHandler, websocket_connect

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")


class Tasks(WebSocketHandler):
    """Writes down which task each callback runs in; as a coroutine, before and after it has waited."""

    def initialize(self, calls: list[tuple[str, asyncio.Task[Any] | None]]) -> None:
        self.calls = calls

    def note(self, where: str) -> None:
        self.calls.append((where, asyncio.current_task()))

    def open(self) -> Any:
        self.note("open")

    def on_message(self, message: str | bytes) -> Any:
        self.note("on_message")

    def on_ping(self, data: bytes) -> None:
        self.note("on_ping")

    def on_pong(self, data: bytes) -> None:
        self.note("on_pong")

    def on_close(self) -> Any:
        self.note("on_close")


class TasksOfCoroutines(Tasks):
    async def open(self) -> None:
        super().open()
        await asyncio.sleep(0)
        self.note("open")

    async def on_message(self, message: str | bytes) -> None:
        super().on_message(message)
        await asyncio.sleep(0)
        self.note("on_message")

    async def on_close(self) -> None:
        super().on_close()
        await asyncio.sleep(0)
        self.note("on_close")


@pytest.mark.gen_test
@pytest.mark.parametrize("handler_class", [Tasks, TasksOfCoroutines])
async def test_all_callbacks_of_one_connection_run_in_one_task(handler_class: type[Tasks]) -> None:
    calls: list[tuple[str, asyncio.Task[Any] | None]] = []
    connections = []
    async with serving(handler_class, calls=calls) as url:
        for _ in range(2):
            async with raw_client(url) as client:
                frames = [(TEXT, b"1"), (PING, b""), (PONG, b""), (TEXT, b"2")]
                await client.send(*(client.frame(*frame) for frame in frames))
                assert await client.receive() == Frame(PONG)
                await end(client)
            twice = 1 if handler_class is Tasks else 2
            await until(lambda twice=twice: [name for name, _ in calls].count("on_close") == twice)  # type: ignore[misc]
            assert {name for name, _ in calls} == {"open", "on_message", "on_ping", "on_pong", "on_close"}
            assert len(calls) == 2 + 4 * twice
            assert len({task for _, task in calls}) == 1
            connections.append(calls[0][1])
            calls.clear()
    assert None not in connections
    assert connections[0] is not connections[1]


@pytest.mark.gen_test
async def test_one_connection_s_callback_inside_another_s_runs_in_its_own_task() -> None:
    """`on_close` of one is called by what another does, and the other goes on in its own task."""
    calls: list[tuple[str, asyncio.Task[Any] | None]] = []
    handlers: list[WebSocketHandler] = []

    class Closing(Tasks):
        def open(self) -> None:
            handlers.append(self)
            super().open()

        def on_message(self, message: str | bytes) -> None:
            self.note("on_message")
            connection = handlers[0].ws_connection
            assert connection is not None
            connection._attach().dispatch(handlers[0].on_ping, b"")  # type: ignore[attr-defined]
            self.note("on_message")

    async with serving(Closing, calls=calls) as url, raw_client(url) as first, raw_client(url) as second:
        await until(lambda: len(calls) == 2)
        await second.send_frame(TEXT, b"x")
        await until(lambda: len(calls) == 5)
        (_, one), (_, two) = calls[:2]
        assert calls[2:] == [("on_message", two), ("on_ping", one), ("on_message", two)]
        await end(first)
        await end(second)
    handlers.clear()


@pytest.mark.gen_test
async def test_a_coroutine_that_does_not_wait_costs_no_turn_and_no_task() -> None:
    seen: list[Any] = []

    class Quick(Echo):
        async def on_message(self, message: str | bytes) -> None:
            if not seen:
                asyncio.get_running_loop().call_soon(seen.append, "turn")
            seen.append(message)
            seen.append(len(asyncio.all_tasks()))
            await self.write_message(message)

    async with serving(Quick) as url, raw_client(url) as client:
        await client.send(*(client.frame(TEXT, b"%d" % number) for number in range(3)))
        for number in range(3):
            assert await client.receive() == Frame(TEXT, b"%d" % number)
        await end(client)
    assert seen[::2] == ["0", "1", "2", "turn"]
    assert len(set(seen[1::2])) == 1


@pytest.mark.gen_test
async def test_messages_wait_for_a_coroutine_that_waits() -> None:
    order: list[str] = []
    may_go_on = asyncio.Event()

    class Slow(Echo):
        async def on_message(self, message: str | bytes) -> None:
            order.append(f"begin {message!r}")
            await may_go_on.wait()
            await asyncio.sleep(0)
            order.append(f"end {message!r}")
            await self.write_message(message)

    async with serving(Slow) as url, raw_client(url) as client:
        await client.send(*(client.frame(TEXT, b"%d" % number) for number in range(3)))
        await until(lambda: order)
        assert order == ["begin '0'"]
        may_go_on.set()
        for number in range(3):
            assert await client.receive() == Frame(TEXT, b"%d" % number)
        await end(client)
    assert order == [f"{what} '{number}'" for number in range(3) for what in ("begin", "end")]


# Context variables


@pytest.mark.gen_test
async def test_a_token_of_open_is_good_in_on_close() -> None:
    done: list[str] = []

    class Tokens(Echo):
        def open(self) -> None:
            self.token = variable.set("of open")

        def on_message(self, message: str | bytes) -> None:
            self.inner = variable.set("of on_message")

        def on_close(self) -> None:
            assert variable.get() == "of on_message"
            variable.reset(self.inner)
            assert variable.get() == "of open"
            variable.reset(self.token)
            done.append("reset")

    async with serving(Tokens) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        await end(client)
        await until(lambda: done)
    assert variable.get(None) is None


@pytest.mark.gen_test
async def test_what_a_coroutine_sets_is_its_own() -> None:
    """As in Tornado, where each has a task."""
    seen: list[Any] = []

    class Setting(Echo):
        async def on_message(self, message: str | bytes) -> None:
            seen.append(variable.get(None))
            variable.set(message)
            await asyncio.sleep(0)
            seen.append(variable.get(None))
            # What it begins sees it too.
            seen.append(await asyncio.create_task(self.read()))

        async def read(self) -> Any:
            return variable.get(None)

    async with serving(Setting) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"))
        await until(lambda: len(seen) == 6)
        await end(client)
    assert seen == [None, "1", "1", None, "2", "2"]


# Cancelling


async def task_of(calls: list[Any]) -> asyncio.Task[Any]:
    await until(lambda: calls)
    task = calls[0][1]
    assert isinstance(task, asyncio.Task)
    return task


@pytest.mark.gen_test
@pytest.mark.parametrize("handler_class", [Tasks, TasksOfCoroutines])
async def test_cancelling_the_task_of_an_idle_connection_closes_it(handler_class: type[Tasks]) -> None:
    calls: list[Any] = []
    async with serving(handler_class, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        task = await task_of(calls)
        # Long enough for it to be idle.
        await until(lambda: len(calls) >= (2 if handler_class is Tasks else 4))
        await asyncio.sleep(0)
        task.cancel()
        assert await client.receive() is None
        await until(task.done)
    assert calls[-1] == ("on_close", task)
    assert not task.cancelled()


@pytest.mark.gen_test
@pytest.mark.parametrize("times", [1, 2])
async def test_cancelling_reaches_a_coroutine_that_waits(times: int) -> None:
    calls: list[Any] = []

    class Waiting(Tasks):
        async def on_message(self, message: str | bytes) -> None:
            try:
                self.note("begin")
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.note("cancelled")
                raise

    async with serving(Waiting, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        task = await task_of(calls)
        await until(lambda: len(calls) == 2)
        for _ in range(times):
            task.cancel()
        assert await client.receive() is None
        await until(lambda: calls[-1][0] == "on_close" and task.done())
    assert [name for name, _ in calls] == ["open", "begin", "cancelled", "on_close"]


@pytest.mark.gen_test
async def test_a_coroutine_that_swallows_the_cancelling_goes_on() -> None:
    calls: list[Any] = []

    class Stubborn(Tasks):
        async def on_message(self, message: str | bytes) -> None:
            self.note("begin")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await self.write_message("still here")

    async with serving(Stubborn, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        task = await task_of(calls)
        await until(lambda: len(calls) == 2)
        task.cancel()
        assert await client.receive() == Frame(TEXT, b"still here")
        await end(client)
        await until(task.done)


@pytest.mark.gen_test
@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
async def test_a_timeout_and_a_group_of_tasks_cancel_the_coroutine_only() -> None:
    calls: list[Any] = []

    class Bounded(Tasks):
        async def on_message(self, message: str | bytes) -> None:
            if message == "timeout":
                try:
                    async with asyncio.timeout(0.001):  # type: ignore[attr-defined]
                        await asyncio.Event().wait()
                except TimeoutError:
                    await self.write_message("late")
            else:
                try:
                    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]
                        group.create_task(self.fail())
                        await asyncio.Event().wait()
                except Exception as error:
                    await self.write_message(type(error.exceptions[0]).__name__)  # type: ignore[attr-defined]

        async def fail(self) -> None:
            raise ZeroDivisionError

    async with serving(Bounded, calls=calls) as url, raw_client(url) as client:
        for _ in range(2):
            await client.send_frame(TEXT, b"timeout")
            assert await client.receive() == Frame(TEXT, b"late")
            await client.send_frame(TEXT, b"group")
            assert await client.receive() == Frame(TEXT, b"ZeroDivisionError")
        task = await task_of(calls)
        assert task.cancelling() == 0  # type: ignore[attr-defined]
        await end(client)


@pytest.mark.gen_test
async def test_a_coroutine_that_cancels_its_own_task_before_it_waits() -> None:
    calls: list[Any] = []

    class Own(Tasks):
        async def on_message(self, message: str | bytes) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.note("cancelled")
                raise

    async with serving(Own, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert await client.receive() is None
        await until(lambda: calls[-1][0] == "on_close")
    assert [name for name, _ in calls] == ["open", "cancelled", "on_close"]


@pytest.mark.gen_test
@pytest.mark.parametrize("waits", [False, True])
async def test_a_coroutine_that_takes_its_cancelling_back_before_it_waits(waits: bool) -> None:
    """As a TaskGroup does where one of its tasks fails at once, under an eager task factory."""
    # Before, what was cancelled stayed so.
    messages = 2 if sys.version_info >= (3, 13) else 0
    calls: list[Any] = []

    class Own(Tasks):
        async def on_message(self, message: str | bytes) -> None:
            self.note("begin")
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if messages:
                task.uncancel()  # type: ignore[attr-defined]
            if waits:
                await asyncio.sleep(0)
            await self.write_message(message)

    async with serving(Own, calls=calls) as url, raw_client(url) as client:
        for number in range(messages):
            await client.send_frame(TEXT, b"%d" % number)
            assert await client.receive() == Frame(TEXT, b"%d" % number)
        if messages:
            await end(client)
        else:
            await client.send_frame(TEXT, b"0")
        await until(calls[0][1].done)
    assert [name for name, _ in calls] == ["open", *["begin"] * max(messages, 1), "on_close"]
    assert len({task for _, task in calls}) == 1


def test_the_end_of_the_loop_closes_connections_in_their_tasks() -> None:
    calls: list[Any] = []

    async def serve() -> None:
        async with serving(Tasks, calls=calls) as url, raw_client(url):
            await until(lambda: calls)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(serve())
    assert [name for name, _ in calls] == ["open", "on_close"]
    assert calls[0][1] is calls[1][1]
    assert calls[0][1].done()


@pytest.mark.parametrize("cleans_up", [False, True])
def test_the_end_of_the_loop_ends_a_connection_whose_coroutine_swallows_the_cancelling(cleans_up: bool) -> None:
    """In Tornado the coroutine has a task of its own, and the connection's is cancelled as well."""
    calls: list[Any] = []

    class Swallowing(Tasks):
        async def on_message(self, message: str | bytes) -> None:
            self.note(str(message))
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if cleans_up:
                await asyncio.sleep(0)
            self.note("swallowed")

    async def serve() -> None:
        async with serving(Swallowing, calls=calls) as url, raw_client(url) as client:
            for text in (b"1", b"2"):
                await client.send_frame(TEXT, text)
            await until(lambda: len(calls) == 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(serve())
    assert [name for name, _ in calls] == ["open", "1", "swallowed", "on_close"]


@pytest.mark.gen_test
@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
async def test_a_timeout_inside_a_coroutine_ends_no_connection_that_somebody_gathers() -> None:
    tasks_of_connections: list[Any] = []

    class TimingOut(WebSocketHandler):
        async def on_message(self, message: str | bytes) -> None:
            tasks_of_connections.append(asyncio.current_task())
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(0.001):  # type: ignore[attr-defined]
                    await asyncio.Event().wait()
            await self.write_message(message)

    async with serving(TimingOut) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"1")
        await until(lambda: tasks_of_connections)
        gathered = asyncio.gather(*tasks_of_connections)
        for text in (b"1", b"2"):
            assert await client.receive() == Frame(TEXT, text)
            if text == b"1":
                await client.send_frame(TEXT, b"2")
        await end(client)
        await gathered


@pytest.mark.parametrize("old", [False, True], ids=["Future", "gen.coroutine"])
def test_the_end_of_the_loop_waits_for_nothing_that_it_does_not_end(old: bool) -> None:
    calls: list[Any] = []

    class Waiting(Tasks):
        def on_message(self, message: str | bytes) -> Any:
            super().on_message(message)
            return self.wait() if old else asyncio.get_running_loop().create_future()

        @gen.coroutine
        def wait(self) -> Generator[Any, Any, None]:
            yield asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with serving(Waiting, calls=calls) as url, raw_client(url) as client:
            await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"))
            await until(lambda: len(calls) == 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(serve())
    assert [name for name, _ in calls] == ["open", "on_message", "on_close"]
    assert len({task for _, task in calls}) == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("fails", [False, True])
async def test_a_future_that_ends_when_its_connection_was_cancelled_and_has_ended(fails: bool, log: Log) -> None:
    calls: list[Any] = []
    futures: list[asyncio.Future[None]] = []

    class Waiting(Tasks):
        def on_message(self, message: str | bytes) -> Any:
            super().on_message(message)
            futures.append(asyncio.get_running_loop().create_future())
            return futures[0]

    async with serving(Waiting, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"))
        await until(lambda: len(calls) == 2)
        task = calls[0][1]
        task.cancel()
        assert await client.receive() is None
        await until(task.done)
        if fails:
            futures[0].set_exception(ZeroDivisionError())
        else:
            futures[0].set_result(None)
        await until(lambda: len(log.records) == fails)
        for _ in range(10):
            await asyncio.sleep(0)
    assert [name for name, _ in calls] == ["open", "on_message", "on_close"]
    assert len(log.records) == fails


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_on_close_that_ends_the_program(error: type[BaseException]) -> None:
    """The loop waits for its tasks, the connection's among them."""
    calls: list[Any] = []

    class Exiting(Tasks):
        def on_close(self) -> None:
            super().on_close()
            raise error

    async def serve() -> None:
        async with serving(Exiting, calls=calls) as url, raw_client(url) as client:
            await end(client)
            await asyncio.Event().wait()

    with pytest.raises(error):
        asyncio.run(serve())
    assert [name for name, _ in calls] == ["open", "on_close"]
    assert calls[0][1].done()


# What a coroutine may wait for


@pytest.mark.gen_test
async def test_two_connections_wait_for_one_future() -> None:
    """A Future has one flag by which it says that it was awaited."""
    future: list[asyncio.Future[str]] = []

    class Sharing(Echo):
        async def on_message(self, message: str | bytes) -> None:
            await self.write_message(await future[0])

    async with serving(Sharing) as url, raw_client(url) as first, raw_client(url) as second:
        future.append(asyncio.get_running_loop().create_future())
        await first.send_frame(TEXT, b"x")
        await second.send_frame(TEXT, b"x")
        await until(lambda: len(future[0]._callbacks or ()) == 2)
        future[0].set_result("answer")
        assert await first.receive() == Frame(TEXT, b"answer")
        assert await second.receive() == Frame(TEXT, b"answer")
        await end(first)
        await end(second)


class Wrong:
    def __await__(self) -> Generator[Any, None, None]:
        yield 42


@pytest.mark.gen_test
@pytest.mark.parametrize("first", [False, True])
async def test_a_coroutine_that_waits_for_nothing_of_asyncio_fails(first: bool, log: Log) -> None:
    class Failing(Echo):
        async def on_message(self, message: str | bytes) -> None:
            if not first:
                await asyncio.sleep(0)
            await Wrong()

    async with serving(Failing) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert await client.receive() is None
        await until(lambda: log.records)
    assert len(log.records) == 1
    assert log.records[0].exc_info is not None
    assert "42" in str(log.records[0].exc_info[1])


@pytest.mark.gen_test
@pytest.mark.parametrize("first", [False, True])
async def test_a_failed_future_is_raised_in_the_coroutine(first: bool) -> None:
    class Catching(Echo):
        async def on_message(self, message: str | bytes) -> None:
            if not first:
                await asyncio.sleep(0)
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            loop.call_soon(future.set_exception, ZeroDivisionError())
            try:
                await future
            except ZeroDivisionError:
                await self.write_message("caught")

    async with serving(Catching) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert await client.receive() == Frame(TEXT, b"caught")
        await end(client)


@pytest.mark.gen_test
@pytest.mark.parametrize("fails", [False, True])
async def test_a_future_of_a_thread_is_waited_for_without_leaving_the_connection_s_own(fails: bool, log: Log) -> None:
    """It calls who waits for it in the thread that ends it."""
    calls: list[tuple[str, asyncio.Task[Any] | None]] = []
    threads: list[int] = []
    futures: list[concurrent.futures.Future[None]] = []

    class Waiting(Tasks):
        def on_message(self, message: str | bytes) -> Any:
            super().on_message(message)
            threads.append(threading.get_ident())
            if len(futures) == 1:
                return None
            futures.append(concurrent.futures.Future())
            return futures[0]

        def on_close(self) -> None:
            super().on_close()
            threads.append(threading.get_ident())

    async with serving(Waiting, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"1"), client.frame(TEXT, b"2"), client.frame(PING))
        assert await client.receive() == Frame(PONG)
        assert len(futures) == 1
        tell, told = (futures[0].set_exception, ZeroDivisionError()) if fails else (futures[0].set_result, None)
        thread = threading.Thread(target=tell, args=(told,))
        thread.start()
        thread.join()
        await until(lambda: len(threads) == 2)
        if fails:
            assert await client.receive() is None
        else:
            await end(client)
            await until(lambda: len(threads) == 3)
    assert len(log.records) == fails
    assert set(threads) == {threading.get_ident()}
    assert len({task for _, task in calls}) == 1


@pytest.mark.gen_test
async def test_one_connection_s_coroutine_reads_another_connection() -> None:
    """A proxy: what it awaits is handed over inside the call that brings the message."""

    class Proxy(Echo):
        async def open(self) -> None:
            self.conn = await self.settings["connect"]()

        async def on_message(self, message: str | bytes) -> None:
            for _ in range(3):
                await self.conn.write_message(message)
                answer = await self.conn.read_message()
                assert answer is not None
                await self.write_message(answer)

        def on_close(self) -> None:
            self.conn.close()

    async with (
        serving(Echo) as upstream,
        serving(Proxy, connect=lambda: websocket_connect(upstream)) as url,
        connected(url) as conn,
    ):
        for number in range(20):
            await conn.write_message(f"{number}")
            for _ in range(3):
                assert await conn.read_message() == f"{number}"


@pytest.mark.gen_test
async def test_pings_are_answered_while_a_coroutine_waits() -> None:
    calls: list[Any] = []
    may_go_on = asyncio.Event()

    class Waiting(Tasks):
        async def on_message(self, message: str | bytes) -> None:
            self.note("begin")
            await may_go_on.wait()
            self.note("end")

        async def on_ping(self, data: bytes) -> None:  # type: ignore[override]
            self.note("on_ping")
            await asyncio.sleep(0)
            self.note("after")

    async with serving(Waiting, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(TEXT, b"x"), client.frame(PING, b"1"), client.frame(PING, b"2"))
        assert await client.receive() == Frame(PONG, b"1")
        assert await client.receive() == Frame(PONG, b"2")
        await until(lambda: [name for name, _ in calls].count("after") == 2)
        assert calls[-1][0] == "after"
        may_go_on.set()
        await end(client)
        await until(lambda: calls[-1][0] == "on_close")
    assert calls[1][1] is calls[-1][1] is calls[-2][1]


@pytest.mark.gen_test
async def test_an_on_ping_that_hangs_does_not_take_the_task() -> None:
    calls: list[Any] = []

    class Hanging(TasksOfCoroutines):
        async def on_ping(self, data: bytes) -> None:  # type: ignore[override]
            self.note("on_ping")
            await asyncio.Event().wait()

    async with serving(Hanging, calls=calls) as url, raw_client(url) as client:
        await client.send(client.frame(PING), client.frame(TEXT, b"x"))
        assert await client.receive() == Frame(PONG)
        await until(lambda: [name for name, _ in calls].count("on_message") == 2)
        assert len({task for name, task in calls if name != "on_ping"}) == 1
        await end(client)
        await until(lambda: len(calls) == 7)
        for task in asyncio.all_tasks():
            if "Hanging.on_ping" in repr(task):
                task.cancel()


def send_second(client: RawPeer, may_send: threading.Event) -> threading.Thread:
    """Send another message when it may be sent: from a thread, since a callback keeps the loop then."""

    def send() -> None:
        may_send.wait(PATIENCE)
        client.sock.send(client.frame(TEXT, b"second"))

    sending = threading.Thread(target=send)
    sending.start()
    return sending


def with_second(handler: WebSocketHandler, may_send: threading.Event) -> Any:
    """Have the other message sent, and return the transport when it has come."""
    assert handler.ws_connection is not None
    transport = handler.ws_connection._attach()  # type: ignore[attr-defined]
    may_send.set()
    select.select([transport.fd], [], [], PATIENCE)
    return transport


@pytest.mark.gen_test
@pytest.mark.parametrize("current", [True, False])
async def test_a_message_that_comes_while_a_coroutine_takes_its_first_step(current: bool) -> None:
    """As with nest_asyncio, which runs the loop inside a callback, and knows no current task meanwhile."""
    answers: list[asyncio.Future[str]] = []
    may_send = threading.Event()

    class Nested(Echo):
        async def on_message(self, message: str | bytes) -> None:
            if message == "first":
                loop, task = asyncio.get_running_loop(), asyncio.current_task()
                assert task is not None
                if not current:
                    tasks._leave_task(loop, task)
                transport = with_second(self, may_send)
                transport.handle_events()
                if not current:
                    tasks._enter_task(loop, task)
            await self.write_message(f"{message!r} {await answers[0]}")

    async with serving(Nested) as url, raw_client(url) as client:
        answers.append(asyncio.get_running_loop().create_future())

        held = send_second(client, may_send)
        await client.send_frame(TEXT, b"first")
        await until(lambda: len(answers[0]._callbacks or ()) == 2)
        held.join()
        answers[0].set_result("answered")
        messages = {(await client.receive()).payload for _ in range(2)}  # type: ignore[union-attr]
        assert messages == {b"'first' answered", b"'second' answered"}
        await end(client)


@pytest.mark.gen_test
async def test_the_task_is_woken_by_a_loop_inside_a_callback() -> None:
    """As with nest_asyncio: the second message is answered while the first one's callback runs the loop."""
    future: list[asyncio.Future[None]] = []
    order: list[str] = []
    may_send = threading.Event()

    class Nested(Echo):
        async def on_message(self, message: str | bytes) -> None:
            order.append(f"begin {message!r}")
            if message == "first":
                loop: Any = asyncio.get_running_loop()
                task = asyncio.current_task()
                assert task is not None
                transport = with_second(self, may_send)
                tasks._leave_task(loop, task)
                transport.handle_events()
                future[0].set_result(None)
                for _ in range(5):
                    loop._run_once()
                tasks._enter_task(loop, task)
            else:
                await future[0]
            order.append(f"end {message!r}")

    async with serving(Nested) as url, raw_client(url) as client:
        future.append(asyncio.get_running_loop().create_future())

        held = send_second(client, may_send)
        await client.send_frame(TEXT, b"first")
        await until(lambda: len(order) == 4)
        held.join()
        assert order == ["begin 'first'", "begin 'second'", "end 'second'", "end 'first'"]
        await end(client)


@pytest.mark.gen_test
async def test_what_prepare_and_a_coroutine_open_set_is_visible_in_messages() -> None:
    other: contextvars.ContextVar[str] = contextvars.ContextVar("other")

    class Setting(Echo):
        def prepare(self) -> None:
            variable.set("of prepare")

        async def open(self) -> None:
            await asyncio.sleep(0)
            other.set("of open")

        def on_message(self, message: str | bytes) -> None:
            self.write_message(f"{variable.get()}, {other.get()}")

    async with serving(Setting) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert await client.receive() == Frame(TEXT, b"of prepare, of open")
        await end(client)


# Without memory


class WithoutMemory(asyncio.Future[None]):
    """One whose end nobody can be told of: there is no memory to remember whom."""

    def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
        raise MemoryError


@pytest.mark.gen_test
async def test_a_coroutine_is_told_that_the_task_cannot_wait_for_it(log: Log) -> None:
    class Waiting(Echo):
        async def on_message(self, message: str | bytes) -> None:
            try:
                await WithoutMemory()
            except MemoryError:
                await asyncio.sleep(0)
                self.write_message("no memory")

    before = asyncio.all_tasks()
    async with serving(Waiting) as url, raw_client(url) as client:
        for _ in range(2):
            await client.send_frame(TEXT, b"x")
            assert await client.receive() == Frame(TEXT, b"no memory")
        await end(client)
        await until(lambda: asyncio.all_tasks() == before)
    assert not log.records


@pytest.mark.gen_test
async def test_a_task_that_cannot_be_entered_again_is_entered_for_the_next_message(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[Any] = []
    calls: list[Any] = []
    enter = tasks._enter_task

    def enter_once(loop: Any, task: Any) -> None:
        entered.append(task)
        if len(entered) == 2:
            raise MemoryError
        enter(loop, task)

    before = asyncio.all_tasks()
    async with serving(TasksOfCoroutines, calls=calls) as url, raw_client(url) as client:
        await until(lambda: len(calls) == 2)
        with monkeypatch.context() as patches:
            patches.setattr(tasks, "_enter_task", enter_once)
            await client.send_frame(TEXT, b"x")
            await until(lambda: len(calls) == 4)
        await client.send_frame(TEXT, b"x")
        await until(lambda: len(calls) == 6)
        await end(client)
        await until(lambda: asyncio.all_tasks() == before)
    assert len(entered) == 2
    assert not log.records
    assert len({task for _, task in calls}) == 1


class Ending:
    """What is awaited as ``coroutine``, up to when the task is stepped where there is no memory for that."""

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine
        self.has_memory = True

    def __await__(self) -> Generator[Any, Any, None]:
        while self.has_memory:
            try:
                waits_for = self._coroutine.send(None)
            except StopIteration:
                return
            yield waits_for
        raise MemoryError


@pytest.mark.gen_test
async def test_a_coroutine_goes_on_without_the_task_that_has_ended() -> None:
    order: list[str] = []
    ending: list[Ending] = []

    class Deserted(Echo):
        async def get(self, *args: Any, **kwargs: Any) -> None:
            ending.append(Ending(super().get(*args, **kwargs)))
            await ending[0]

        def log_exception(self, *args: Any) -> None:
            order.append("ended")

        async def on_message(self, message: str | bytes) -> None:
            order.append("begin")
            await asyncio.sleep(0)
            order.append("end")
            await super().on_message(message)

    before = asyncio.all_tasks()
    async with serving(Deserted) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert await client.receive() == Frame(TEXT, b"x")
        ending[0].has_memory = False
        await client.send_frame(TEXT, b"x")
        await until(lambda: len(order) == 5)
        assert order == ["begin", "end", "begin", "ended", "end"]
        client.sock.close()
        await until(lambda: asyncio.all_tasks() == before)


class Lacking:
    """What is awaited as ``coroutine``, and is thrown a lack of memory where the task is cancelled."""

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._coroutine.send(None)
        with contextlib.suppress(StopIteration):
            while True:
                try:
                    yield waits_for
                except asyncio.CancelledError:
                    waits_for = self._coroutine.throw(MemoryError())
                else:
                    waits_for = self._coroutine.send(None)


@pytest.mark.gen_test
async def test_a_lack_of_memory_between_two_coroutines_does_not_end_the_task() -> None:
    calls: list[Any] = []

    class Idle(TasksOfCoroutines):
        async def get(self, *args: Any, **kwargs: Any) -> None:
            await Lacking(super().get(*args, **kwargs))

    before = asyncio.all_tasks()
    async with serving(Idle, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        await until(lambda: len(calls) == 4)
        assert calls[0][1].cancel()
        await asyncio.sleep(0)
        await client.send_frame(TEXT, b"x")
        await until(lambda: len(calls) == 6)
        await end(client)
        await until(lambda: asyncio.all_tasks() == before)
    assert len({task for _, task in calls}) == 1


@pytest.mark.gen_test
async def test_a_task_that_cannot_be_woken_is_woken_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    before = asyncio.all_tasks()
    async with serving(Tasks, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        await until(lambda: len(calls) == 2)
        task = calls[0][1]
        with monkeypatch.context() as patches:
            patches.setattr(asyncio.get_running_loop(), "call_soon", fail)
            with pytest.raises(MemoryError):
                task.cancel()
        task.cancel()
        assert await client.receive() is None
        await until(lambda: asyncio.all_tasks() == before)
    assert [where for where, _ in calls] == ["open", "on_message", "on_close"]


@pytest.mark.gen_test
async def test_a_request_whose_prepare_waits_for_what_nobody_else_has_is_kept() -> None:
    """A loop has only weak references to its tasks."""
    waiting: list[weakref.ref[asyncio.Future[None]]] = []

    class Handler(Echo):
        async def prepare(self) -> None:
            future = asyncio.get_running_loop().create_future()
            waiting.append(weakref.ref(future))
            await future

    async with serving(Handler) as url:
        opening = asyncio.ensure_future(websocket_connect(url))
        await until(lambda: waiting)
        gc.collect()
        future = waiting[0]()
        assert future is not None
        future.set_result(None)
        async with await opening as conn:
            conn.write_message("hello")
            assert await conn.read_message() == "hello"
