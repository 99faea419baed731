"""A server is stopped under load: which messages were handled, which of those answered, and what clients were told.

Tornado has nothing for it, so there the handlers are closed one by one, as applications do it by hand.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tornado import websocket
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

CLIENTS = 10
AHEAD = 20

handlers: set[Any] = set()
counts = {"handled": 0, "not answered": 0}


class Worker(websocket.WebSocketHandler):
    def open(self) -> None:
        handlers.add(self)

    async def on_message(self, message: str | bytes) -> None:
        await asyncio.sleep(0.001)
        counts["handled"] += 1
        try:
            await self.write_message(message)
        except websocket.WebSocketClosedError:
            counts["not answered"] += 1

    def on_close(self) -> None:
        handlers.discard(self)


async def client(url: str, codes: list[int | None]) -> None:
    conn = await websocket.websocket_connect(url)
    answers = sent = 0
    try:
        while True:
            while sent < answers + AHEAD:
                await conn.write_message(f"{sent}")
                sent += 1
            if await conn.read_message() is None:
                break
            answers += 1
    except websocket.WebSocketClosedError:
        while await conn.read_message() is not None:
            answers += 1
    codes.append(conn.close_code)


async def main() -> None:
    application = Application([("/", Worker)])
    server = HTTPServer(application)
    sock, port = bind_unused_port()
    server.add_sockets([sock])
    codes: list[int | None] = []
    clients = [asyncio.ensure_future(client(f"ws://127.0.0.1:{port}/", codes)) for _ in range(CLIENTS)]
    while counts["handled"] < 50 * CLIENTS:
        await asyncio.sleep(0.01)
    server.stop()
    close_all: Any = getattr(websocket, "close_all", None)
    if close_all is not None:
        await close_all(application)
    else:
        for handler in list(handlers):
            handler.close(1001)
        for _ in range(6000):
            if handlers:
                await asyncio.sleep(0.01)
    await asyncio.wait(clients, timeout=60)
    print(
        json.dumps(
            {
                "messages handled and not answered": counts["not answered"],
                f"of {CLIENTS} clients, told 1001": codes.count(1001),
                "connections open at the end": len(handlers),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
