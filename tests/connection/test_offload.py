"""Large messages deflated and inflated by threads (``offload_size``): order, limits, and ends at any time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tornado.iostream import StreamBufferFullError

from tests.conftest import Log
from tests.peer import RawPeer, Recording, raw_client
from tests.support import Echo, connected, serving, standing_loop, until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, close_payload, deflated, inflated
from tornado_ws import WebSocketClientConnection, WebSocketClosedError, WriteLimitError, broadcast
from tornado_ws.connection import delivery
from tornado_ws.deflate import backends, offload
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.errors import ProtocolError

SIZE = 2000
#: What inflates to more than `SIZE`, and what does not deflate to less.
LARGE = "large " * 1000
NOISE = os.urandom(50_000)


class Threads:
    """In the place of `offload.run_in_thread`: what is to be done waits until a test lets it be done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []
        monkeypatch.setattr(offload, "run_in_thread", self.run_in_thread)

    def run_in_thread(
        self, work: Callable[..., Any], *args: Any, loop: asyncio.AbstractEventLoop | None = None
    ) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((future, lambda: work(*args)))
        return future

    def finish(self) -> None:
        """Do what waits, which may be only one piece of work for each connection."""
        (future, work), *more = self.waiting
        assert not more
        self.waiting.clear()
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    return Threads(monkeypatch)


class Offloading(Recording):
    def get_compression_options(self) -> dict[str, Any]:
        return {"offload_size": SIZE}


def compressed(peer: RawPeer, message: str | bytes, opcode: int = TEXT) -> bytes:
    return peer.frame(opcode, deflated(message.encode() if isinstance(message, str) else message), rsv=RSV1)


def client(url: str, stalling: bool = False) -> Any:
    return raw_client(url, stalling=stalling, Sec_WebSocket_Extensions="permessage-deflate")


async def echoed(peer: RawPeer) -> str | bytes:
    frame = await peer.receive()
    assert frame is not None
    payload = inflated(frame.payload) if frame.rsv else frame.payload
    return payload.decode() if frame.opcode == TEXT else payload


# In


@pytest.mark.gen_test
async def test_messages_behind_a_large_one_wait_for_it_and_pings_do_not(threads: Threads) -> None:
    calls: list[Any] = []

    class Handler(Offloading):
        def on_message(self, message: str | bytes) -> Any:
            self.calls.append(message)

    async with serving(Handler, calls=calls) as url, client(url) as peer:
        await peer.send(
            compressed(peer, "one"),
            compressed(peer, LARGE),
            compressed(peer, "two"),
            peer.frame(BINARY, b"plain"),
            peer.frame(PING, b"ping"),
        )
        pong = await peer.receive()
        assert pong is not None
        assert (pong.opcode, pong.payload) == (PONG, b"ping")
        assert calls == ["open", "one"]
        threads.finish()
        await until(lambda: calls == ["open", "one", LARGE])
        # It may refer to what a thread has just inflated.
        await until(lambda: threads.waiting)
        threads.finish()
        await until(lambda: calls == ["open", "one", LARGE, "two", b"plain"])
        await peer.send(compressed(peer, "three"))
        await until(lambda: calls[-1] == "three")
        assert not threads.waiting


@pytest.mark.gen_test
async def test_a_stream_with_context_takeover_is_inflated_in_its_order() -> None:
    calls: list[Any] = []
    messages = [NOISE, b"small", NOISE[:3000], LARGE.encode(), NOISE, b"", b"small", NOISE[10_000:20_000]] * 5
    compressor = zlib.compressobj(wbits=-15)

    async with serving(Offloading, calls=calls) as url, client(url) as peer:
        for message in messages:
            payload = (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] or b"\x00"
            half = len(payload) // 2
            await peer.send_frame(BINARY, payload[:half], rsv=RSV1, fin=False)
            await peer.send_frame(PING)
            await peer.send_frame(CONTINUATION, payload[half:])
        inflater = zlib.decompressobj(-15)
        answers: list[bytes] = []
        while len(answers) < len(messages):
            frame = await peer.receive()
            assert frame is not None
            if frame.opcode == BINARY:
                answers.append(inflater.decompress(frame.payload + b"\x00\x00\xff\xff"))
        assert answers == messages
    assert calls[1 : len(messages) + 1] == messages


BAD = {
    "garbage behind the beginning": (deflated(NOISE)[:4000] + b"\xff" * 40_000, 1007),
    "cut short": (deflated(NOISE)[:-20_000], 1007),
    "not UTF-8": (deflated(b"a" * 5000 + b"\xff"), 1007),
    "too big when inflated": (deflated(bytes(200_000)), 1009),
    "too big as it is": (deflated(os.urandom(150_000)), 1009),
}


@pytest.mark.gen_test
@pytest.mark.parametrize(("payload", "code"), BAD.values(), ids=BAD)
async def test_a_violation_inside_a_large_message_is_the_end_behind_those_before_it(payload: bytes, code: int) -> None:
    calls: list[Any] = []
    async with serving(Offloading, calls=calls, websocket_max_message_size=100_000) as url, client(url) as peer:
        await peer.send(
            compressed(peer, LARGE), peer.frame(TEXT, payload, rsv=RSV1), compressed(peer, "never"), peer.frame(TEXT)
        )
        frames = await peer.answer_close()
        assert [frame.opcode for frame in frames] == [TEXT]
        await until(lambda: len(calls) == 3)
    assert calls[:2] == ["open", LARGE]
    assert calls[2][:2] == ("close", code)


@pytest.mark.gen_test
async def test_a_close_frame_behind_a_large_message_waits_for_it(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    # The application has no time; the thread takes what it takes.
    monkeypatch.setattr(delivery, "_BUSY_TIMEOUT", 0)
    async with serving(Offloading, calls=calls) as url, client(url) as peer:
        await peer.send(compressed(peer, LARGE), peer.frame(CLOSE, close_payload(4000, "bye")))
        await until(lambda: threads.waiting)
        for _ in range(10):
            await asyncio.sleep(0)
        threads.finish()
        # The answer is large too.
        await until(lambda: threads.waiting)
        assert calls == ["open", LARGE, ("close", 4000, "bye")] or calls == ["open", LARGE]
        threads.finish()
        first, last = await peer.receive_rest()
        assert inflated(first.payload) == LARGE.encode()
        assert (last.opcode, last.payload) == (CLOSE, close_payload(4000))
        await until(lambda: calls == ["open", LARGE, ("close", 4000, "bye")])


@pytest.mark.gen_test
async def test_a_peer_that_vanishes_while_a_thread_inflates(threads: Threads) -> None:
    calls: list[Any] = []

    class Handler(Offloading):
        def on_message(self, message: str | bytes) -> Any:
            self.calls.append(message)

    async with serving(Handler, calls=calls) as url, client(url) as peer:
        await peer.send(compressed(peer, LARGE), compressed(peer, "behind"))
        await until(lambda: threads.waiting)
        peer.reset()
        await asyncio.sleep(0.05)
        assert calls == ["open"]
        threads.finish()
        await until(lambda: threads.waiting)
        threads.finish()
        # All that had come before the end is handed out, as from a peer whose messages are small.
        await until(lambda: calls == ["open", LARGE, "behind", ("close", None, None)])


@pytest.mark.gen_test
async def test_a_handler_that_closes_while_a_thread_inflates_gets_no_more_messages(threads: Threads) -> None:
    handlers: list[Any] = []

    class Handler(Offloading):
        def open(self) -> None:
            handlers.append(self)

    calls: list[Any] = []
    async with serving(Handler, calls=calls) as url, client(url) as peer:
        await peer.send(compressed(peer, LARGE))
        await until(lambda: threads.waiting)
        handlers[0].ws_connection._abort()
        threads.finish()
        await until(lambda: calls)
    assert calls == [("close", None, None)]


# Out


class Pusher(Offloading):
    handler: Pusher

    def open(self) -> None:
        Pusher.handler = self


@pytest.fixture
def pusher() -> Iterator[Callable[[], Pusher]]:
    yield lambda: Pusher.handler
    del Pusher.handler


@pytest.mark.gen_test
async def test_what_is_written_behind_a_large_message_waits_and_pings_do_not(
    threads: Threads, pusher: Callable[[], Pusher]
) -> None:
    async with serving([("/", Pusher, {"calls": []})]) as url, client(url) as peer:
        await until(lambda: hasattr(Pusher, "handler"))
        handler = pusher()
        written = [
            handler.write_message(LARGE),
            handler.write_message("small"),
            handler.write_message("plain", compress=False),
            handler.write_message(NOISE, binary=True),
            handler.write_message("last"),
        ]
        handler.ping(b"ping")
        ping = await peer.receive()
        assert ping is not None
        assert (ping.opcode, ping.payload) == (PING, b"ping")
        assert not any(future.done() for future in written)
        assert handler.ws_connection is not None
        assert handler.ws_connection.buffered_amount == len(LARGE) + len("smallplainlast") + len(NOISE)
        handler.close(4001, "done")
        threads.finish()
        await until(lambda: threads.waiting)
        threads.finish()
        inflater = zlib.decompressobj(-15)
        frames = [await peer.receive() for _ in range(6)]
        messages = [
            inflater.decompress(frame.payload + b"\x00\x00\xff\xff") if frame.rsv else frame.payload
            for frame in frames
            if frame is not None
        ]
        assert messages == [LARGE.encode(), b"small", b"plain", NOISE, b"last", close_payload(4001, "done")]
        for future in written:
            await future
        with pytest.raises(WebSocketClosedError):
            handler.write_message("too late")
        await peer.send_frame(CLOSE, close_payload(4001))


@pytest.mark.gen_test
async def test_the_answer_to_a_close_frame_and_the_end_of_the_socket_wait_too(threads: Threads) -> None:
    class Handler(Offloading):
        def on_message(self, message: str | bytes) -> Any:
            self.write_message(LARGE)

    calls: list[Any] = []
    async with serving(Handler, calls=calls) as url, client(url) as peer:
        await peer.send(compressed(peer, "small"), peer.frame(CLOSE, close_payload(4000)))
        await until(lambda: threads.waiting)
        await asyncio.sleep(0.02)
        threads.finish()
        first, last = await peer.receive_rest()
        assert inflated(first.payload) == LARGE.encode()
        assert (last.opcode, last.payload) == (CLOSE, close_payload(4000))


@pytest.mark.gen_test
async def test_writes_that_wait_fail_when_the_connection_is_lost(
    threads: Threads, pusher: Callable[[], Pusher]
) -> None:
    calls: list[Any] = []
    async with serving(Pusher, calls=calls) as url, client(url) as peer:
        await until(lambda: hasattr(Pusher, "handler"))
        handler = pusher()
        written = [handler.write_message(LARGE), handler.write_message("small"), handler.write_message("nobody waits")]
        peer.reset()
        await until(lambda: calls)
        threads.finish()
        for future in written[:2]:
            with pytest.raises(WebSocketClosedError):
                await future


@pytest.mark.gen_test
@pytest.mark.parametrize("policy", ["raise", "drop", "close"])
async def test_what_waits_for_a_thread_is_limited_too(
    policy: str, threads: Threads, pusher: Callable[[], Pusher]
) -> None:
    settings: dict[str, Any] = {"websocket_write_limit": 4 * len(LARGE), "websocket_write_limit_policy": policy}
    async with serving([("/", Pusher, {"calls": []})], **settings) as url, client(url) as peer:
        await until(lambda: hasattr(Pusher, "handler"))
        handler = pusher()
        connection: Any = handler.ws_connection
        written = [handler.write_message(LARGE) for _ in range(3)]
        # Small ones, by the memory that they take.
        while connection.buffered_amount + 256 * len(connection._writing._ordered_writes) < 4 * len(LARGE):
            written.append(handler.write_message("small"))
        assert 10 < len(written) < 30
        waiting = connection.buffered_amount
        refused = None
        if policy == "raise":
            with pytest.raises(WriteLimitError, match=f"{waiting} bytes wait to be sent"):
                handler.write_message("one more")
        else:
            refused = handler.write_message("one more")
            assert connection.is_closing() is (policy == "close")
        assert connection.buffered_amount == connection.counters.buffered_amount == waiting
        for _ in range(3):
            await until(lambda: threads.waiting)
            threads.finish()
        inflater = zlib.decompressobj(-15)
        for number in range(len(written)):
            frame = await peer.receive()
            assert frame is not None
            expected = LARGE if number < 3 else "small"
            assert inflater.decompress(frame.payload + b"\x00\x00\xff\xff") == expected.encode()
        for future in written:
            await future
        if policy == "drop":
            # It was done when there was room again.
            assert refused is not None
            await refused
            assert connection.counters.dropped == 1
        if policy == "close":
            last = await peer.receive()
            assert last is not None
            assert (last.opcode, last.payload) == (CLOSE, close_payload(1013, "too slow"))
            assert refused is not None
            with pytest.raises(WebSocketClosedError):
                await refused
            await peer.send_frame(CLOSE, close_payload(1013))
        else:
            await handler.write_message("goes on")
            frame = await peer.receive()
            assert frame is not None
            assert inflater.decompress(frame.payload + b"\x00\x00\xff\xff") == b"goes on"


async def messages_of(peer: RawPeer, count: int, inflater: Any = None) -> list[bytes]:
    """Receive ``count`` frames, inflated where they are compressed."""
    inflater = inflater or zlib.decompressobj(-15)
    messages = []
    for _ in range(count):
        frame = await peer.receive()
        assert frame is not None
        messages.append(inflater.decompress(frame.payload + b"\x00\x00\xff\xff") if frame.rsv else frame.payload)
    return messages


@pytest.mark.gen_test
@pytest.mark.parametrize("rerouted", [False, True])
async def test_what_goes_to_all_has_its_turn_among_a_connections_own_messages(
    rerouted: bool, threads: Threads, pusher: Callable[[], Pusher]
) -> None:
    async with serving([("/", Pusher, {"calls": []})]) as url, client(url) as peer:
        await until(lambda: hasattr(Pusher, "handler"))
        handler = pusher()
        connection: Any = handler.ws_connection
        if rerouted:
            connection._write_frame = connection._write_frame
        written = [handler.write_message(LARGE), handler.write_message("own")]
        assert broadcast([handler], "to all") == 1
        assert broadcast([handler], LARGE + "to all") == 1
        written.append(handler.write_message("own again"))
        assert connection.buffered_amount == 2 * len(LARGE) + len("ownto allto allown again")
        threads.finish()
        inflater = zlib.decompressobj(-15)
        expected = [LARGE, "own", "to all", LARGE + "to all", "own again"]
        assert await messages_of(peer, 5, inflater) == [message.encode() for message in expected]
        for future in written:
            await future
        assert connection.buffered_amount == 0
        assert connection.counters.messages_out == 5
        # It goes on with the window that the peer has.
        handler.write_message("to all, own again")
        assert await messages_of(peer, 1, inflater) == [b"to all, own again"]


@pytest.mark.gen_test
async def test_a_client_broadcasts_in_turn_too(threads: Threads) -> None:
    calls: list[Any] = []

    class Handler(Recording):
        def get_compression_options(self) -> dict[str, Any]:
            return {}

        def on_message(self, message: str | bytes) -> Any:
            self.calls.append(message)

    async with (
        serving(Handler, calls=calls) as url,
        connected(url, compression_options={"offload_size": SIZE}) as conn,
    ):
        conn.write_message(LARGE)
        assert broadcast([conn], "to all") == 1
        conn.write_message("last")
        threads.finish()
        await until(lambda: calls == ["open", LARGE, "to all", "last"])


@pytest.mark.gen_test
async def test_what_goes_to_all_counts_for_the_write_limit_while_it_waits_for_a_thread(
    threads: Threads, pusher: Callable[[], Pusher]
) -> None:
    settings: dict[str, Any] = {"websocket_write_limit": 4 * len(LARGE), "websocket_write_limit_policy": "drop"}
    async with serving([("/", Pusher, {"calls": []})], **settings) as url, client(url) as peer:
        await until(lambda: hasattr(Pusher, "handler"))
        handler = pusher()
        connection: Any = handler.ws_connection
        handler.write_message(LARGE)
        sent = 0
        while broadcast([handler], LARGE):
            sent += 1
        assert sent == 3
        refused = handler.write_message("own")
        assert connection.counters.dropped == 2
        assert connection.buffered_amount == 4 * len(LARGE)
        threads.finish()
        assert await messages_of(peer, 4) == [LARGE.encode()] * 4
        await refused
        assert broadcast([handler], "again") == 1


@pytest.mark.gen_test
async def test_what_goes_to_all_and_waits_when_a_connection_is_lost_raises_nothing(
    threads: Threads, pusher: Callable[[], Pusher], log: Log
) -> None:
    calls: list[Any] = []
    async with serving(Pusher, calls=calls) as url, client(url) as peer:
        await until(lambda: hasattr(Pusher, "handler"))
        handler = pusher()
        connection: Any = handler.ws_connection
        lost = handler.write_message(LARGE)
        assert broadcast([handler], "to all") == 1
        own = handler.write_message("own")
        peer.reset()
        await until(lambda: calls)
        threads.finish()
        for future in (lost, own):
            with pytest.raises(WebSocketClosedError):
                await future
        assert connection.held_back() == (0, 0)
        assert not log.lines


@pytest.mark.gen_test
async def test_the_close_frame_comes_behind_what_goes_to_all(threads: Threads, pusher: Callable[[], Pusher]) -> None:
    async with serving([("/", Pusher, {"calls": []})]) as url, client(url) as peer:
        await until(lambda: hasattr(Pusher, "handler"))
        handler = pusher()
        handler.write_message(LARGE)
        assert broadcast([handler], "to all") == 1
        handler.close(4001, "done")
        assert broadcast([handler], "too late") == 0
        threads.finish()
        expected = [LARGE.encode(), b"to all", close_payload(4001, "done")]
        assert await messages_of(peer, 3) == expected
        await peer.send_frame(CLOSE, close_payload(4001))


@pytest.mark.gen_test
async def test_what_cannot_be_written_when_its_turn_comes_ends_the_connection(
    threads: Threads, pusher: Callable[[], Pusher], log: Log
) -> None:
    calls: list[Any] = []
    async with serving(Pusher, calls=calls) as url, client(url, stalling=True):
        await until(lambda: hasattr(Pusher, "handler"))
        handler = pusher()
        connection: Any = handler.ws_connection
        while not connection.buffered_amount:
            handler.write_message(bytes(1 << 20), binary=True, compress=False)
        written = [handler.write_message(LARGE), handler.write_message("small")]
        assert broadcast([handler], "to all") == 1
        handler.close()
        room = asyncio.ensure_future(connection._writing._ordered_writes.room())
        # There is none for any of them.
        connection.stream.max_write_buffer_size = 0
        threads.finish()
        for future in written:
            with pytest.raises(StreamBufferFullError):
                await future
        # Nor for the close frame: the peer cannot be told.
        assert connection.stream.closed()
        await room
        assert connection.held_back() == (0, 0)
        await until(lambda: calls)
    assert calls == [("close", None, None)]
    assert "handling its events raised StreamBufferFullError" in log.lines[0]


@pytest.mark.gen_test
async def test_an_interrupt_while_something_has_its_turn_goes_up_and_leaves_nothing_behind(
    threads: Threads, pusher: Callable[[], Pusher]
) -> None:
    async with serving([("/", Pusher, {"calls": []})]) as url, client(url):
        await until(lambda: hasattr(Pusher, "handler"))
        handler = pusher()
        connection: Any = handler.ws_connection
        write_frame = connection._write_frame

        def interrupted(fin: bool, opcode: int, data: bytes, flags: int = 0) -> Any:
            if opcode == CLOSE:
                raise KeyboardInterrupt
            return write_frame(fin, opcode, data, flags)

        connection._write_frame = interrupted
        written = handler.write_message(LARGE)
        handler.close()
        writes = connection._writing._ordered_writes
        future, work = threads.waiting.pop()
        future.remove_done_callback(writes._go_on)
        future.set_result(work())
        with pytest.raises(KeyboardInterrupt):
            writes._go_on(future)
        await written
        assert connection.held_back() == (0, 0)
        assert connection.stream.closed()


@pytest.mark.gen_test
async def test_threads_are_used_for_what_is_large_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    compress, decompress = zlib.compressobj, zlib.decompressobj

    class Noting:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            used.append(threading.current_thread().name)
            return getattr(self._inner, name)

    monkeypatch.setattr(backends, "library_of", lambda backend: None)
    monkeypatch.setattr(zlib, "compressobj", lambda *args: Noting(compress(*args)))
    monkeypatch.setattr(zlib, "decompressobj", lambda *args, **kw: Noting(decompress(*args, **kw)))
    me = threading.current_thread().name

    class Handler(Echo):
        def get_compression_options(self) -> dict[str, Any]:
            # Another level, so that no compressor of another test is in the pool.
            return {"offload_size": SIZE, "compression_level": 3}

    async with serving(Handler) as url, connected(url, compression_options={"offload_size": SIZE}) as conn:
        await conn.write_message("small")
        assert await conn.read_message() == "small"
        assert set(used) == {me}
        await conn.write_message(LARGE)
        assert await conn.read_message() == LARGE
        assert any(name.startswith("tornado_ws-deflate") for name in used)


def test_no_more_is_held_back_than_a_message_may_have() -> None:
    inflater = offload.OffloadingInflater(PerMessageDeflateDecompressor(True, None, 100_000), SIZE, 100_000)
    payload = deflated(os.urandom(250_000))
    assert len(inflater.inflate(payload[:50_000], 100_000)) == SIZE + 1
    inflater.inflate(payload[50_000:100_000], 100_000)
    with pytest.raises(ProtocolError) as caught:
        inflater.inflate(payload[100_000:], 100_000)
    assert caught.value.close_code == 1009


@pytest.mark.gen_test
async def test_where_no_thread_can_be_started_messages_go_on_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("tornado_ws-deflate"):
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    class Handler(Echo):
        def get_compression_options(self) -> dict[str, Any]:
            return {"offload_size": SIZE}

    sent = [LARGE, "small", LARGE + "more", "", LARGE]
    monkeypatch.setattr(offload, "_executor", None)
    async with serving(Handler) as url, connected(url, compression_options={"offload_size": SIZE}) as conn:
        for threads_can_start in (False, True):
            monkeypatch.setattr(threading.Thread, "start", start if threads_can_start else refuse)
            for message in sent:
                await conn.write_message(message)
            assert [await conn.read_message() for _ in sent] == sent
            assert refused
        # What the executor kept was not done again.
        protocol: Any = conn.protocol
        assert protocol.held_back() == (0, 0)
        assert protocol._inflater.waiting == 0
    executor: Any = offload._executor
    executor.shutdown()


def test_messages_that_are_written_where_the_loop_stands_still() -> None:
    stack = contextlib.AsyncExitStack()

    async def begin() -> WebSocketClientConnection:
        url = await stack.enter_async_context(serving(Offloading, calls=[]))
        return await stack.enter_async_context(connected(url, compression_options={"offload_size": 1000}))

    async def end() -> None:
        assert [await conn.read_message(), await conn.read_message()] == [NOISE, "behind it"]
        await asyncio.gather(*futures)
        await stack.aclose()

    with standing_loop() as loop:
        conn = loop.run_until_complete(begin())
        futures = [conn.write_message(NOISE, binary=True), conn.write_message("behind it")]
        assert not any(future.done() for future in futures)
        loop.run_until_complete(end())
