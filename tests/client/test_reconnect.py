"""``reconnect``: when it connects again, how long it waits, and when it gives up. No test waits: time is made here."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import re
import socket
from email.utils import formatdate
from time import time as now
from typing import Any

import pytest
from tornado.httpclient import HTTPError, HTTPRequest
from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

from tests.conftest import Log
from tests.peer import Recording, Sockets, raw_server
from tests.ports import unused_port
from tests.support import Echo, serving, until
from tornado_ws import (
    HandshakeError,
    HandshakeRejectedError,
    WebSocketClosedError,
    WebSocketHandler,
    reconnect,
    websocket_connect,
)
from tornado_ws.client.arguments import ConnectArguments
from tornado_ws.options import OptionArguments


class Time:
    """A clock that goes on when somebody sleeps, and dice that always fall the same way."""

    def __init__(self, dice: float = 1.0) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.dice = dice

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def arguments(self) -> dict[str, Any]:
        return {"sleep": self.sleep, "clock": lambda: self.now, "random": lambda: self.dice}


@contextlib.contextmanager
def nobody() -> Any:
    """Give a URL that nobody listens at."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        yield f"ws://user:secret@127.0.0.1:{silent.getsockname()[1]}/path?token=secret"


class Enough(Exception):
    pass


def until_attempt(number: int) -> Any:
    """Return a ``final`` that lets so many attempts fail."""
    attempts = []

    def is_final(error: Exception) -> bool:
        attempts.append(error)
        return len(attempts) == number

    return is_final


async def exhaust(*args: Any, **kwargs: Any) -> None:
    async for _ in reconnect(*args, **kwargs):
        pytest.fail("there is nobody to connect to")


def test_its_arguments_are_those_of_a_connect() -> None:
    of_a_connect = {*inspect.signature(websocket_connect).parameters, *OptionArguments.__annotations__} - {"options"}
    # One socket is one connection, and the callback is deprecated; the others are arguments of its own.
    assert {*ConnectArguments.__annotations__, "url", "proxy", "sock", "callback"} == of_a_connect


@pytest.mark.gen_test
@pytest.mark.parametrize("dice", [1.0, 0.25, 0.0])
@pytest.mark.rfc("6455-7.2.3-backoff", "6455-7.2.3-first-delay", "6455-7.2.3-longer")
async def test_the_delay_is_random_below_a_limit_that_doubles(dice: float) -> None:
    time = Time(dice)
    with nobody() as url, pytest.raises(ConnectionRefusedError):
        await exhaust(url, first_delay=1, max_delay=20, final=until_attempt(8), **time.arguments)
    assert time.slept == [dice * limit for limit in (1, 2, 4, 8, 16, 20, 20)]


@pytest.mark.gen_test
async def test_very_many_attempts_are_no_overflow() -> None:
    time = Time()
    with nobody() as url, pytest.raises(ConnectionRefusedError):
        await exhaust(url, first_delay=0.001, max_delay=5, final=until_attempt(1200), **time.arguments)
    assert time.slept[-1] == 5


@pytest.mark.gen_test
async def test_each_turn_has_a_connection_of_its_own_which_is_closed_at_its_end() -> None:
    calls: list[Any] = []
    conns: list[Any] = []
    time = Time()
    sockets = Sockets()
    async with serving(Recording, calls=calls) as url:
        async for conn in reconnect(HTTPRequest(url), **time.arguments):
            assert all(other.stream.closed() for other in conns)
            conns.append(conn)
            await conn.write_message("x")
            assert await conn.read_message() == "x"
            if len(conns) == 3:
                break
        # Whoever leaves the loop does not wait, but the connection is closed all the same.
        await until(conns[-1].stream.closed)
        await until(lambda: len(calls) == 9)
    assert calls == ["open", "x", ("close", 1000, None)] * 3
    assert time.slept == [0.5, 0.5 * 2]
    await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_the_limit_is_the_first_again_after_a_connection_that_lasted() -> None:
    time = Time()
    lasting = iter([0, 0, 9, 10, 0, 0])
    async with serving(Echo) as url:
        generator: Any = reconnect(url, first_delay=1, reset_after=10, **time.arguments)
        async with contextlib.aclosing(generator):
            for seconds in lasting:
                await anext(generator)
                time.now += seconds
    assert time.slept == [1, 2, 4, 1, 1]


@pytest.mark.gen_test
@pytest.mark.rfc("6455-7.2.3-backoff")
async def test_a_server_that_hangs_up_at_once_is_waited_for_longer_and_longer() -> None:
    class Rude(WebSocketHandler):
        def open(self) -> None:
            self.close(1013)

    time = Time()
    codes = []
    async with serving(Rude) as url:
        async for conn in reconnect(url, first_delay=1, **time.arguments):
            try:
                async for _ in conn:
                    pass
            except WebSocketClosedError as error:
                codes.append(error.close_code)
            if len(codes) == 4:
                break
        await until(conn.stream.closed)
    assert codes == [1013] * 4
    assert time.slept == [1, 2, 4]


@pytest.mark.gen_test
async def test_a_server_that_comes_back_is_found() -> None:
    time = Time()
    port = unused_port()
    found = asyncio.Event()

    async def look() -> None:
        async for conn in reconnect(f"ws://127.0.0.1:{port}/", **time.arguments):
            await conn.write_message("x")
            assert await conn.read_message() == "x"
            found.set()
            break

    looking = asyncio.ensure_future(look())
    await until(lambda: len(time.slept) > 3)
    async with serving(Echo, sockets=bind_sockets(port, "127.0.0.1")):
        await looking
        assert found.is_set()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "final", [HTTPError, (KeyError, HTTPError), lambda error: error.status == 403], ids=["type", "types", "function"]
)
async def test_which_errors_are_final_is_the_callers_to_say(final: Any) -> None:
    class Forbidden(RequestHandler):
        def get(self) -> None:
            self.set_status(403)

    time = Time()
    async with serving([("/", Forbidden)]) as url:
        with pytest.raises(HandshakeError, match="403"):
            await exhaust(url, final=final, **time.arguments)
        assert time.slept == []
        with pytest.raises(HandshakeError, match="403"):
            await exhaust(url, final=until_attempt(3), **time.arguments)
        assert len(time.slept) == 2


class Refusing(RequestHandler):
    """Answers with the status of its path, and with the headers that the test wants (None: not that one)."""

    def initialize(self, headers: dict[str, str | None]) -> None:
        for name, value in headers.items():
            if value is None:
                self.clear_header(name)
            else:
                self.set_header(name, value)

    def get(self, status: str) -> None:
        self.set_status(int(status))


def refusing(**headers: str | None) -> Any:
    return serving([(r"/(\d+)", Refusing, {"headers": {name.replace("_", "-"): headers[name] for name in headers}})])


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 426, 451, 499])
async def test_a_refusal_that_blames_the_client_is_final_by_default(status: int) -> None:
    time = Time()
    async with refusing() as url:
        with pytest.raises(HandshakeRejectedError, match=str(status)):
            await exhaust(f"{url}/{status}", **time.arguments)
        assert time.slept == []
        with pytest.raises(HandshakeRejectedError, match=str(status)):
            await exhaust(f"{url}/{status}", final=until_attempt(3), **time.arguments)
        assert len(time.slept) == 2


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [200, 204, 302, 408, 425, 429, 500, 502, 503, 504, 599])
async def test_a_refusal_that_may_pass_is_tried_again_by_default(status: int) -> None:
    time = Time()
    async with refusing() as url:
        attempts = asyncio.ensure_future(exhaust(f"{url}/{status}", **time.arguments))
        await until(lambda: len(time.slept) > 3)
        attempts.cancel()
        await asyncio.wait([attempts])
    assert attempts.cancelled()


@pytest.mark.gen_test
async def test_nothing_is_final_if_the_caller_says_so() -> None:
    time = Time()
    async with refusing() as url:
        attempts = asyncio.ensure_future(exhaust(f"{url}/401", final=(), **time.arguments))
        await until(lambda: len(time.slept) > 3)
        attempts.cancel()
        await asyncio.wait([attempts])
    assert attempts.cancelled()


DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "slept"),
    [
        ("7", [7, 7, 7, 8]),
        ("0", [1, 2, 4, 8]),
        ("3", [3, 3, 4, 8]),
        ("3600", [20, 20, 20, 20]),
        ("9" * 5000, [20, 20, 20, 20]),
        ("Sun, 06 Nov 1994 08:49:44 GMT", [7, 7, 7, 8]),
        ("Sunday, 06-Nov-94 08:49:44 GMT", [7, 7, 7, 8]),
        ("Sun Nov  6 08:49:44 1994", [7, 7, 7, 8]),
        ("Sun, 06 Nov 1994 08:49:30 GMT", [1, 2, 4, 8]),
        ("Fri, 31 Dec 9999 23:59:59 GMT", [20, 20, 20, 20]),
        ("Fri, 31 Dec 99999 23:59:59 GMT", [1, 2, 4, 8]),
        ("-7", [1, 2, 4, 8]),
        ("7.5", [1, 2, 4, 8]),
        ("\xb2", [1, 2, 4, 8]),
        ("soon", [1, 2, 4, 8]),
        ("", [1, 2, 4, 8]),
    ],
)
async def test_retry_after_is_waited_for_up_to_the_longest_delay(
    status: int, retry_after: str, slept: list[float]
) -> None:
    time = Time()
    async with refusing(Retry_After=retry_after, Date=DATE) as url:
        with pytest.raises(HandshakeRejectedError):
            await exhaust(f"{url}/{status}", first_delay=1, max_delay=20, final=until_attempt(5), **time.arguments)
    assert time.slept == slept


@pytest.mark.gen_test
async def test_a_date_without_the_servers_is_compared_with_our_clock() -> None:
    time = Time(dice=0.0)
    async with refusing(Retry_After=formatdate(now() + 1000, usegmt=True), Date=None) as url:
        with pytest.raises(HandshakeRejectedError):
            await exhaust(f"{url}/503", max_delay=5000, final=until_attempt(2), **time.arguments)
    assert 800 < time.slept[0] <= 1000


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("url", "arguments", "error"),
    [
        ("http://127.0.0.1/", {}, ValueError),
        ("ws://127.0.0.1:1/", {"close_timeout": -1}, ValueError),
        ("ws://127.0.0.1:1/", {"no_such": 1}, TypeError),
        ("ws://127.0.0.1:1/", {"first_delay": 0}, ValueError),
        ("ws://127.0.0.1:1/", {"first_delay": 2, "max_delay": 1}, ValueError),
        ("ws://127.0.0.1:1/", {"max_delay": float("inf")}, ValueError),
        ("ws://127.0.0.1:1/", {"reset_after": -1}, ValueError),
        ("ws://127.0.0.1:1/", {"reset_after": float("nan")}, ValueError),
    ],
)
async def test_a_mistake_is_not_tried_again(url: str, arguments: dict[str, Any], error: type[Exception]) -> None:
    time = Time()
    with pytest.raises(error, match=next(iter(arguments), "URL")):
        await exhaust(url, **time.arguments, **arguments)
    assert time.slept == []


async def fail_in_the_body(url: str) -> None:
    async for _ in reconnect(url):
        raise Enough


@pytest.mark.gen_test
async def test_an_exception_in_the_body_ends_the_loop_and_closes_the_connection() -> None:
    calls: list[Any] = []
    async with serving(Recording, calls=calls) as url:
        with pytest.raises(Enough):
            await fail_in_the_body(url)
        await until(lambda: len(calls) == 2)


@pytest.mark.gen_test
@pytest.mark.parametrize("where", ["connecting", "sleeping", "body"])
async def test_cancelling_leaves_nothing(where: str) -> None:
    sockets = Sockets()
    reached = asyncio.Event()

    async def sleep(seconds: float) -> None:
        reached.set()
        await asyncio.sleep(100)

    async def run(url: str) -> None:
        async for _ in reconnect(url, sleep=sleep):
            if where == "body":
                reached.set()
                await asyncio.sleep(100)

    async with raw_server() as silent, serving(Echo) as url:
        running = asyncio.ensure_future(run(silent.url if where == "connecting" else url))
        if where == "connecting":
            peer = await silent.accept_tcp()
            await peer.receive_head()
        else:
            await reached.wait()
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
    await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_each_attempt_is_one_line_without_secrets(log: Log) -> None:
    time = Time()
    with nobody() as url, pytest.raises(ConnectionRefusedError):
        await exhaust(url, first_delay=1, final=until_attempt(3), **time.arguments)
    async with serving(Echo) as url:
        async for _ in reconnect(url + "/?token=secret", **time.arguments):
            break
    assert {record.levelno for record in log.records} == {logging.INFO}
    patterns = [
        r"WebSocket to ws://127.0.0.1:\d+/path: attempt 1 failed: .*refused.*; next in 1.00 s",
        r"WebSocket to ws://127.0.0.1:\d+/path: attempt 2 failed: .*refused.*; next in 2.00 s",
        r"WebSocket to ws://127.0.0.1:\d+/path: attempt 3 failed for good: .*refused.*",
        r"WebSocket to ws://127.0.0.1:\d+/: connected at attempt 1",
    ]
    assert len(log.lines) == len(patterns)
    for line, pattern in zip(log.lines, patterns, strict=True):
        assert re.fullmatch(pattern, line)
        assert "secret" not in line
