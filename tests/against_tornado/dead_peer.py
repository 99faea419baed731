"""2,000 messages wait for a peer that does not read, nobody awaits their Futures but one, and the peer dies.

``plain`` or ``deflate``. What the log says of it, at INFO and above.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
from collections.abc import Awaitable
from typing import Any

from tornado import websocket

from tests.against_tornado.raw import TEXT, raw_client, serve

records: list[logging.LogRecord] = []
awaited: list[str] = []
closed: list[bool] = []


class Records(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        records.append(record)


class Handler(websocket.WebSocketHandler):
    def get_compression_options(self) -> dict[str, Any] | None:
        return {} if sys.argv[1] == "deflate" else None

    async def on_message(self, message: str | bytes) -> None:
        for _ in range(2000):
            writing: Awaitable[None] = self.write_message(os.urandom(5000), binary=True)
        try:
            await writing
        except websocket.WebSocketClosedError as error:
            awaited.append(type(error).__name__)

    def on_close(self) -> None:
        closed.append(True)


async def main() -> None:
    logging.getLogger().addHandler(Records())
    logging.getLogger().setLevel(logging.INFO)
    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if sys.argv[1] == "deflate" else ""
    async with raw_client(serve(Handler), offer) as client:
        await client.send((TEXT, b"go"))
        await client.receive()
        client.reset()
    while not closed:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    gc.collect()
    lines = [record for record in records if record.name != "tornado.access"]
    result = {
        "lines": len(lines),
        "tracebacks": sum(record.exc_info is not None for record in lines),
        "awaited": awaited,
        "last line": lines[-1].getMessage().splitlines()[0] if lines else None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
