"""What happens when handling events raises, above all when memory runs out: one connection ends, no other notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.conftest import Log
from tests.peer import Recording, Sockets, StallingEcho, exchange, frame, raw_client, raw_server
from tests.support import Echo, serving, until
from tests.wire import RSV1, TEXT, Frame, deflated
from tornado_ws import websocket_connect
from tornado_ws.connection import protocol13
from tornado_ws.deflate import codec
from tornado_ws.engine.write_queue import WriteQueue
from tornado_ws.transport.poller import poller_of
from tornado_ws.transport.transport import Transport

ERRORS = [MemoryError(), OSError(12, "Cannot allocate memory"), RuntimeError("a fault")]


def fail(*args: Any) -> Any:
    raise MemoryError


class Compressing(Recording):
    def get_compression_options(self) -> dict[str, Any]:
        # Answers go as they are.
        return {"threshold": 1000}


@pytest.mark.gen_test
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_one_connection_ends_and_the_others_of_the_batch_are_served(
    error: Exception, each_poller: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[Any]] = [[], [], []]
    inflate = codec.PerMessageDeflateDecompressor.inflate

    def failing(self: Any, data: bytes, limit: int) -> bytes:
        if data == deflated(b"fail"):
            raise error
        return inflate(self, data, limit)

    monkeypatch.setattr(codec.PerMessageDeflateDecompressor, "inflate", failing)
    routes = [(f"/{number}", Compressing, {"calls": calls[number]}) for number in range(3)]
    extension: dict[str, Any] = {"Sec_WebSocket_Extensions": "permessage-deflate"}
    async with serving(routes) as url, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(f"{url}/{n}", **extension)) for n in range(3)]
        await exchange(*clients)
        # In the kernel all at once, so that they are one batch.
        for client, text in zip(clients, (b"fail", b"1", b"2"), strict=True):
            client.sock.send(client.frame(TEXT, deflated(text), rsv=RSV1))
        for number in (1, 2):
            answer = await clients[number].receive()
            assert answer is not None
            assert answer.opcode == TEXT
        await until(lambda: calls[0][-1] == ("close", None, None), timeout=20)
        with contextlib.suppress(ConnectionError):
            assert await clients[0].receive() is None
        await exchange(*clients[1:])
        record = log.only() if not isinstance(error, RuntimeError) else log.records[0]
        assert len(log.records) == 1
        assert repr(error) in record.getMessage()
        assert bool(record.exc_info) is isinstance(error, RuntimeError)
    assert calls[0] == ["open", "x", ("close", None, None)]


@pytest.mark.gen_test
async def test_an_error_while_writing_what_waited_ends_that_connection(
    each_poller: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers: list[Any] = []

    class Handler(StallingEcho):
        def open(self) -> None:
            super().open()
            handlers.append(self)

        def on_close(self) -> None:
            handlers.clear()

    async with (
        serving([("/", Handler), ("/echo", Echo)]) as url,
        raw_client(url + "/echo") as other,
        raw_client(url, stalling=True) as client,
    ):
        await exchange(other)
        await until(lambda: handlers)
        writing = handlers[0].write_message(bytes(3_000_000), binary=True)
        assert not writing.done()
        monkeypatch.setattr(WriteQueue, "first", fail)
        with contextlib.suppress(ConnectionError):
            while await client.receive_bytes():
                pass
        await until(lambda: not handlers, timeout=20)
        await exchange(other)
    assert [line for line in log.lines if "MemoryError" in line and "aborted" in line]


@pytest.mark.gen_test
async def test_nothing_is_written_into_the_middle_of_a_frame(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel took a part, and there is no memory to keep the rest."""
    handlers: list[Any] = []

    class Handler(StallingEcho):
        def open(self) -> None:
            super().open()
            handlers.append(self)

    async with serving(Handler) as url, raw_client(url, stalling=True) as client:
        await until(lambda: handlers)
        protocol = handlers[0].ws_connection
        with monkeypatch.context() as patches:
            patches.setattr(WriteQueue, "append", fail)
            with pytest.raises(MemoryError):
                handlers[0].write_message(bytes(3_000_000), binary=True)
        assert protocol.stream.closed()
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := await client.receive_bytes():
                received += data
        assert received[:1] == b"\x82"
        assert not received[10:].strip(b"\0")


@pytest.mark.gen_test
@pytest.mark.parametrize("step", ["_give_up_writes", "_sums"])
async def test_without_memory_a_connection_closes_all_the_same(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(Transport, step, fail)
    async with serving(Recording, calls=calls) as url:
        client = await websocket_connect(url)
        await client.write_message("x")
        assert await client.read_message() == "x"
        stream = client.stream
        client.close(4000)
        assert await client.read_message() is None
        await client.wait_closed()
        assert stream.closed()
        await until(lambda: len(calls) == 3)
    assert calls == ["open", "x", ("close", 4000, None)]
    await until(lambda: not poller_of(IOLoop.current()).connections())


@pytest.mark.gen_test
async def test_without_memory_for_a_reader_a_server_closes_that_connection(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    sockets = Sockets()
    async with serving(Recording, calls=calls) as url:
        async with raw_client(url) as other:
            await exchange(other)
            with monkeypatch.context() as patches:
                patches.setattr(protocol13, "FrameReader", fail)
                async with raw_client(url) as client:
                    assert await client.receive() is None
            await exchange(other)
        await until(lambda: len(calls) == 4)
    assert calls == ["open", "x", "x", ("close", None, None)]
    assert "aborted: handling its events raised MemoryError()" in log.only().getMessage()
    await until(lambda: not sockets.new())


@pytest.mark.gen_test
async def test_without_memory_for_a_reader_a_client_ends(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = Sockets()
    async with raw_server() as server:
        monkeypatch.setattr(protocol13, "FrameReader", fail)
        connecting = asyncio.ensure_future(websocket_connect(server.url))
        peer = await server.accept()
        client = await connecting
        assert await client.read_message() is None
        await client.wait_closed()
        assert await peer.receive() is None
    assert "aborted: handling its events raised MemoryError()" in log.only().getMessage()
    await until(lambda: not sockets.new())


_SERVER = """
import asyncio, logging, resource, sys
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado_ws import WebSocketHandler

class Echo(WebSocketHandler):
    def on_message(self, message):
        self.write_message(message)

async def main():
    logging.basicConfig(level=logging.ERROR)
    server = HTTPServer(Application([("/", Echo)], websocket_max_message_size=1 << 30))
    sock, port = bind_unused_port()
    server.add_sockets([sock])
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), resource.RLIM_INFINITY))
    print(port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.gen_test(timeout=120)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of address space is Linux's")
@pytest.mark.parametrize("kind", ["one frame", "fragments"])
async def test_a_server_outlives_a_message_for_which_there_is_no_memory(kind: str) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    try:
        assert server.stdout is not None
        assert server.stderr is not None
        port = await asyncio.get_running_loop().run_in_executor(None, server.stdout.readline)
        async with (
            raw_client(f"ws://127.0.0.1:{int(port)}") as other,
            raw_client(f"ws://127.0.0.1:{int(port)}") as peer,
        ):
            await exchange(other)
            block = bytes(1 << 18)
            with pytest.raises(ConnectionError):  # noqa: PT012
                if kind == "one frame":
                    await peer.send(frame(0x2, length=1 << 29, masked=True))
                for number in range(2000):
                    opcode = 0x0 if number else 0x2
                    await peer.send(block if kind == "one frame" else peer.frame(opcode, block, fin=False))
            await exchange(other)
            await other.send_frame(TEXT, b"still here")
            assert await other.receive() == Frame(TEXT, b"still here")
        assert server.poll() is None
        server.send_signal(signal.SIGKILL)
        lines = server.stderr.read().splitlines()
        assert len(lines) == 1, lines
        assert "aborted" in lines[0]
        assert "MemoryError" in lines[0]
    finally:
        server.kill()
        server.communicate()
