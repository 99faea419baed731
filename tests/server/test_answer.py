"""The 101 is sent past Tornado's code for answers: with the same bytes, and whatever an application overrides of it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from typing import Any

import pytest
from tornado import httputil
from tornado.web import RequestHandler

import tornado_ws
from tests.server.sites import GOODBYE, LAST_REQUEST, Telling, everything, request, site_of
from tests.support import until
from tornado_ws.connection import opening
from tornado_ws.transport import http_answer


async def both_ways(
    monkeypatch: pytest.MonkeyPatch,
    handler: type[Telling],
    *,
    end: bytes = GOODBYE,
    leaves: bool = False,
    **options: Any,
) -> tuple[bytes, list[Any]]:
    """Accept one handshake the short way and one by `RequestHandler.finish`; return what was the same."""
    outcomes = []
    for short in (True, False):
        with monkeypatch.context() as patches:
            if not short:
                patches.setattr(opening, "send_101", lambda handler, accept: False)
                patches.setattr("tornado_ws.server.handler.clear_answer", lambda handler: False)
            async with site_of(tornado_ws.HTTPServer, handler, **options) as site:
                async with site.peer() as peer:
                    await peer.send(request() + end)
                    if leaves:
                        peer.sock.shutdown(socket.SHUT_WR)
                    answer = await everything(peer)
                await until(lambda site=site: not site.server._connections)  # type: ignore[misc]
            outcomes.append((answer, site.seen))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note which answers were sent the short way."""
    taken: list[bool] = []

    def send(handler: Any, accept: str) -> bool:
        taken.append(http_answer.send_101(handler, accept))
        return taken[-1]

    monkeypatch.setattr(opening, "send_101", send)
    return taken


@pytest.mark.gen_test
async def test_an_answer_is_the_same(monkeypatch: pytest.MonkeyPatch, ways: list[bool]) -> None:
    class Handler(Telling):
        def set_default_headers(self) -> None:
            self.set_header("Server", "mine")
            self.set_header("Content-Language", "de")
            self.add_header("X-Many", "1")
            self.add_header("X-Many", "\xe4")

        def _break_cycles(self) -> None:
            self.site.seen.append("break cycles")
            super()._break_cycles()

        def on_finish(self) -> None:
            connection: Any = self.request.connection
            self.site.seen.append(
                (
                    self.get_status(),
                    self._reason,
                    self._finished,
                    self._headers_written,
                    [(name, value) for name, value in self._headers.get_all() if name != "Date"],
                    connection._write_finished,
                    connection._response_start_line,
                    connection._close_callback,
                    connection._chunking_output,
                    connection._expected_content_remaining,
                )
            )

    answer, seen = await both_ways(monkeypatch, Handler)
    assert ways == [True]
    assert b"\r\nX-Many: 1\r\nX-Many: \xe4\r\n" in answer
    assert b"Content-Language" not in answer
    assert [type(entry) for entry in seen].count(tuple) == 3


@pytest.mark.gen_test
async def test_the_request_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []

    def log(handler: RequestHandler) -> None:
        logged.append((handler.get_status(), handler._headers["Upgrade"], handler._finished))

    await both_ways(monkeypatch, Telling, settings={"log_function": log})
    assert logged == [(101, "websocket", False)] * 2


@pytest.mark.gen_test
@pytest.mark.parametrize("step", ["finish", "flush", "set_status", "set_header", "clear_header"])
@pytest.mark.parametrize("on", ["class", "instance"])
async def test_what_is_overridden_is_called(
    step: str, on: str, monkeypatch: pytest.MonkeyPatch, ways: list[bool]
) -> None:
    tornados: Callable[..., Any] = getattr(RequestHandler, step)

    class Handler(Telling):
        def prepare(self) -> None:
            super().prepare()
            if on == "instance":
                setattr(self, step, lambda *args, **kwargs: self.step(*args, **kwargs))

        def step(self, *args: Any, **kwargs: Any) -> Any:
            self.site.seen.append((step, args, kwargs))
            return tornados(self, *args, **kwargs)

    if on == "class":
        setattr(Handler, step, Handler.step)
    _, seen = await both_ways(monkeypatch, Handler)
    assert any(entry[0] == step for entry in seen[1:])
    assert ways == [False]


@pytest.mark.gen_test
async def test_a_cookie_goes_with_it(monkeypatch: pytest.MonkeyPatch, ways: list[bool]) -> None:
    class Handler(Telling):
        def prepare(self) -> None:
            super().prepare()
            self.set_cookie("a", "b")

    answer, _ = await both_ways(monkeypatch, Handler)
    assert b"Set-Cookie: a=b; Path=/\r\n" in answer
    assert ways == [False]


@pytest.mark.gen_test
async def test_transforms_are_asked(monkeypatch: pytest.MonkeyPatch, ways: list[bool]) -> None:
    answer, _ = await both_ways(monkeypatch, Telling, settings={"compress_response": True})
    assert b" 101 " in answer
    assert ways == [False]


@pytest.mark.gen_test
async def test_a_connection_that_is_to_end_is_tornados(monkeypatch: pytest.MonkeyPatch, ways: list[bool]) -> None:
    answer, _ = await both_ways(monkeypatch, Telling, end=b"", no_keep_alive=True)
    assert b"Connection: close\r\n" in answer
    assert ways == [False]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Bad", "a\r\nB: c"), ("X-Bad", "a\rb"), ("X-Bad", "a\nb"), ("X-Bad", "\u20ac"), ("Content-Length", "3")],
)
async def test_what_cannot_be_sent_fails_as_it_does_in_tornado(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, ways: list[bool]
) -> None:
    class Handler(Telling):
        def prepare(self) -> None:
            super().prepare()
            headers: Any = self._headers
            headers._as_list[name] = [value]

    answer, _ = await both_ways(monkeypatch, Handler, end=LAST_REQUEST)
    # Tornado 6.2 looks for LF alone.
    assert name == "Content-Length" or value == "a\rb" or not answer.startswith(b"HTTP/1.1 101")
    assert ways == [False]


@pytest.mark.gen_test
@pytest.mark.parametrize("where", ["_log", "on_finish", "detach"])
@pytest.mark.parametrize("end", [GOODBYE, LAST_REQUEST], ids=["frames", "a request"])
async def test_the_connection_goes_on_if_what_is_called_last_raises(
    where: str, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Telling):
        pass

    def fail(handler: Any) -> None:
        raise OSError("broken")

    setattr(Failing, where, fail)

    answer, _ = await both_ways(monkeypatch, Failing, end=end, leaves=True)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"plain") is (end == LAST_REQUEST)


@pytest.mark.gen_test
async def test_a_long_answer_is_sent_whole(ways: list[bool]) -> None:
    class Handler(Telling):
        def set_default_headers(self) -> None:
            self.set_header("X-Large", "x" * 10_000_000)

    async with site_of(tornado_ws.HTTPServer, Handler) as site, site.peer() as peer:
        await peer.send(request())
        # It is more than the kernel takes of a connection that nobody reads.
        await until(lambda: len(site.seen) == 2)
        await peer.send(GOODBYE)
        answer = await everything(peer)
        assert b"x" * 10_000_000 + b"\r\n" in answer
        assert answer.endswith(b"\r\n\r\n\x88\x02\x03\xe8")
    assert ways == [True]


@pytest.mark.gen_test
async def test_clear_makes_an_answer_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []

    class Handler(Telling):
        def prepare(self) -> None:
            for short in (True, False):
                with monkeypatch.context() as patches:
                    if not short:
                        patches.setattr("tornado_ws.server.handler.clear_answer", lambda handler: False)
                    self.write("a body")
                    self.set_status(599, "odd")
                    self.set_header("X-Other", "1")
                    patches.setattr("time.time", lambda: 1e9 + 0.75)
                    self.clear()
                answers.append((list(self._headers.get_all()), [*self._write_buffer], self._status_code, self._reason))
                assert isinstance(self._headers, httputil.HTTPHeaders)

    async with site_of(tornado_ws.HTTPServer, Handler) as site:
        await site.talk(request() + GOODBYE)
    assert answers[0] == answers[1]
    assert ("Date", "Sun, 09 Sep 2001 01:46:40 GMT") in answers[0][0]
    assert answers[0][1:] == ([], 200, http.client.responses[200])
