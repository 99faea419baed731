"""What is left of a connect and of a read that were cancelled, and of a read after the end."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tornado import websocket
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

ROUNDS = 20


class Numbers(websocket.WebSocketHandler):
    """Sends the next number whenever it is asked for one."""

    def open(self) -> None:
        self.number = 0

    def on_message(self, message: str | bytes) -> None:
        self.write_message(f"{self.number}")
        self.number += 1


def open_sockets() -> int:
    folder = Path("/proc/self/fd")
    # The one that lists them is gone again.
    links = [os.readlink(link) for link in folder.iterdir() if link.is_symlink()]
    return sum(link.startswith("socket:") for link in links)


async def cancel_connects() -> int:
    """Return the sockets of our own that are left of connects to a server which says nothing."""
    accepted: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda reader, writer: accepted.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    before = open_sockets()
    for number in range(ROUNDS):
        connecting: Any = websocket.websocket_connect(f"ws://127.0.0.1:{port}/")
        while len(accepted) <= number:
            await asyncio.sleep(0.001)
        connecting.cancel()
    for _ in range(300):
        left = open_sockets() - before - ROUNDS
        if not left:
            break
        await asyncio.sleep(0.01)
    silent.close()
    for writer in accepted:
        writer.close()
    await asyncio.sleep(0.1)
    return left


def on_arrival(conn: Any, action: Callable[[], object]) -> None:
    """Call ``action`` once, when a message is with its reader and the reader has not run yet."""
    real = conn.on_message

    def on_message(message: str | bytes) -> Any:
        conn.on_message = real
        result = real(message)
        action()
        return result

    conn.on_message = on_message


async def cancel_reads(url: str) -> int:
    """Return how many messages are lost to readers that were cancelled in the moment of their arrival."""
    conn: Any = await websocket.websocket_connect(url)
    received = []

    async def read() -> None:
        received.append(await conn.read_message())

    for _ in range(ROUNDS):
        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        on_arrival(conn, reading.cancel)
        await conn.write_message("next")
        await asyncio.wait([reading])
        if conn.read_queue.qsize():
            await read()
    conn.close()
    return ROUNDS - len(received)


async def read_after_the_end(url: str) -> str:
    conn = await websocket.websocket_connect(url)
    conn.close()
    if await conn.read_message() is not None:
        return "a message"
    try:
        return str(await asyncio.wait_for(asyncio.ensure_future(again(conn)), 5))
    except asyncio.TimeoutError:
        return "hangs"


async def again(conn: Any) -> Any:
    return await conn.read_message()


async def main() -> None:
    server = HTTPServer(Application([("/", Numbers)]))
    sock, port = bind_unused_port()
    server.add_sockets([sock])
    url = f"ws://127.0.0.1:{port}/"
    print(
        json.dumps(
            {
                f"sockets left of {ROUNDS} cancelled connects": await cancel_connects(),
                f"messages lost to {ROUNDS} cancelled reads": await cancel_reads(url),
                "the second read after the end": await read_after_the_end(url),
            }
        )
    )
    server.stop()


if __name__ == "__main__":
    asyncio.run(main())
