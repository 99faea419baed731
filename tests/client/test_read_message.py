"""``read_message()``: who gets which message, what a reader that gave up costs, and how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tornado import gen

from tests.peer import WAYS_TO_END, end_by, raw_pair
from tests.support import until
from tests.wire import CLOSE, TEXT, Frame
from tornado_ws.client import read_queue
from tornado_ws.client.read_queue import MessageQueue


@pytest.mark.gen_test
@pytest.mark.parametrize("way", WAYS_TO_END)
async def test_none_is_the_end_now_and_for_ever(way: str) -> None:
    async with raw_pair() as (conn, peer):
        waiting: list[Any] = [conn.read_message(), conn.read_message()]
        await end_by(way, conn, peer)
        assert await asyncio.gather(*waiting) == [None, None]
        for _ in range(3):
            assert await conn.read_message() is None


@pytest.mark.gen_test
async def test_what_came_before_the_end_can_still_be_read() -> None:
    async with raw_pair() as (conn, peer):
        await peer.send(peer.frame(TEXT, b"1"), peer.frame(TEXT, b"2"))
        peer.half_close()
        await asyncio.sleep(0.02)
        assert [await conn.read_message() for _ in range(4)] == ["1", "2", None, None]


@pytest.mark.gen_test
async def test_a_read_that_tornado_gave_up_takes_a_message_with_it() -> None:
    """As docs/client.md says: `gen.with_timeout` does not cancel what it no longer waits for."""
    async with raw_pair() as (conn, peer):
        with pytest.raises(asyncio.TimeoutError):
            await gen.with_timeout(timedelta(milliseconds=1), conn.read_message())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(conn.read_message(), 0.001)
        await peer.send(peer.frame(TEXT, b"lost"), peer.frame(TEXT, b"kept"))
        assert await conn.read_message() == "kept"


@pytest.mark.gen_test
async def test_a_read_that_was_cancelled_loses_nothing() -> None:
    async with raw_pair() as (conn, peer):
        for number in range(20):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(conn.read_message(), 0.001)
            given_up: Any = conn.read_message()
            given_up.cancel()
            await peer.send_frame(TEXT, b"%d" % number)
            assert await conn.read_message() == f"{number}"


@pytest.mark.gen_test
async def test_a_reader_that_polls_with_a_timeout_misses_nothing() -> None:
    async with raw_pair() as (conn, peer):

        async def send() -> None:
            for number in range(100):
                await peer.send_frame(TEXT, b"%d" % number)
                await asyncio.sleep(0.001)

        sending = asyncio.ensure_future(send())
        received: list[Any] = []
        while len(received) < 100:
            reading: Any = conn.read_message()
            done, _ = await asyncio.wait([reading], timeout=0.0005)
            if done:
                received.append(reading.result())
            else:
                reading.cancel()
        assert received == [f"{number}" for number in range(100)]
        await sending


@pytest.mark.gen_test
async def test_readers_side_by_side_get_messages_in_turn() -> None:
    async with raw_pair() as (conn, peer):
        readers: list[Any] = [conn.read_message() for _ in range(5)]
        readers[1].cancel()
        await peer.send(*[peer.frame(TEXT, b"%d" % number) for number in range(4)])
        results = await asyncio.gather(*readers, return_exceptions=True)
        assert results[:1] + results[2:] == ["0", "1", "2", "3"]


@pytest.mark.gen_test
async def test_read_message_with_a_callback() -> None:
    """The style of Tornado 4: the callback is called with the Future."""
    async with raw_pair() as (conn, peer):
        results: list[Any] = []
        conn.read_message(lambda future: results.append(future.result()))
        conn.read_message(callback=lambda future: results.append(future.result()))
        await peer.send(peer.frame(TEXT, b"1"))
        await until(lambda: results)
        assert results == ["1"]
        peer.half_close()
        await until(lambda: len(results) == 2)
        assert results == ["1", None]


@pytest.mark.gen_test
async def test_a_callback_takes_all_and_read_message_gives_nothing() -> None:
    messages: list[Any] = []
    async with raw_pair(on_message_callback=messages.append) as (conn, peer):
        reading: Any = conn.read_message()
        await peer.send_frame(TEXT, b"1")
        await until(lambda: messages)
        assert not reading.done()
        peer.half_close()
        assert await reading is None
        assert messages == ["1", None]


@pytest.mark.gen_test
async def test_a_message_read_before_the_end_can_be_answered() -> None:
    """Of many messages and a close frame in one segment, each can be answered, and the last one too."""
    async with raw_pair() as (conn, peer):
        await peer.send(*[peer.frame(TEXT, b"%d" % number) for number in range(5)], peer.frame(CLOSE))
        await asyncio.sleep(0.02)
        while (message := await conn.read_message()) is not None:
            await asyncio.sleep(0)
            await conn.write_message(message)
        assert await peer.receive_rest() == [*(Frame(TEXT, b"%d" % number) for number in range(5)), Frame(CLOSE)]


# A task that waits goes on inside the call that brings the message


async def outside_of_tasks(function: Callable[..., Any], *args: Any, **how: Any) -> Any:
    """Call ``function`` as the loop calls it when a socket is ready."""
    called: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: called.set_result(function(*args)), **how)
    return await called


async def read_into(received: list[Any], queue: MessageQueue, count: int) -> None:
    for _ in range(count):
        received.append(await queue.get())


@pytest.mark.gen_test
async def test_a_task_goes_on_at_once() -> None:
    queue = MessageQueue()
    received: list[Any] = []
    reading = asyncio.ensure_future(read_into(received, queue, 4))
    await asyncio.sleep(0)

    def put() -> list[list[Any]]:
        seen = []
        for message in ("1", b"2", "3"):
            assert queue.put(message) is None
            seen.append(list(received))
        return seen

    assert await outside_of_tasks(put) == [["1"], ["1", b"2"], ["1", b"2", "3"]]
    assert not queue.is_open
    # Inside a task no other can run.
    assert queue.put("4") is None
    assert received == ["1", b"2", "3"]
    await reading
    assert received == ["1", b"2", "3", "4"]
    assert queue.is_open


@pytest.mark.gen_test
async def test_a_task_has_its_own_context_and_errors() -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    queue = MessageQueue()

    async def read() -> None:
        variable.set("the task's")
        await queue.get()
        assert variable.get() == "the task's"
        variable.set("changed")
        raise LookupError("of the task")

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0)

    def put() -> str:
        assert queue.put("1") is None
        assert reading.done()
        return variable.get()

    assert await outside_of_tasks(put) == "nothing"
    with pytest.raises(LookupError, match="of the task"):
        await reading


@pytest.mark.gen_test
@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks take a context since CPython 3.11")
async def test_a_task_in_whose_context_the_message_comes_goes_on_a_turn_later() -> None:
    queue = MessageQueue()
    received: list[Any] = []
    context = contextvars.copy_context()
    loop: Any = asyncio.get_running_loop()
    reading = loop.create_task(read_into(received, queue, 2), context=context)
    await asyncio.sleep(0)
    for message in ("1", "2"):
        assert await outside_of_tasks(queue.put, message, context=context) is None
        await asyncio.sleep(0)
    await reading
    assert received == ["1", "2"]


@pytest.mark.gen_test
async def test_everybody_who_waits_for_one_message_is_told() -> None:
    queue = MessageQueue()
    future: Any = queue.get()
    told: list[str] = []

    async def wait(name: str) -> None:
        told.append(name + await future)

    def callback(future: Any) -> None:
        told.append("callback" + future.result())

    def removed(future: Any) -> None:
        told.append("removed")

    waiting = [asyncio.ensure_future(wait(name)) for name in ("first", "second")]
    await asyncio.sleep(0)
    future.add_done_callback(callback)
    future.add_done_callback(removed)
    assert future.remove_done_callback(removed) == 1
    await outside_of_tasks(queue.put, "!")
    await asyncio.gather(*waiting)
    assert sorted(told) == ["callback!", "first!", "second!"]


@pytest.mark.gen_test
async def test_a_task_that_is_cancelled_while_it_waits_takes_no_message() -> None:
    queue = MessageQueue()
    received: list[Any] = []
    first, second = (asyncio.ensure_future(read_into(received, queue, 1)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await outside_of_tasks(queue.put, "1")
    assert received == ["1"]
    await second
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.gen_test
async def test_a_read_that_somebody_else_ends() -> None:
    queue = MessageQueue()
    received: list[Any] = []
    futures: list[Any] = []

    async def read() -> None:
        futures.append(queue.get())
        received.append(await futures[-1])

    readers = [asyncio.ensure_future(read()) for _ in range(2)]
    await asyncio.sleep(0)
    futures[0].set_result("by hand")
    futures[1].set_exception(LookupError("by hand"))
    await readers[0]
    with pytest.raises(LookupError):
        await readers[1]
    assert received == ["by hand"]
    assert queue.put("1") is queue


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["close", "abort"])
async def test_a_task_may_end_the_connection_at_a_message(way: str) -> None:
    """Others wait in the same segment."""
    received: list[Any] = []
    async with raw_pair() as (conn, peer):

        async def read() -> None:
            received.append(await conn.read_message())
            protocol: Any = conn.protocol
            if way == "close":
                await conn.write_message("last")
                conn.close(4000)
            else:
                protocol._abort()
            received.append(conn.protocol)

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        await peer.send(*[peer.frame(TEXT, b"%d" % number) for number in range(3)])
        await reading
        if way == "close":
            assert await peer.answer_close() == [Frame(TEXT, b"last")]
            assert await conn.read_message() == "1"
        assert await peer.receive() is None
        await until(conn.stream.closed)
    assert received[0] == "0"


@pytest.mark.gen_test
async def test_what_a_task_answers_at_once_goes_out_together() -> None:
    async with raw_pair() as (conn, peer):

        async def echo() -> None:
            while (message := await conn.read_message()) is not None:
                await conn.write_message(message)

        echoing = asyncio.ensure_future(echo())
        await asyncio.sleep(0)
        await peer.send(*[peer.frame(TEXT, b"%03d" % number) for number in range(100)])
        size, pieces = 0, 0
        while size < 100 * (2 + 4 + 3):
            size += len(await peer.receive_bytes())
            pieces += 1
        # A slow machine handles them in several turns of the loop, of 16 messages and more.
        assert pieces <= 100 // 16 + 1
        peer.half_close()
        await echoing


# The queue by itself


@pytest.mark.gen_test
async def test_queue_order_and_end() -> None:
    queue = MessageQueue()
    assert queue.qsize() == 0
    for message in ("1", b"2", "3"):
        assert queue.put(message) is queue
    assert queue.qsize() == 3
    assert queue.put(None) is None
    assert queue.put("after the end") is None
    assert [await queue.get() for _ in range(5)] == ["1", b"2", "3", None, None]
    assert queue.qsize() == 0


@pytest.mark.gen_test
async def test_queue_gives_to_those_who_still_wait() -> None:
    queue = MessageQueue()
    waiting = [queue.get() for _ in range(4)]
    waiting[0].cancel()
    waiting[2].cancel()
    queue.put("1")
    queue.put("2")
    queue.put("3")
    assert (waiting[1].result(), waiting[3].result()) == ("1", "2")
    assert queue.qsize() == 1
    assert await queue.get() == "3"


@pytest.mark.gen_test
async def test_queue_ends_everybodys_wait() -> None:
    queue = MessageQueue()
    waiting = [queue.get() for _ in range(3)]
    waiting[1].cancel()
    queue.put(None)
    assert (waiting[0].result(), waiting[2].result()) == (None, None)


@pytest.mark.gen_test
async def test_a_turn_lasts_until_the_next_message_is_asked_for() -> None:
    queue = MessageQueue()
    ended: list[Any] = []
    first = queue.put("1")
    assert first is not None
    first.add_done_callback(ended.append)
    assert await queue.get() == "1"
    await asyncio.sleep(0)
    assert ended == []
    waiting = queue.get()
    assert ended == [queue]
    # A turn is over once.
    queue.end_turn()
    assert ended == [queue]
    # Somebody waits for the second one: its turn begins at once, and only what ends the connection waits for it.
    is_open = [queue.is_open]
    assert queue.put("2") is None
    assert await waiting == "2"
    is_open.append(queue.is_open)
    turn_of_second = asyncio.ensure_future(wait_for_turn(queue))
    await asyncio.sleep(0)
    assert not turn_of_second.done()
    queue.get().cancel()
    is_open.append(queue.is_open)
    await turn_of_second
    assert is_open == [False, True, False]


async def wait_for_turn(queue: MessageQueue) -> None:
    await queue


@pytest.mark.gen_test
async def test_a_turn_does_not_end_while_messages_are_unread() -> None:
    queue = MessageQueue()
    ended: list[Any] = []
    for message in ("1", "2"):
        put = queue.put(message)
        assert put is not None
    queue.add_done_callback(ended.append)
    assert await queue.get() == "1"
    assert await queue.get() == "2"
    assert ended == []
    queue.get().cancel()
    assert ended == [queue]


@pytest.mark.gen_test
async def test_the_last_turn_is_short_but_not_before_all_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_queue, "_LAST_TURN", 0.01)
    queue = MessageQueue()
    ended: list[Any] = []
    queue.put("1")
    queue.add_done_callback(ended.append)
    queue.hurry()
    await asyncio.sleep(0.03)
    assert ended == []
    assert await queue.get() == "1"
    assert ended == []
    await asyncio.sleep(0.03)
    assert ended == [queue]


@pytest.mark.gen_test
async def test_the_last_turn_of_a_message_that_was_read_begins_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_queue, "_LAST_TURN", 0.01)
    queue = MessageQueue()
    ended: list[Any] = []
    queue.put("1")
    queue.add_done_callback(ended.append)
    assert await queue.get() == "1"
    queue.hurry()
    queue.hurry()
    await asyncio.sleep(0.03)
    assert ended == [queue]


@pytest.mark.gen_test
async def test_a_turn_that_ended_in_time_is_not_hurried_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_queue, "_LAST_TURN", 0.01)
    queue = MessageQueue()
    ended: list[Any] = []
    queue.put("1")
    queue.add_done_callback(ended.append)
    assert await queue.get() == "1"
    queue.hurry()
    waiting = queue.get()
    assert ended == [queue]
    queue.put("2")
    queue.add_done_callback(ended.append)
    assert await waiting == "2"
    await asyncio.sleep(0.03)
    # The second message has a turn of its own, of any length.
    assert ended == [queue]
