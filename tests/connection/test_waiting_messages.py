"""Messages that wait behind a coroutine ``on_message``: what it does in between counts for them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import itertools
from collections.abc import AsyncIterator
from ssl import SSLContext
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest

from tests.conftest import Tls
from tests.peer import RawPeer, Recording, raw_client
from tests.support import FOREVER, connected, run_loop_until, serving, until
from tests.wire import CLOSE, PING, PONG, TEXT, Frame, close_payload
from tornado_ws import WebSocketClosedError
from tornado_ws.connection import rest
from tornado_ws.engine.contract import ENOUGH_AHEAD
from tornado_ws.transport.stream import unread

#: More than reading rests behind.
MANY = 3 * ENOUGH_AHEAD


class Waiting(Recording):
    """Waits for a turn of the loop with each message, before or behind what a test does with the one that it names."""

    async def on_message(self, message: str | bytes) -> None:
        self.calls.append(message)
        self.at_once(str(message))
        await asyncio.sleep(0)
        self.later(str(message))
        with contextlib.suppress(WebSocketClosedError):
            await self.write_message(message)

    def at_once(self, message: str) -> None:
        """Called where the coroutine begins."""

    def later(self, message: str) -> None:
        """Called a turn later."""


@contextlib.asynccontextmanager
async def talking_to(
    handler: type[Recording], count: int = MANY, alone: int = 0
) -> AsyncIterator[tuple[RawPeer, list[Any]]]:
    """Send ``count`` messages, their numbers: the first ``alone`` one by one, the others in one segment."""
    calls: list[Any] = []
    async with serving(handler, calls=calls) as url, raw_client(url) as client:
        for number in range(alone):
            await client.send_frame(TEXT, b"%d" % number)
            await until(lambda text=str(number): text in calls)  # type: ignore[misc]
            for _ in range(10):
                await asyncio.sleep(0)
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(alone, count)])
        yield client, calls


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


@pytest.fixture(params=["at_once", "later"])
def step(request: pytest.FixtureRequest) -> str:
    """Which step of the coroutine a test acts in."""
    name: str = request.param
    return name


@pytest.fixture(params=[0, 3])
def alone(request: pytest.FixtureRequest) -> int:
    """How many messages come one by one: message 3 waits behind others, or comes first of some."""
    count: int = request.param
    return count


def acting(step: str, action: Any) -> type[Waiting]:
    """Return a handler that calls ``action`` with itself at message 3."""

    def act(self: Waiting, message: str) -> None:
        if message == "3":
            action(self)

    return type("Acting", (Waiting,), {step: act})


@pytest.mark.gen_test
async def test_reading_rests_and_goes_on() -> None:
    """A ping behind them is answered before the application goes on."""
    go_on = asyncio.Event()
    handlers: list[Any] = []

    class Held(Recording):
        async def on_message(self, message: str | bytes) -> None:
            handlers.append(self)
            self.calls.append(message)
            await go_on.wait()
            await self.write_message(message)

    async with talking_to(Held) as (client, calls):
        await until(lambda: handlers and not handlers[0].ws_connection._transport.reading)
        await client.send_frame(PING, b"a")
        assert await client.receive() == Frame(PONG, b"a")
        # And once more: what has come was read, and it rests again or not.
        await client.send(client.frame(TEXT, b"last"), client.frame(PING, b"b"))
        assert await client.receive() == Frame(PONG, b"b")
        assert calls == ["open", "0"]
        go_on.set()
        for text in (*numbers(MANY), "last"):
            assert await client.receive() == Frame(TEXT, text.encode())


@pytest.mark.gen_test
async def test_one_read_brings_what_has_come_while_it_rested(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client has many messages under way, and sends another one for each answer."""
    monkeypatch.setattr(rest, "MOST_SECONDS", FOREVER)
    rests: list[bool] = []

    class Noting(Waiting):
        def later(self, message: str) -> None:
            protocol: Any = self.ws_connection
            rests.append(not protocol._transport.reading)

    async with talking_to(Noting) as (client, _):
        for number in range(20 * MANY):
            assert await client.receive() == Frame(TEXT, b"%d" % number)
            await client.send_frame(TEXT, b"%d" % (MANY + number))
    begun = sum(rests and not before for before, rests in itertools.pairwise(rests))
    assert 0 < begun < len(rests) / 4


async def keep_many_under_way(server: SSLContext | None, client: SSLContext | None) -> None:
    """Send a message for each answer, while `MANY` are not answered."""
    async with (
        serving(Waiting, calls=[], ssl_options=server) as url,
        connected(HTTPRequest(url if client is None else url.replace("ws", "wss", 1), ssl_options=client)) as conn,
    ):
        for number in range(MANY):
            conn.write_message(str(number))
        for number in range(20 * MANY):
            assert await conn.read_message() == str(number)
            conn.write_message(str(MANY + number))


@pytest.mark.parametrize("over_tls", [False, True])
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_messages_that_come_while_others_wait_are_all_answered(kind: str, over_tls: bool, tls: Tls) -> None:
    # A record of TLS may hold several, which give no readiness of their own.
    run: Any = importlib.import_module(kind).run
    run(keep_many_under_way(tls.server, tls.client) if over_tls else keep_many_under_way(None, None))


@pytest.mark.gen_test
async def test_an_end_that_comes_while_reading_rests_is_seen() -> None:
    async with talking_to(Waiting) as (client, calls):
        await client.send_frame(CLOSE, close_payload(1000))
        received = await client.receive_rest()
        await until(lambda: len(calls) == MANY + 2)
    assert received == [*(Frame(TEXT, text.encode()) for text in numbers(MANY)), Frame(CLOSE, close_payload(1000))]
    assert calls == ["open", *numbers(MANY), ("close", 1000, None)]


@pytest.mark.gen_test
async def test_what_has_come_while_reading_rested_is_delivered_before_a_close_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rest, "MOST_SECONDS", FOREVER)
    go_on = asyncio.Event()
    protocols: list[Any] = []

    class Held(Recording):
        async def on_message(self, message: str | bytes) -> None:
            protocols.append(self.ws_connection)
            self.calls.append(message)
            await go_on.wait()

    async with talking_to(Held) as (client, calls):
        await until(lambda: protocols and not protocols[0]._transport.reading)
        await client.send_frame(TEXT, b"late")
        await until(lambda: unread(protocols[0].stream))
        protocols[0].close_when_handled(1001, None)
        go_on.set()
        assert await client.receive() == Frame(CLOSE, close_payload(1001))
        await client.send_frame(CLOSE, close_payload(1001))
        await until(lambda: calls[-1][0] == "close")
    assert calls[:-1] == ["open", *numbers(MANY), "late"]


@pytest.mark.gen_test
async def test_each_has_a_context_of_its_own() -> None:
    seen: list[str] = []
    variable = contextvars.ContextVar("variable", default="unset")

    class Setting(Waiting):
        def at_once(self, message: str) -> None:
            seen.append(variable.get())
            variable.set(message)

        def later(self, message: str) -> None:
            seen.append(variable.get())

    async with talking_to(Setting) as (client, _):
        for text in numbers(MANY):
            assert await client.receive() == Frame(TEXT, text.encode())
    assert seen == [value for text in numbers(MANY) for value in ("unset", text)]


@pytest.mark.gen_test
async def test_nothing_is_delivered_behind_an_error(step: str, alone: int) -> None:
    def fail(handler: Waiting) -> None:
        raise ValueError("of the test")

    async with talking_to(acting(step, fail), alone=alone) as (client, calls):
        assert await client.receive_rest() == [Frame(TEXT, text.encode()) for text in numbers(3)]
        await until(lambda: calls[-1][0] == "close")
    assert calls[:-1] == ["open", *numbers(4)]


@pytest.mark.gen_test
@pytest.mark.parametrize("late", [False, True])
async def test_nothing_is_delivered_to_who_has_given_the_peer_up(late: bool, alone: int) -> None:
    go_on = asyncio.Event()
    given_up: list[Any] = []

    class GivingUp(Recording):
        async def on_message(self, message: str | bytes) -> None:
            self.calls.append(message)
            await asyncio.sleep(0)
            if message == "3":
                protocol: Any = self.ws_connection
                protocol.client_terminated = True
                given_up.append(protocol)
                await go_on.wait()

    # So few that reading does not rest.
    async with talking_to(GivingUp, ENOUGH_AHEAD, alone) as (client, calls):
        await until(lambda: given_up)
        if late:
            await client.send_frame(TEXT, b"late")
            await until(lambda: not given_up[0]._transport.reading)
        go_on.set()
        await until(lambda: given_up[0]._delivery.busy_with is None)
        given_up[0].close()
        assert await client.receive_rest() == [Frame(CLOSE)]
        await until(lambda: calls[-1][0] == "close")
    assert calls[:-1] == ["open", *numbers(4)]


@pytest.mark.gen_test
async def test_all_is_delivered_to_who_has_closed(step: str, alone: int) -> None:
    async with talking_to(acting(step, lambda handler: handler.close(1000)), alone=alone) as (client, calls):
        for text in numbers(3):
            assert await client.receive() == Frame(TEXT, text.encode())
        assert await client.receive() == Frame(CLOSE, close_payload(1000))
        await until(lambda: len(calls) == MANY + 1)
        await client.send_frame(CLOSE, close_payload(1000))
        await until(lambda: len(calls) == MANY + 2)
    assert calls == ["open", *numbers(MANY), ("close", 1000, None)]


@pytest.mark.gen_test
async def test_what_replaces_the_steps_gets_the_next(step: str, alone: int) -> None:
    seen: list[bytes] = []

    def replace(handler: Waiting) -> None:
        protocol: Any = handler.ws_connection
        handle = protocol._handle_message

        def handle_and_note(opcode: int, data: bytes) -> Any:
            seen.append(data)
            return handle(opcode, data)

        protocol._handle_message = handle_and_note

    # So few that reading does not rest.
    async with talking_to(acting(step, replace), ENOUGH_AHEAD, alone) as (client, _):
        for text in numbers(ENOUGH_AHEAD):
            assert await client.receive() == Frame(TEXT, text.encode())
    assert seen == [text.encode() for text in numbers(ENOUGH_AHEAD)[4:]]


@pytest.mark.gen_test
async def test_pings_between_them_are_answered(step: str) -> None:
    async with talking_to(Waiting) as (client, _):
        await client.send(client.frame(PING, b"a"), client.frame(TEXT, b"%d" % MANY), client.frame(PING, b"b"))
        received = [await client.receive() for _ in range(MANY + 3)]
    assert [frame for frame in received if frame is not None and frame.opcode == PONG] == [
        Frame(PONG, b"a"),
        Frame(PONG, b"b"),
    ]
    texts = [frame for frame in received if frame is not None and frame.opcode == TEXT]
    assert texts == [Frame(TEXT, text.encode()) for text in numbers(MANY + 1)]


# So few messages that reading does not rest.
@pytest.mark.gen_test
async def test_a_loop_inside_one_of_them_gets_the_next() -> None:
    def wait_for_next(handler: Waiting) -> None:
        client.sock.send(client.frame(TEXT, b"inner"))
        run_loop_until(lambda: "inner" in handler.calls)
        handler.calls.append("nested")

    async with talking_to(acting("at_once", wait_for_next), 4) as (client, calls):
        for text in numbers(3):
            assert await client.receive() == Frame(TEXT, text.encode())
        assert {await client.receive(), await client.receive()} == {Frame(TEXT, b"3"), Frame(TEXT, b"inner")}
    assert calls[:7] == ["open", *numbers(4), "inner", "nested"]


@pytest.mark.gen_test
async def test_messages_wait_behind_one_that_has_run_a_loop() -> None:
    go_on = asyncio.Event()

    class Nested(Recording):
        async def on_message(self, message: str | bytes) -> None:
            self.calls.append(message)
            if message == "3":
                client.sock.send(client.frame(TEXT, b"inner"))
                run_loop_until(lambda: "inner" in self.calls)
                client.sock.send(client.frame(TEXT, b"late") + client.frame(PING, b"late"))
                await go_on.wait()
            elif message != "inner":
                await asyncio.sleep(0)

    async with talking_to(Nested, 4) as (client, calls):
        assert await client.receive() == Frame(PONG, b"late")
        assert calls == ["open", *numbers(4), "inner"]
        go_on.set()
        await until(lambda: calls[-1] == "late")


@pytest.mark.gen_test
async def test_those_that_threads_inflate_keep_the_order() -> None:
    texts = [text * (1000 if number % 3 else 1) for number, text in enumerate(numbers(MANY))]

    class Inflating(Waiting):
        def get_compression_options(self) -> dict[str, Any]:
            return {"offload_size": 1000}

    calls: list[Any] = []
    async with (
        serving(Inflating, calls=calls) as url,
        connected(url, compression_options={"offload_size": 1000}) as conn,
    ):
        for text in texts:
            conn.write_message(text)
        for text in texts:
            assert await conn.read_message() == text


@pytest.mark.gen_test
async def test_the_cancelled_task_of_the_connection_ends_it(step: str, alone: int) -> None:
    def cancel(handler: Waiting) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async with talking_to(acting(step, cancel), alone=alone) as (client, calls):
        assert (await client.receive_rest())[:3] == [Frame(TEXT, text.encode()) for text in numbers(3)]
        await until(lambda: calls[-1][0] == "close")
    assert calls[:5] == ["open", *numbers(4)]
