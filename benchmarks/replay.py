"""A fixed work whose instructions can be counted: ``python -m benchmarks.replay WORK MESSAGES``.

No clock, no other process, no randomness but the mask keys of our own client: the same count every time.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import socket
import sys
from collections.abc import Callable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from benchmarks import payloads
from benchmarks.micro import client_frames
from tornado_ws import WebSocketHandler, engine
from tornado_ws.connection import protocol13
from tornado_ws.deflate import codec
from tornado_ws.engine import channel, reader
from tornado_ws.transport import poller

# An emulator's time is not a processor's: no turn of the loop is to end by it.
for module in (reader, channel, protocol13, poller):
    vars(module)["TURN_TIME"] = 3600.0
if engine.name == "native":
    importlib.import_module("tornado_ws.engine._native")._set_turn_time(3600.0)

_LIMIT = 1024 * 1024
_FIN_TEXT = 0x81
_FIN_RSV1_TEXT = 0xC1
_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
_DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
#: More than a turn of the loop ever needs; a server that does not answer must not hang us.
_TURNS = 1000


class Echo(WebSocketHandler):
    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


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


async def replay_server(messages: int, depth: int) -> None:
    """Send messages to a server in this process, ``depth`` at a time, and take its answers."""
    texts = payloads.text(32, depth)
    chunk = client_frames([text.encode() for text in texts])
    size = len(chunk) - 4 * depth
    await _replay(messages // depth, _HANDSHAKE, chunk, lambda answers: len(answers) == size)


async def replay_deflate(messages: int, depth: int) -> None:
    """As `replay_server`, with JSON of 93 bytes and permessage-deflate."""
    # What came in refers to nothing before it, so that it can be sent again; the answers do.
    deflated = [codec.compress_alone(text.encode()) for text in payloads.small_json(depth)]
    chunk = client_frames(deflated, _FIN_RSV1_TEXT)
    await _replay(messages // depth, _HANDSHAKE + _DEFLATE, chunk, lambda answers: _count_frames(answers) == depth)


async def _replay(rounds: int, handshake: bytes, chunk: bytes, are_all: Callable[[bytes], bool]) -> None:
    (listener,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([("/", Echo)]))
    server.add_sockets([listener])
    with socket.create_connection(listener.getsockname()[:2]) as client:
        client.setblocking(False)
        client.send(handshake + b"\r\n")
        while not (await _receive(client)).endswith(b"\r\n\r\n"):
            pass
        for _ in range(rounds):
            client.send(chunk)
            answers = b""
            while not are_all(answers):
                answers += await _receive(client)
    server.stop()


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
    parser.add_argument("work", choices=("engine", "server-1", "server-64", "deflate-16"))
    parser.add_argument("messages", type=int)
    arguments = parser.parse_args()
    if arguments.work == "engine":
        replay_engine(arguments.messages)
    else:
        kind, _, depth = arguments.work.partition("-")
        replay = {"server": replay_server, "deflate": replay_deflate}[kind]
        asyncio.run(replay(arguments.messages, int(depth)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
