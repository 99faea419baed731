"""A loop that runs inside a callback of it, and waits for what the peer answers: nest_asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Tls
from tests.peer import RawPeer, raw_client, tls_client
from tests.programs import run
from tests.support import run_loop_until, serving
from tests.wire import TEXT, Frame
from tornado_ws import WebSocketHandler

_PROGRAM = """
import asyncio

import nest_asyncio
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from tornado_ws import WebSocketHandler, websocket_connect

answered = asyncio.Event()


class Asking(WebSocketHandler):
    def on_message(self, message):
        if message == "begin":
            for number in range(3):
                self.write_message(str(number))
            asyncio.get_running_loop().run_until_complete(answered.wait())
            self.write_message("end")
        else:
            answered.set()


async def main():
    nest_asyncio.apply()
    listener, port = bind_unused_port()
    server = HTTPServer(Application([("/", Asking)]))
    server.add_socket(listener)
    first, second = [await websocket_connect(f"ws://127.0.0.1:{port}/") for _ in range(2)]
    await first.write_message("begin")
    print(*[await first.read_message() for _ in range(3)])
    await second.write_message("answer")
    print(await first.read_message())
    for conn in (first, second):
        conn.close()
        await conn.wait_closed()
    server.stop()


asyncio.run(main())
"""


def test_with_nest_asyncio() -> None:
    done = run("-c", _PROGRAM)
    assert (done.stdout, done.stderr, done.returncode) == ("0 1 2\nend\n", "", 0)


@pytest.fixture
def nests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be as if nest_asyncio had patched asyncio, of which the whole process would have something."""
    monkeypatch.setattr(asyncio, "_nest_patched", True, raising=False)


def asking(each: int, received: list[Any]) -> type[WebSocketHandler]:
    """Return a handler that writes ``each`` times what it gets, and the first time waits until that is received."""

    class Asking(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            self.answer(message)
            if message == "0":
                run_loop_until(lambda: len(received) >= each)
                # What follows leaves too.
                self.answer("-")
                run_loop_until(lambda: len(received) >= 2 * each)

        def answer(self, message: str | bytes) -> None:
            for _ in range(each):
                self.write_message(message)

    return Asking


async def receive_all(client: RawPeer, texts: list[str], each: int, received: list[Any]) -> None:
    answers = [Frame(TEXT, text.encode()) for text in ["0", "-", *texts[1:]] for _ in range(each)]
    await client.send(b"".join(client.frame(TEXT, text.encode()) for text in texts))
    while len(received) < len(answers):
        received.append(await client.receive())
    assert received == answers


@pytest.mark.gen_test
@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("texts", [["0"], ["0", "1", "2"]], ids=["alone", "with others behind it"])
async def test_what_a_callback_holds_back_leaves(each: int, texts: list[str], nests: None) -> None:
    received: list[Any] = []
    async with serving(asking(each, received)) as url, raw_client(url) as client:
        await receive_all(client, texts, each, received)


@pytest.mark.gen_test
async def test_over_tls(tls: Tls, nests: None) -> None:
    received: list[Any] = []
    async with (
        serving(asking(3, received), ssl_options=tls.server) as url,
        tls_client(url, tls.client) as client,
    ):
        await receive_all(client, ["0", "1"], 3, received)
