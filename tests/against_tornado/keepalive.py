"""Who is given up by the keepalive, when, and what ``on_close`` is told: three peers at a ping every half second."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from typing import Any

from tornado import websocket
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

CLOSE, PING, PONG = 0x8, 0x9, 0xA
INTERVAL = 0.5
#: The late peer's. `tornado_ws` gets a timeout that is longer; Tornado's cannot be longer than the interval.
LATE = 0.8
REQUEST = (
    "GET /{path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

ends: dict[str, tuple[float, int | None, str | None]] = {}


class Handler(websocket.WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        pass

    def on_close(self) -> None:
        ends[self.request.path] = (time.monotonic(), self.close_code, self.close_reason)


async def connect(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST.format(path=path).encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def send(writer: asyncio.StreamWriter, opcode: int, payload: bytes = b"") -> None:
    if not writer.is_closing():
        writer.write(struct.pack("BB", 0x80 | opcode, 0x80 | len(payload)) + bytes(4) + payload)


async def is_kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pong_after: float | None) -> bool:
    """Answer pings late or never; returns whether for some seconds there was no close frame."""
    loop = asyncio.get_running_loop()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        head = await reader.readexactly(2)
        payload = await reader.readexactly(head[1])
        if head[0] & 0xF == CLOSE:
            return False
        if head[0] & 0xF == PING and pong_after is not None:
            loop.call_later(pong_after, send, writer, PONG, payload)
    return True


async def talk(writer: asyncio.StreamWriter) -> None:
    while True:
        send(writer, 0x1, b"x")
        await asyncio.sleep(0.1)


async def main() -> None:
    settings: dict[str, Any] = {
        "websocket_ping_interval": INTERVAL,
        "websocket_ping_timeout": INTERVAL,
    }
    longer = {**settings, "websocket_keepalive_timeout": 3 * LATE}
    servers, ports = [], []
    for these in (settings, longer):
        server = HTTPServer(Application([("/.*", Handler)], **these))
        sock, port = bind_unused_port()
        server.add_sockets([sock])
        servers.append(server)
        ports.append(port)
    dead = await connect(ports[0], "dead")
    started = time.monotonic()
    late = await connect(ports[1], "late")
    talker = await connect(ports[0], "talker")
    talking = asyncio.ensure_future(talk(talker[1]))
    late_is_kept, talker_is_kept = await asyncio.gather(is_kept(*late, LATE), is_kept(*talker, None))
    talking.cancel()
    while "/dead" not in ends:
        await asyncio.sleep(0.05)
    when, code, reason = ends["/dead"]
    for _, writer in (dead, late, talker):
        writer.close()
    for server in servers:
        server.stop()
    print(
        json.dumps(
            {
                "a dead peer: seconds until on_close": round(when - started, 1),
                "a dead peer: close_code": code,
                "a dead peer: close_reason": reason,
                f"a peer whose pongs take {LATE} s is kept": late_is_kept,
                "a peer that sends messages and no pongs is kept": talker_is_kept,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
