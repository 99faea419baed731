"""`HTTPServer` beside Tornado's own: handlers and delegates that wait, raise, or do other things than to accept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tornado import httputil
from tornado.web import stream_request_body

import tornado_ws
from tests.server.sites import (
    GOODBYE,
    LAST_REQUEST,
    Plain,
    Site,
    Telling,
    compare,
    fields_of,
    request,
    site_of,
)
from tests.support import until


@pytest.mark.gen_test
async def test_a_coroutine_prepare_may_take_its_time(http_log: Callable[[], list[str]]) -> None:
    class Slow(Telling):
        async def prepare(self) -> None:
            super().prepare()
            for _ in range(10):
                await asyncio.sleep(0)

    answer, _ = await compare(lambda site: site.talk(request() + GOODBYE), http_log, short=True, handler=Slow)
    assert b" 101 " in answer


@pytest.mark.gen_test
async def test_a_client_may_leave_while_prepare_waits(http_log: Callable[[], list[str]]) -> None:
    class Waiting(Telling):
        async def prepare(self) -> None:
            super().prepare()
            self.left = asyncio.Event()
            await self.left.wait()
            self.site.seen.append("go on")

        def on_connection_close(self) -> None:
            self.site.seen.append("left")
            self.left.set()
            super().on_connection_close()

    async def leave(site: Site) -> None:
        async with site.peer() as peer:
            await peer.send(request())
            await until(lambda: site.seen)
        await until(lambda: "go on" in site.seen)

    _, seen = await compare(leave, http_log, short=True, handler=Waiting)
    assert seen[1:] == ["left", "go on"]


@pytest.mark.gen_test
@pytest.mark.parametrize("where", ["prepare", "get", "open", "initialize", "select_subprotocol"])
async def test_a_handler_that_raises(where: str, http_log: Callable[[], list[str]]) -> None:
    class Raising(Telling):
        pass

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("broken")

    setattr(Raising, where, fail)
    end = GOODBYE if where == "open" else b"" if where == "initialize" else LAST_REQUEST
    answer, _ = await compare(lambda site: site.talk(request() + end), http_log, short=True, handler=Raising)
    status = {"open": b"101", "initialize": b""}.get(where, b"500")
    assert status in answer[:15]


@pytest.mark.gen_test
async def test_a_handler_may_stream_its_body(http_log: Callable[[], list[str]]) -> None:
    @stream_request_body
    class Streaming(Plain):
        async def prepare(self) -> None:
            await asyncio.sleep(0)

        def data_received(self, chunk: bytes) -> None:
            raise AssertionError("no body was sent")

    answer, _ = await compare(
        lambda site: site.talk(request() + LAST_REQUEST), http_log, short=False, handler=Streaming
    )
    assert answer.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.gen_test
async def test_a_plain_callable_gets_the_request(http_log: Callable[[], list[str]]) -> None:
    def answer_with(site: list[Site]) -> Callable[[httputil.HTTPServerRequest], None]:
        def handle(request: httputil.HTTPServerRequest) -> None:
            site[0].seen.append(fields_of(request))
            connection: Any = request.connection
            start_line = httputil.ResponseStartLine("HTTP/1.1", 200, "OK")
            connection.write_headers(start_line, httputil.HTTPHeaders({"Content-Length": "2"}), b"ok")
            connection.finish()

        return handle

    sent = request() + request(Connection="close")
    answer, seen = await compare(lambda site: site.talk(sent), http_log, short=True, callback=answer_with)
    assert answer.count(b"ok") == 2
    assert len(seen) == 2


class Notes(httputil.HTTPServerConnectionDelegate, httputil.HTTPMessageDelegate):
    """A delegate of one's own, which notes what is called and raises an error, or waits, in one of the calls."""

    def __init__(self, site: list[Site], where: str, error: BaseException | None) -> None:
        self.site = site
        self.where = where
        self.error = error
        self.connection: Any = None

    def note(self, name: str) -> None:
        self.site[0].seen.append(name)
        if name == self.where and self.error is not None:
            raise self.error

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> Notes:
        self.connection = request_conn
        return self

    def on_close(self, server_conn: object) -> None:
        self.note("on_close")

    def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> Awaitable[None] | None:
        self.note("headers_received")
        return self.wait() if self.where == "wait" else None

    async def wait(self) -> None:
        await asyncio.sleep(0)
        self.note("wait")

    def finish(self) -> None:
        self.note("finish")
        self.connection.write_headers(
            httputil.ResponseStartLine("HTTP/1.1", 200, "OK"), httputil.HTTPHeaders({"Content-Length": "0"})
        )
        self.connection.finish()

    def on_connection_close(self) -> None:
        self.note("on_connection_close")


@pytest.mark.gen_test
@pytest.mark.parametrize("where", ["", "headers_received", "finish", "wait"])
@pytest.mark.parametrize("error", [None, httputil.HTTPInputError("bad"), OSError("broken"), asyncio.CancelledError()])
async def test_a_delegate_of_ones_own(
    where: str, error: BaseException | None, http_log: Callable[[], list[str]]
) -> None:
    sent = request(Connection="close")
    await compare(lambda site: site.talk(sent), http_log, short=True, callback=lambda site: Notes(site, where, error))


@pytest.mark.gen_test
async def test_a_delegate_may_answer_before_the_end(http_log: Callable[[], list[str]]) -> None:
    class Early(Notes):
        def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> None:
            super().headers_received(start_line, headers)
            self.finish()

    answer, seen = await compare(
        lambda site: site.talk(request()), http_log, short=True, callback=lambda site: Early(site, "", None)
    )
    assert b" 200 OK" in answer
    assert seen.count("finish") == 1


@pytest.mark.gen_test
async def test_a_delegate_may_detach_the_stream(http_log: Callable[[], list[str]]) -> None:
    class Detaching(Notes):
        def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> None:
            self.note("headers_received")
            stream = self.connection.detach()
            stream.write(b"detached").add_done_callback(lambda _: stream.close())

    answer, seen = await compare(
        lambda site: site.talk(request()), http_log, short=True, callback=lambda site: Detaching(site, "", None)
    )
    assert answer == b"detached"
    assert seen == ["headers_received"]


@pytest.mark.gen_test
async def test_a_delegate_that_cannot_start_a_request_ends_the_connection(http_log: Callable[[], list[str]]) -> None:
    class Unable(Notes):
        def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> Notes:
            raise OSError("broken")

    async with site_of(tornado_ws.HTTPServer, callback=lambda site: Unable(site, "", None)) as site:
        assert await site.talk(request()) == b""
        await until(lambda: not site.server._connections)
    assert http_log() == ["ERROR tornado.general Uncaught exception"]
