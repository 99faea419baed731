"""A fixed work whose instructions can be counted: ``python -m benchmarks.replay WORK MESSAGES``.

No clock, no other process, no randomness but the mask keys of our own client: the same count every time.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from benchmarks import payloads
from benchmarks.micro import client_frames
from tornado_ws import WebSocketHandler, engine

_LIMIT = 1024 * 1024
_FIN_TEXT = 0x81
_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
#: More than a turn of the loop ever needs; a server that does not answer must not hang us.
_TURNS = 1000


class Echo(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


def replay_engine(messages: int) -> None:
    """Parse frames, 64 a chunk, and encode an answer to each."""
    texts = payloads.text(32, 64)
    chunk = client_frames([text.encode() for text in texts])
    reader = engine.FrameReader(True, _LIMIT)
    for _ in range(messages // len(texts)):
        reader.feed(chunk)
        for event in reader:
            if event is None:
                break
            payload = event[1]
            assert isinstance(payload, str)
            engine.encode_frame(_FIN_TEXT, payload.encode(), False)


async def replay_server(messages: int, depth: int) -> None:
    """Send messages to a server in this process, ``depth`` at a time, and take its answers."""
    texts = payloads.text(32, depth)
    chunk = client_frames([text.encode() for text in texts])
    (listener,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([("/", Echo)]))
    server.add_sockets([listener])
    with socket.create_connection(listener.getsockname()[:2]) as client:
        client.setblocking(False)
        client.send(_HANDSHAKE)
        while not (await _receive(client)).endswith(b"\r\n\r\n"):
            pass
        answer_size = len(chunk) - 4 * depth
        for _ in range(messages // depth):
            client.send(chunk)
            received = 0
            while received < answer_size:
                received += len(await _receive(client))
    server.stop()


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
    parser.add_argument("work", choices=("engine", "server-1", "server-64"))
    parser.add_argument("messages", type=int)
    arguments = parser.parse_args()
    if arguments.work == "engine":
        replay_engine(arguments.messages)
    else:
        asyncio.run(replay_server(arguments.messages, int(arguments.work.rpartition("-")[2])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
