"""``error_close_code``: the close frame after an exception in a callback, in the place of none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Log
from tests.peer import Recording, raw_client, raw_pair
from tests.support import connected, serving, until
from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, Frame, close_payload

pytestmark = pytest.mark.gen_test

CLOSED = ("close", 1011, None)
FRAMES = [Frame(TEXT, b"before"), Frame(CLOSE, close_payload(1011))]


class Broken(Exception):
    pass


class Raising(Recording):
    """Writes a message and raises, in the callback that a test names: at once, or as a coroutine that waits."""

    websocket_error_close_code: int | None = 1011

    def initialize(self, calls: list[Any], where: str = "on_message", how: str = "function") -> None:
        super().initialize(calls)
        self.where = where
        self.how = how

    def fail_in(self, where: str) -> Any:
        if where == self.where:
            self.write_message("before")
            if self.how != "function":
                return self.fail_later()
            raise Broken
        return None

    async def fail_later(self) -> None:
        if self.how == "coroutine that waits":
            await asyncio.sleep(0)
        raise Broken

    def open(self) -> Any:
        super().open()
        return self.fail_in("open")

    def on_message(self, message: str | bytes) -> Any:
        self.calls.append(message)
        return self.fail_in("on_message")

    def on_ping(self, data: bytes) -> Any:
        return self.fail_in("on_ping")

    def on_pong(self, data: bytes) -> Any:
        return self.fail_in("on_pong")


def broken(log: Log) -> int:
    """Return how many lines of the log are about `Broken`."""
    return len([record for record in log.records if record.exc_info and record.exc_info[0] is Broken])


@pytest.mark.parametrize("how", ["function", "coroutine", "coroutine that waits"])
@pytest.mark.parametrize("where", ["open", "on_message", "on_ping", "on_pong"])
async def test_an_exception_sends_the_code_behind_what_was_written(where: str, how: str, log: Log) -> None:
    calls: list[Any] = []
    opcode = {"on_ping": PING, "on_pong": PONG}.get(where, TEXT)
    async with (
        serving([("/", Raising, {"calls": calls, "where": where, "how": how})]) as url,
        raw_client(url) as client,
    ):
        await client.send_frame(opcode, b"x")
        frames = await client.receive_rest()
        assert [frame for frame in frames if frame.opcode != PONG] == FRAMES
        await until(lambda: CLOSED in calls)
    assert calls == ["open", *(["x"] if where == "on_message" else []), CLOSED]
    assert broken(log) == len(log.records) == 1


@pytest.mark.parametrize("how", ["function", "coroutine", "coroutine that waits"])
async def test_no_message_is_delivered_after_it(how: str, log: Log) -> None:
    calls: list[Any] = []
    async with serving([("/", Raising, {"calls": calls, "how": how})]) as url, raw_client(url) as client:
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(3)], client.frame(CLOSE))
        assert await client.receive_rest() == FRAMES
        await until(lambda: CLOSED in calls)
    assert calls == ["open", "0", CLOSED]
    assert broken(log) == 1


async def test_it_may_be_a_setting_and_is_off_by_default(log: Log) -> None:
    class Plain(Raising):
        websocket_error_close_code = None

    calls: list[Any] = []
    async with serving(Plain, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert CLOSE not in [frame.opcode for frame in await client.receive_rest()]
        await until(lambda: len(calls) == 3)
    assert calls == ["open", "x", ("close", None, None)]


async def test_with_compression_a_client_of_ours_gets_the_code(log: Log) -> None:
    class Compressing(Raising):
        def get_compression_options(self) -> dict[str, Any]:
            return {"threshold": 0, "offload_size": 1}

    calls: list[Any] = []
    async with serving(Compressing, calls=calls) as url, connected(url, compression_options={}) as conn:
        await conn.write_message("x" * 1000)
        assert await conn.read_message() == "before"
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (1011, None)
        await until(lambda: CLOSED in calls)


async def test_an_exception_behind_a_close_of_ours_changes_nothing(log: Log) -> None:
    class Closing(Raising):
        def on_message(self, message: str | bytes) -> Any:
            self.close(4000, "done")
            raise Broken

    calls: list[Any] = []
    async with serving(Closing, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"x")
        assert await client.receive_rest() in ([], [Frame(CLOSE, close_payload(4000, "done"))])
        await until(lambda: len(calls) == 2)
    assert broken(log) == 1


async def test_a_peer_that_has_gone_meanwhile_is_closed_all_the_same(log: Log) -> None:
    calls: list[Any] = []
    gone = asyncio.Event()

    class Waiting(Raising):
        async def on_message(self, message: str | bytes) -> None:
            await gone.wait()
            raise Broken

    async with serving(Waiting, calls=calls) as url:
        async with raw_client(url) as client:
            await client.send_frame(TEXT, b"x")
        gone.set()
        await until(lambda: len(calls) == 2)
    assert broken(log) == 1


async def test_an_exception_of_a_callback_of_a_client_sends_it_too(log: Log) -> None:
    messages: list[Any] = []

    def on_message(message: str | bytes | None) -> None:
        messages.append(message)
        if message is not None:
            raise Broken

    async with raw_pair(on_message_callback=on_message, error_close_code=1011) as (conn, peer):
        await peer.send(peer.frame(BINARY, b"x"), peer.frame(BINARY, b"y"))
        assert await peer.receive() == Frame(CLOSE, close_payload(1011))
        await peer.send_frame(CLOSE, close_payload(1011))
        await until(lambda: messages[-1] is None)
        assert (conn.close_code, conn.close_reason) == (1011, None)
    assert messages == [b"x", None]
    assert broken(log) == 1
