"""``close_all``: who is closed and who is aborted, and that nothing is received and not answered."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from tests.peer import Recording, opening_request, raw_client, unanswered_client
from tests.support import PATIENCE, Echo, HTTPServer, connected, until
from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, Frame, close_payload
from tornado_ws import ClosedAll, HandshakeRejectedError, close_all, websocket_connect

GOING_AWAY = Frame(CLOSE, close_payload(1001))
#: For many clients or messages, which take a busy machine longer than a peer has to answer a close frame.
PATIENT: dict[str, Any] = {"websocket_close_timeout": PATIENCE}


class Served:
    """An application of one handler, and its server on loopback."""

    def __init__(self, handler: type[RequestHandler] = Recording, **settings: Any) -> None:
        self.calls: list[Any] = []
        arguments = {"calls": self.calls} if issubclass(handler, Recording) else {}
        self.application = Application([("/", handler, arguments)], **settings)
        self._server = HTTPServer(self.application)
        sock, port = bind_unused_port()
        self._server.add_sockets([sock])
        self.url = f"ws://127.0.0.1:{port}"

    async def __aenter__(self) -> Served:
        return self

    async def __aexit__(self, *args: object) -> None:
        self._server.stop()
        await self._server.close_all_connections()


async def opened(served: Served, number: int) -> None:
    await until(lambda: served.calls.count("open") == number)


@pytest.mark.gen_test
async def test_an_application_without_connections_is_closed_at_once() -> None:
    assert await close_all(Application()) == ClosedAll(closed=0, aborted=0)


@pytest.mark.gen_test
@pytest.mark.rfc("6455-7.3-closing-handshake")
async def test_all_are_closed_with_code_and_reason() -> None:
    async with (
        Served() as served,
        Served() as other,
        raw_client(served.url) as one,
        raw_client(served.url) as two,
        raw_client(other.url) as three,
    ):
        await opened(served, 2)
        closing = asyncio.ensure_future(close_all(served.application, 1012, "back soon"))
        for client in (one, two):
            assert await client.answer_close() == []
            assert await client.receive() is None
        assert await closing == (2, 0)
        assert served.calls == ["open"] * 2 + [("close", 1012, "back soon")] * 2
        # Those of another application stay.
        await three.send_frame(TEXT, b"x")
        assert await three.receive() == Frame(TEXT, b"x")


@pytest.mark.gen_test
async def test_who_does_not_answer_is_aborted() -> None:
    async with Served() as served, raw_client(served.url) as silent, raw_client(served.url) as client:
        await opened(served, 2)
        closing = asyncio.ensure_future(close_all(served.application, timeout=1))
        await client.answer_close()
        assert await closing == ClosedAll(closed=1, aborted=1)
        assert served.calls[2:] == [("close", 1001, None), ("close", 1006, "closing handshake timed out")]
        assert await silent.receive_rest() == [GOING_AWAY]


@pytest.mark.gen_test
async def test_close_timeout_holds_here_too() -> None:
    async with Served(websocket_close_timeout=0.05) as served, raw_client(served.url):
        await opened(served, 1)
        assert await close_all(served.application) == (0, 1)


@pytest.mark.gen_test
async def test_who_hangs_up_counts_as_aborted() -> None:
    async with Served() as served, raw_client(served.url) as client:
        await opened(served, 1)
        closing = asyncio.ensure_future(close_all(served.application))
        await client.receive()
        client.reset()
        assert await closing == (0, 1)


@pytest.mark.gen_test
async def test_no_time_at_all_is_a_close_frame_and_the_end() -> None:
    async with Served() as served, raw_client(served.url) as client:
        await opened(served, 1)
        assert await close_all(served.application, timeout=0) == (0, 1)
        assert served.calls == ["open", ("close", 1006, "closing handshake timed out")]
        assert await client.receive_rest() == [GOING_AWAY]


class Slow(Recording):
    """Takes its time to answer, and notes when it did."""

    async def on_message(self, message: str | bytes) -> None:
        self.calls.append(message)
        await asyncio.sleep(0.002)
        await self.write_message(message)
        self.calls.append("answered")


@pytest.mark.gen_test
@pytest.mark.parametrize("handler", [Recording, Slow])
@pytest.mark.parametrize("pause", [0, 0.005], ids=["at once", "in our hands"])
async def test_what_was_received_is_answered_before_the_close_frame(handler: Any, pause: float) -> None:
    """More than are read ahead for a slow application, and than are handed out in one turn of the loop."""
    count = 400
    async with Served(handler, **PATIENT) as served, raw_client(served.url) as client:
        await opened(served, 1)
        await client.send(*[client.frame(TEXT, b"%d" % number) for number in range(count)])
        await asyncio.sleep(pause)
        closing = asyncio.ensure_future(close_all(served.application, timeout=PATIENCE))
        answers = await client.answer_close()
        assert answers == [Frame(TEXT, b"%d" % number) for number in range(count)]
        assert await closing == (1, 0)
    assert served.calls[-1] == ("close", 1001, None)


@pytest.mark.gen_test
async def test_a_message_behind_the_close_frame_is_not_handed_out() -> None:
    """It could not be answered, and so the client knows that it was not handled."""
    async with Served() as served, raw_client(served.url) as client:
        await opened(served, 1)
        closing = asyncio.ensure_future(close_all(served.application))
        assert await client.receive() == GOING_AWAY
        await client.send(client.frame(TEXT, b"late"), client.frame(BINARY, b"later"), client.frame(PING))
        await client.send_frame(CLOSE, GOING_AWAY.payload)
        assert await closing == (1, 0)
    assert served.calls == ["open", ("close", 1001, None)]


@pytest.mark.gen_test
async def test_a_client_that_floods_does_not_hold_up_its_end() -> None:
    async with Served(**PATIENT) as served, raw_client(served.url) as client:
        await opened(served, 1)
        sent = 0
        stop = asyncio.Event()

        async def flood() -> None:
            nonlocal sent
            while not stop.is_set():
                await client.send(*[client.frame(TEXT, b"%d" % (sent + number)) for number in range(50)])
                sent += 50
                await asyncio.sleep(0)

        flooding = asyncio.ensure_future(flood())
        answers: list[bytes] = []
        while len(answers) < 200:
            received = await client.receive()
            assert received is not None
            answers.append(received.payload)
        closing = asyncio.ensure_future(close_all(served.application, timeout=PATIENCE))
        while (received := await client.receive()) != GOING_AWAY:
            assert received is not None
            answers.append(received.payload)
        stop.set()
        await flooding
        await client.send_frame(CLOSE, GOING_AWAY.payload)
        assert await closing == (1, 0)
    handled = [call.encode() for call in served.calls if isinstance(call, str) and call != "open"]
    assert handled == answers == [b"%d" % number for number in range(len(answers))]
    assert len(answers) < sent


@pytest.mark.gen_test
async def test_control_frames_are_handled_while_a_slow_answer_is_waited_for() -> None:
    release = asyncio.Event()

    class Waiting(Recording):
        async def on_message(self, message: str | bytes) -> None:
            await release.wait()
            await self.write_message(message)

    async with Served(Waiting) as served, raw_client(served.url) as client:
        await client.send(client.frame(TEXT, b"x"), client.frame(PING, b"before"))
        assert await client.receive() == Frame(PONG, b"before")
        closing = asyncio.ensure_future(close_all(served.application))
        await asyncio.sleep(0.02)
        assert not closing.done()
        release.set()
        assert await client.answer_close() == [Frame(TEXT, b"x")]
        assert await closing == (1, 0)


@pytest.mark.gen_test
async def test_an_application_that_does_not_finish_is_not_waited_for() -> None:
    release = asyncio.Event()

    class Stuck(Recording):
        async def on_message(self, message: str | bytes) -> None:
            self.calls.append(message)
            await release.wait()

    async with Served(Stuck) as served, raw_client(served.url) as client:
        await client.send_frame(TEXT, b"x")
        await until(lambda: served.calls == ["open", "x"])
        assert await close_all(served.application, timeout=0.05) == (0, 1)
        assert await client.receive_rest() == [GOING_AWAY]
        assert served.calls == ["open", "x"]
        release.set()
        await until(lambda: len(served.calls) == 3)
    assert served.calls[-1] == ("close", 1006, "closing handshake timed out")


@pytest.mark.gen_test
async def test_a_slow_open_is_waited_for() -> None:
    release = asyncio.Event()

    class SlowToOpen(Recording):
        async def open(self) -> None:  # type: ignore[override]
            self.calls.append("open")
            await release.wait()
            self.calls.append("opened")

    async with Served(SlowToOpen) as served, raw_client(served.url) as client:
        await client.send_frame(TEXT, b"x")
        await opened(served, 1)
        closing = asyncio.ensure_future(close_all(served.application))
        await asyncio.sleep(0.01)
        release.set()
        assert await client.answer_close() == [Frame(TEXT, b"x")]
        assert await closing == (1, 0)
    assert served.calls == ["open", "opened", "x", ("close", 1001, None)]


@pytest.mark.gen_test
async def test_opening_handshakes_are_refused_meanwhile() -> None:
    async with Served() as served, raw_client(served.url) as client:
        await opened(served, 1)
        closing = asyncio.ensure_future(close_all(served.application))
        await asyncio.sleep(0)
        with pytest.raises(HandshakeRejectedError, match="503"):
            await websocket_connect(served.url)
        await client.answer_close()
        assert await closing == (1, 0)
        # And not any longer.
        async with connected(served.url):
            pass
    assert served.calls.count("open") == 2


@pytest.mark.gen_test
async def test_an_opening_handshake_that_was_under_way_is_refused_too() -> None:
    prepared = asyncio.Event()
    preparing = asyncio.Event()

    class Preparing(Recording):
        async def prepare(self) -> None:
            if "slow" in self.request.headers:
                preparing.set()
                await prepared.wait()

    async with Served(Preparing) as served, raw_client(served.url) as client:
        await opened(served, 1)
        async with unanswered_client(served.url) as late:
            await late.send(opening_request(served.url, slow="1"))
            await preparing.wait()
            closing = asyncio.ensure_future(close_all(served.application))
            assert await client.receive() == GOING_AWAY
            prepared.set()
            await late.receive_head()
            assert late.status == 503
            await client.send_frame(CLOSE, GOING_AWAY.payload)
            assert await closing == (1, 0)


@pytest.mark.gen_test
async def test_connections_of_a_protocol_that_opens_late_are_closed_too() -> None:
    """Tunnels have an ``accept_connection`` of their own, which may wait for something."""
    accepting = asyncio.Event()
    accept = asyncio.Event()

    class Late(Recording):
        def get_websocket_protocol(self) -> Any:
            protocol: Any = super().get_websocket_protocol()
            if "slow" in self.request.headers:
                real = protocol.accept_connection

                async def accept_connection(handler: Any) -> None:
                    accepting.set()
                    await accept.wait()
                    await real(handler)

                protocol.accept_connection = accept_connection
            return protocol

    async with Served(Late) as served, raw_client(served.url) as client, unanswered_client(served.url) as late:
        await opened(served, 1)
        await late.send(opening_request(served.url, slow="1"))
        await accepting.wait()
        closing = asyncio.ensure_future(close_all(served.application))
        assert await client.receive() == GOING_AWAY
        accept.set()
        await late.receive_head()
        assert await late.answer_close() == []
        await client.send_frame(CLOSE, GOING_AWAY.payload)
        assert await closing == (2, 0)


@pytest.mark.gen_test
async def test_two_calls_at_once_and_one_that_is_cancelled() -> None:
    async with Served() as served, raw_client(served.url) as client:
        await opened(served, 1)
        closings = [asyncio.ensure_future(close_all(served.application, 1001 + number)) for number in range(3)]
        await asyncio.sleep(0)
        closings[0].cancel()
        await client.answer_close()
        assert await closings[1] == await closings[2] == (1, 0)
        async with connected(served.url):
            pass


@pytest.mark.gen_test
async def test_a_connection_that_closes_by_itself_is_waited_for() -> None:
    class Closing(Recording):
        def on_message(self, message: str | bytes) -> None:
            self.close(4000)

    async with Served(Closing) as served, raw_client(served.url) as client:
        await client.send_frame(TEXT, b"close")
        assert await client.receive() == Frame(CLOSE, close_payload(4000))
        closing = asyncio.ensure_future(close_all(served.application))
        await asyncio.sleep(0.01)
        assert not closing.done()
        await client.send_frame(CLOSE, close_payload(4000))
        assert await closing == (1, 0)
        assert await client.receive_rest() == []


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"code": 1005}, "close code 1005"),
        ({"reason": "x" * 124}, "124 bytes"),
        ({"timeout": -1}, "timeout is -1"),
        ({"timeout": float("inf")}, "timeout is inf"),
        ({"timeout": float("nan")}, "timeout is nan"),
    ],
)
async def test_bad_values_close_nothing(arguments: dict[str, Any], words: str) -> None:
    async with Served() as served, connected(served.url) as conn:
        with pytest.raises(ValueError, match=words):
            await close_all(served.application, **arguments)
        await conn.write_message("x")
        assert await conn.read_message() == "x"


@pytest.mark.gen_test
async def test_an_application_knows_no_connection_that_is_closed() -> None:
    handlers: list[weakref.ref[Any]] = []

    class Handler(Echo):
        def open(self) -> None:
            handlers.append(weakref.ref(self))

    async with Served(Handler) as served:
        async with connected(served.url), connected(served.url):
            await until(lambda: len(handlers) == 2)
        async with raw_client(served.url) as client:
            await until(lambda: len(handlers) == 3)
            client.reset()

        def are_gone() -> bool:
            gc.collect()
            return [handler() for handler in handlers] == [None] * 3

        await until(are_gone)
        assert await close_all(served.application) == (0, 0)


@pytest.mark.gen_test
async def test_what_the_kernel_has_was_received_too() -> None:
    """Of more sockets than are served in one turn of the loop."""
    count = 300
    async with Served(**PATIENT) as served, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(served.url)) for _ in range(count)]
        await opened(served, count)
        for client in clients:
            await client.send_frame(TEXT, b"x")
        closing = asyncio.ensure_future(close_all(served.application, timeout=PATIENCE))
        for client in clients:
            assert await client.answer_close() == [Frame(TEXT, b"x")]
        assert await closing == (count, 0)


@pytest.mark.gen_test
async def test_close_frames_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = iter([0.0, 0.9])
    monkeypatch.setattr("tornado_ws.server.shutdown.random", SimpleNamespace(random=lambda: next(parts)))
    async with Served() as served, raw_client(served.url) as first:
        await opened(served, 1)
        async with raw_client(served.url) as second:
            await opened(served, 2)
            closing = asyncio.ensure_future(close_all(served.application, spread=10 * PATIENCE))
            assert await first.answer_close() == []
            # Its turn has not come.
            await second.send_frame(TEXT, b"x")
            assert await second.receive() == Frame(TEXT, b"x")
            await second.send_frame(CLOSE)
            assert await second.receive_rest() == [Frame(CLOSE)]
        assert await closing == ClosedAll(closed=2, aborted=0)


@pytest.mark.gen_test
@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
async def test_a_wrong_spread_is_named(value: float) -> None:
    with pytest.raises(ValueError, match=f"spread is {value}; it has to be a number of seconds from 0"):
        await close_all(Application(), spread=value)
