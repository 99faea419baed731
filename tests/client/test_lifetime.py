"""A connection from beginning to end in the hands of its owner: blocks, loops, waits, and cancelling any of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from tornado import gen
from tornado.concurrent import Future

from tests.peer import WAYS_TO_END, Recording, Sockets, end_by, raw_client, raw_pair, raw_server
from tests.support import PATIENCE, Echo, connected, serving, until
from tests.wire import BINARY, CLOSE, TEXT, Frame, close_payload
from tornado_ws import WebSocketClientConnection, WebSocketClosedError, websocket_connect

# websocket_connect as a Future, as it always was, and as a block


@pytest.mark.gen_test
async def test_what_websocket_connect_returns_is_a_future_still() -> None:
    async with serving(Echo) as url:
        called: list[Any] = []
        connecting = websocket_connect(url)
        assert isinstance(connecting, Future)
        connecting.add_done_callback(called.append)
        conns: list[WebSocketClientConnection] = [await connecting]
        await until(lambda: called == [connecting])
        assert connecting.result() is conns[0]
        conns.append(await asyncio.wait_for(websocket_connect(url), PATIENCE))
        conns.append(await gen.with_timeout(timedelta(seconds=PATIENCE), websocket_connect(url)))
        conns.extend(await gen.multi([websocket_connect(url)]))
        conns.extend(await asyncio.gather(websocket_connect(url), asyncio.shield(websocket_connect(url))))
        for conn in conns:
            await conn.write_message("x")
            assert await conn.read_message() == "x"
            conn.close()
            await conn.wait_closed()


@pytest.mark.gen_test
async def test_a_block_closes_its_connection_and_waits_for_it() -> None:
    calls: list[Any] = []
    sockets = Sockets()
    async with serving(Recording, calls=calls) as url:
        async with websocket_connect(url) as conn:
            await conn.write_message("x")
            assert await conn.read_message() == "x"
        assert conn.stream.closed()
        assert (conn.close_code, conn.close_reason) == (1000, None)
        assert await conn.read_message() is None
        async with await websocket_connect(url) as conn:
            pass
        assert conn.stream.closed()
    assert calls == ["open", "x", ("close", 1000, None), "open", ("close", 1000, None)]
    await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_a_block_that_is_left_by_an_exception_says_that_it_goes_away() -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url:
        with pytest.raises(KeyError):
            async with websocket_connect(url) as conn:
                raise KeyError
        assert conn.stream.closed()
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 1001, None)]


@pytest.mark.gen_test
async def test_a_block_may_close_by_itself() -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url:
        async with websocket_connect(url) as conn:
            conn.close(4000, "enough")
        await until(lambda: len(calls) == 2)
    assert calls == ["open", ("close", 4000, "enough")]


@pytest.mark.gen_test
async def test_a_block_ends_though_the_server_never_answers() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(server.url, close_timeout=0.05)
        await server.accept()
        async with connecting as conn:
            pass
        assert conn.stream.closed()
        assert conn.close_code == 1006


@pytest.mark.gen_test
async def test_a_connect_that_fails_fails_before_the_block() -> None:
    async with serving([]) as url:
        with pytest.raises(Exception, match="404"):
            async with websocket_connect(url):
                pytest.fail("there is no connection")


# Messages as a loop


@pytest.mark.gen_test
@pytest.mark.parametrize("payload", [b"", close_payload(1000, "done"), close_payload(1001)])
async def test_a_loop_ends_with_a_good_end(payload: bytes) -> None:
    async with raw_pair() as (conn, peer):
        await peer.send(peer.frame(TEXT, b"1"), peer.frame(BINARY, b"2"), peer.frame(CLOSE, payload))
        assert [message async for message in conn] == ["1", b"2"]
        # And for ever.
        assert [message async for message in conn] == []


@pytest.mark.gen_test
async def test_a_loop_ends_when_this_side_closed() -> None:
    async with raw_pair() as (conn, peer):
        await peer.send_frame(TEXT, b"1")
        messages = []
        async for message in conn:
            messages.append(message)
            conn.close(4000)
            await peer.answer_close()
        assert messages == ["1"]
        assert conn.close_code == 4000


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("way", "code", "reason"),
    [
        ("close frame", 1011, "broken"),
        ("FIN", 1006, None),
        ("RST", 1006, None),
        ("violation", 1002, "reserved opcode"),
        ("silence", 1006, "ping timed out"),
    ],
)
@pytest.mark.rfc("6455-7.1.5-no-close-frame", "6455-7.2.1-lost")
async def test_a_loop_raises_at_any_other_end(way: str, code: int, reason: str | None) -> None:
    async with raw_pair(ping_interval=0.1 if way == "silence" else None) as (conn, peer):
        await peer.send_frame(TEXT, b"1")
        messages = []

        async def read_all() -> None:
            async for message in conn:
                messages.append(message)
                if way == "close frame":
                    await peer.send_frame(CLOSE, close_payload(code, reason or ""))
                elif way == "FIN":
                    peer.half_close()
                elif way == "RST":
                    peer.reset()
                elif way == "violation":
                    await peer.send_frame(0x3)

        with pytest.raises(WebSocketClosedError) as caught:
            await read_all()
        assert messages == ["1"]
        assert caught.value.close_code == code
        assert (reason or "") in str(caught.value)
        assert str(code) in str(caught.value)
        with pytest.raises(WebSocketClosedError):
            await anext(conn)


@pytest.mark.gen_test
async def test_a_loop_that_was_left_goes_on_where_it_was() -> None:
    async with raw_pair() as (conn, peer):
        await peer.send(*[peer.frame(TEXT, b"%d" % number) for number in range(4)], peer.frame(CLOSE))
        async for message in conn:
            assert message == "0"
            break
        assert await conn.read_message() == "1"
        assert [message async for message in conn] == ["2", "3"]


# wait_closed


@pytest.mark.gen_test
@pytest.mark.parametrize("way", [*WAYS_TO_END, "stream"])
async def test_a_client_can_wait_for_the_end_and_need_not_read(way: str) -> None:
    async with raw_pair() as (conn, peer):
        # Something that nobody reads.
        await peer.send(peer.frame(TEXT, b"1"), peer.frame(TEXT, b"2"))
        waiting = [asyncio.ensure_future(conn.wait_closed()) for _ in range(3)]
        await asyncio.sleep(0.02)
        waiting[0].cancel()
        if way in WAYS_TO_END:
            await end_by(way, conn, peer)
        else:
            conn.stream.close()
        await asyncio.wait_for(asyncio.gather(*waiting[1:]), PATIENCE)
        assert waiting[0].cancelled()
        assert conn.stream.closed()
        await conn.wait_closed()


@pytest.mark.gen_test
async def test_a_handler_can_wait_for_its_end() -> None:
    calls: list[Any] = []
    waiting: list[asyncio.Task[None]] = []

    class Handler(Recording):
        def open(self) -> None:
            super().open()
            waiting.extend(asyncio.ensure_future(self.wait()) for _ in range(2))

        async def wait(self) -> None:
            await self.wait_closed()
            calls.append("waited")

        def on_message(self, message: str | bytes) -> None:
            self.close(4000)
            waiting.append(asyncio.ensure_future(self.wait()))
            waiting[0].cancel()

    async with serving(Handler, calls=calls) as url, raw_client(url) as client:
        await client.send_frame(TEXT, b"close")
        await client.answer_close()
        await until(lambda: len(calls) == 4)
        assert all(task.done() for task in waiting)
    assert calls == ["open", ("close", 4000, None), "waited", "waited"]


@pytest.mark.gen_test
async def test_a_handler_that_is_not_open_does_not_wait() -> None:
    waited: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    class Handler(Echo):
        async def prepare(self) -> None:
            await self.wait_closed()
            waited.append("prepare")

        def on_close(self) -> None:
            tasks.append(asyncio.ensure_future(self.wait()))

        async def wait(self) -> None:
            await self.wait_closed()
            waited.append("on_close")

    async with serving(Handler) as url, connected(url):
        assert waited == ["prepare"]
    await until(lambda: len(waited) == 2)


# Cancelling


def on_arrival(conn: WebSocketClientConnection, action: Callable[[], object]) -> None:
    """Call ``action`` when the next message is with its reader, and the reader has not run yet.

    A reader that is a task runs when its message comes, unless another one is running.
    """
    real = conn.on_message
    loop, other = asyncio.get_running_loop(), asyncio.current_task()
    assert other is not None

    def on_message(message: str | bytes) -> Any:
        asyncio.tasks._enter_task(loop, other)
        try:
            result = real(message)
        finally:
            asyncio.tasks._leave_task(loop, other)
        action()
        return result

    conn.on_message = on_message  # type: ignore[method-assign]


async def read(conn: WebSocketClientConnection) -> str | bytes | None:
    return await conn.read_message()


@pytest.mark.gen_test
async def test_a_read_that_is_cancelled_when_its_message_has_come_loses_nothing() -> None:
    """`asyncio.timeout` does that, when a message comes at the last moment."""
    for times in (1, 2):
        async with raw_pair() as (conn, peer):
            reading = asyncio.ensure_future(read(conn))
            on_arrival(conn, lambda reading=reading, times=times: [reading.cancel() for _ in range(times)])  # type: ignore[misc]
            await asyncio.sleep(0)
            await peer.send(peer.frame(TEXT, b"1"), peer.frame(TEXT, b"2"), peer.frame(CLOSE))
            await asyncio.wait([reading])
            assert reading.cancelled()
            assert [message async for message in conn] == ["1", "2"]


@pytest.mark.gen_test
async def test_a_message_given_back_goes_to_the_next_who_waits() -> None:
    async with raw_pair() as (conn, peer):
        readers = [asyncio.ensure_future(read(conn)) for _ in range(3)]
        on_arrival(conn, readers[0].cancel)
        await asyncio.sleep(0)
        await peer.send(peer.frame(TEXT, b"1"))
        await until(readers[1].done)
        await peer.send(peer.frame(TEXT, b"2"))
        await asyncio.wait(readers)
        assert readers[0].cancelled()
        assert (readers[1].result(), readers[2].result()) == ("1", "2")


@pytest.mark.gen_test
async def test_a_message_that_somebody_else_gets_too_is_not_given_back() -> None:
    async with raw_pair() as (conn, peer):
        future: Any = conn.read_message()

        async def share() -> Any:
            return await future

        sharing = [asyncio.ensure_future(share()) for _ in range(2)]
        on_arrival(conn, sharing[0].cancel)
        await asyncio.sleep(0)
        await peer.send_frame(TEXT, b"1")
        await asyncio.wait(sharing)
        assert sharing[0].cancelled()
        assert sharing[1].result() == "1"
        await peer.send_frame(CLOSE)
        assert await conn.read_message() is None


@pytest.mark.gen_test
async def test_cancelling_a_read_that_is_done_changes_nothing() -> None:
    async with raw_pair() as (conn, peer):
        reading: Any = conn.read_message()
        await peer.send_frame(TEXT, b"1")
        await asyncio.wait([reading])
        assert not reading.cancel()
        assert reading.result() == "1"
        await peer.send_frame(CLOSE)
        assert await conn.read_message() is None


@pytest.mark.gen_test
async def test_a_connect_that_is_cancelled_when_it_has_succeeded_leaves_nothing() -> None:
    sockets = Sockets()
    async with serving(Echo) as url:
        connecting = websocket_connect(url)
        task = asyncio.ensure_future(wait_for_it(connecting))
        connecting.add_done_callback(lambda future: task.cancel())
        await asyncio.wait([task])
        assert task.cancelled()
        conn = connecting.result()
        await until(conn.stream.closed)
        await conn.wait_closed()
    await until(lambda: not sockets.new())


async def wait_for_it(connecting: Awaitable[WebSocketClientConnection]) -> None:
    await connecting


@pytest.mark.gen_test
async def test_a_write_that_is_cancelled_is_sent_whole() -> None:
    async with raw_pair(stalling=True) as (conn, peer):
        big = bytes(4 << 20)
        writing: list[Any] = [conn.write_message(big, binary=True), conn.write_message("after")]
        assert not writing[0].done()
        tasks = [asyncio.ensure_future(wait_for_it(future)) for future in writing]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        last = conn.write_message("last")
        assert [await peer.receive() for _ in range(3)] == [
            Frame(BINARY, big),
            Frame(TEXT, b"after"),
            Frame(TEXT, b"last"),
        ]
        await last


@pytest.mark.gen_test
async def test_a_close_that_is_cancelled_closes_the_socket() -> None:
    sockets = Sockets()
    async with raw_server() as server:
        connecting = websocket_connect(server.url)
        await server.accept()
        conn = await connecting

        async def leave() -> None:
            async with conn:
                pass

        leaving = asyncio.ensure_future(leave())
        await asyncio.sleep(0.02)
        assert not leaving.done()
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        assert conn.stream.closed()
        await conn.wait_closed()
    await until(lambda: not sockets.new())


async def live(url: str, log: list[Any]) -> None:
    """A whole life of a client."""
    async with websocket_connect(url) as conn:
        for number in range(3):
            await conn.write_message(f"{number}")
        await conn.write_message(bytes(300_000), binary=True)
        async for message in conn:
            log.append(message)
            if len(log) == 4:
                break
        conn.ping()
        conn.close()
        await conn.wait_closed()


@pytest.mark.gen_test
async def test_cancelling_at_any_step_of_the_loop_leaves_nothing() -> None:
    calls: list[Any] = []
    sockets = Sockets()
    finished = 0
    async with serving(Recording, calls=calls) as url:
        for steps in range(200):
            sockets_of_server = Sockets()
            tasks = asyncio.all_tasks()
            log: list[Any] = []
            living = asyncio.ensure_future(live(url, log))
            for _ in range(steps):
                await asyncio.sleep(0)
            living.cancel()
            await asyncio.wait([living])
            assert log == ["0", "1", "2", bytes(300_000)][: len(log)]
            finished += not living.cancelled()
            await until(lambda before=sockets_of_server: not before.new())  # type: ignore[misc]
            await until(lambda before=tasks: asyncio.all_tasks() <= before)  # type: ignore[misc]
            gc.collect(0)
            if finished > 5:
                break
        assert finished, "the last ones have to come to their end, or not every step was met"
    # on_close for each open.
    assert calls.count("open") == len([call for call in calls if call[0] == "close"])
    assert not sockets.new()
