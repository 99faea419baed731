"""A fixed work whose instructions can be counted: ``python -m benchmarks.replay WORK MESSAGES``.

No clock, no other process, no randomness but the mask keys of our own client: the same count every time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

import tornado_ws
from benchmarks import payloads
from benchmarks.micro import client_frames
from tornado_ws import WebSocketHandler, engine
from tornado_ws.connection import delivery
from tornado_ws.deflate import codec
from tornado_ws.engine import reader, serving
from tornado_ws.transport import poller

# An emulator's time is not a processor's: no turn of the loop is to end by it.
for module in (reader, serving, delivery, poller):
    vars(module)["TURN_TIME"] = 3600.0
if engine.name == "native":
    importlib.import_module("tornado_ws.engine._native")._set_turn_time(3600.0)

#: What can be counted; the number is how many messages are in flight.
#: What can be replayed, and the messages whose cost is counted.
WORKS = {
    "engine": 6400,
    "server-1": 1000,
    "server-64": 6400,
    "deflate-16": 3200,
    "coroutine-64": 6400,
    "waiting-64": 6400,
    "burst-64": 6400,
    "opening-1": 100,
    "storm-1": 100,
}

_LIMIT = 1024 * 1024
_FIN_TEXT = 0x81
_FIN_RSV1_TEXT = 0xC1
_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
#: A close frame with 1000; what it is masked with changes nothing.
_CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
_DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
#: More than a turn of the loop ever needs; a server that does not answer must not hang us.
_TURNS = 1000


class Echo(WebSocketHandler):
    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


class AwaitingEcho(Echo):
    async def on_message(self, message: str | bytes) -> None:  # type: ignore[override]
        await self.write_message(message, binary=isinstance(message, bytes))


class WaitingEcho(Echo):
    async def on_message(self, message: str | bytes) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        await self.write_message(message, binary=isinstance(message, bytes))


class BurstEcho(Echo):
    count = 0

    def on_message(self, message: str | bytes) -> None:
        self.task = asyncio.create_task(self.write_burst(message))

    async def write_burst(self, message: str | bytes) -> None:
        for _ in range(self.count):
            self.write_message(message)


def replay_engine(messages: int) -> None:
    """Parse frames, 64 a chunk, and encode an answer to each."""
    texts = payloads.text(32, 64)
    chunk = client_frames([text.encode() for text in texts])
    frames = engine.FrameReader(True, _LIMIT)
    for _ in range(messages // len(texts)):
        frames.feed(chunk)
        for event in frames:
            if event is None:
                break
            payload = event[1]
            assert isinstance(payload, str)
            engine.encode_frame(_FIN_TEXT, payload.encode(), False)


async def replay_server(messages: int, depth: int, handler: type[Echo] = Echo) -> None:
    """Send messages to a server in this process, ``depth`` at a time, and take its answers."""
    texts = payloads.text(32, depth)
    chunk = client_frames([text.encode() for text in texts])
    size = len(chunk) - 4 * depth
    await _replay(messages // depth, _HANDSHAKE, chunk, lambda answers: len(answers) == size, handler)


async def replay_coroutines(messages: int, depth: int) -> None:
    """As `replay_server`, with a coroutine that awaits its write."""
    await replay_server(messages, depth, AwaitingEcho)


async def replay_waiting(messages: int, depth: int) -> None:
    """As `replay_server`, with a coroutine that waits for a turn of the loop first."""
    await replay_server(messages, depth, WaitingEcho)


async def replay_bursts(messages: int, depth: int) -> None:
    """Have a task write each message ``depth`` times."""
    BurstEcho.count = depth
    chunk = client_frames([text.encode() for text in payloads.text(32, 1)])
    size = (len(chunk) - 4) * depth
    await _replay(messages // depth, _HANDSHAKE, chunk, lambda answers: len(answers) == size, BurstEcho)


async def replay_openings(connections: int, width: int, server: type[HTTPServer] = HTTPServer) -> None:
    """Open and close connections, ``width`` at a time."""
    async with _serving(Echo, server) as address:
        for _ in range(connections // width):
            clients = [await _connect(address, _HANDSHAKE) for _ in range(width)]
            for client in clients:
                client.send(_CLOSE)
            for client in clients:
                while await _receive(client):
                    pass
                client.close()


async def replay_storm(connections: int, width: int) -> None:
    """As `replay_openings`, with the HTTP server of ours."""
    await replay_openings(connections, width, tornado_ws.HTTPServer)


async def replay_deflate(messages: int, depth: int) -> None:
    """As `replay_server`, with JSON of 93 bytes and permessage-deflate."""
    # What came in refers to nothing before it, so that it can be sent again; the answers do.
    deflated = [codec.compress_alone(text.encode()) for text in payloads.small_json(depth)]
    chunk = client_frames(deflated, _FIN_RSV1_TEXT)
    await _replay(messages // depth, _HANDSHAKE + _DEFLATE, chunk, lambda answers: _count_frames(answers) == depth)


async def _replay(
    rounds: int, handshake: bytes, chunk: bytes, are_all: Callable[[bytes], bool], handler: type[Echo] = Echo
) -> None:
    async with _serving(handler) as address:
        with await _connect(address, handshake) as client:
            for _ in range(rounds):
                client.send(chunk)
                answers = b""
                while not are_all(answers):
                    answers += await _receive(client)


@contextlib.asynccontextmanager
async def _serving(handler: type[Echo], server_class: type[HTTPServer] = HTTPServer) -> AsyncIterator[tuple[str, int]]:
    (listener,) = bind_sockets(0, "127.0.0.1")
    server = server_class(Application([("/", handler)]))
    server.add_sockets([listener])
    yield listener.getsockname()[:2]
    server.stop()


async def _connect(address: tuple[str, int], handshake: bytes) -> socket.socket:
    client = socket.create_connection(address)
    client.setblocking(False)
    client.send(handshake + b"\r\n")
    while not (await _receive(client)).endswith(b"\r\n\r\n"):
        pass
    return client


def _count_frames(data: bytes) -> int:
    """Return how many small frames ``data`` has."""
    count = pos = 0
    while pos < len(data):
        pos += 2 + data[pos + 1]
        count += 1
    return count if pos == len(data) else count - 1


async def _receive(client: socket.socket) -> bytes:
    # Not loop.sock_recv: what that costs us would be counted for the server.
    for _ in range(_TURNS):
        await asyncio.sleep(0)
        try:
            return client.recv(65536)
        except BlockingIOError:
            continue
    raise AssertionError("the server does not answer")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("messages", type=int)
    arguments = parser.parse_args()
    if arguments.work == "engine":
        replay_engine(arguments.messages)
    else:
        kind, _, depth = arguments.work.partition("-")
        replays: dict[str, Callable[[int, int], Coroutine[Any, Any, None]]] = {
            "server": replay_server,
            "deflate": replay_deflate,
            "coroutine": replay_coroutines,
            "waiting": replay_waiting,
            "burst": replay_bursts,
            "opening": replay_openings,
            "storm": replay_storm,
        }
        asyncio.run(replays[kind](arguments.messages, int(depth)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
