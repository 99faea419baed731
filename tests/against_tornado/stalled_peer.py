"""2,000 messages of 50 KB for a peer that does not read, and nobody awaits them: how much memory that takes.

The argument is ``websocket_write_limit`` in MiB, which Tornado does not know; or "stall", and then the messages come
over two seconds, and ``websocket_write_stall_timeout`` is 0.2 seconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tracemalloc

from tornado import websocket

from tests.against_tornado.raw import TEXT, raw_client, serve

MIB = 1024 * 1024
result: dict[str, object] = {}


class Handler(websocket.WebSocketHandler):
    async def on_message(self, message: str | bytes) -> None:
        tracemalloc.start()
        written = 0
        try:
            for _ in range(2000):
                self.write_message(os.urandom(50_000), binary=True)
                written += 1
                if sys.argv[1] == "stall" and not written % 10:
                    await asyncio.sleep(0.01)
        except websocket.WebSocketClosedError:
            pass
        result["MiB held"] = round(tracemalloc.get_traced_memory()[0] / MIB, 1)
        result["messages taken"] = written

    def on_close(self) -> None:
        result["closed with"] = self.close_code


async def main() -> None:
    logging.disable(logging.CRITICAL)
    settings: dict[str, object] = {"websocket_write_stall_timeout": 0.2}
    if sys.argv[1] != "stall":
        settings = {"websocket_write_limit": int(sys.argv[1]) * MIB}
    port = serve(Handler, **settings)
    async with raw_client(port) as client:
        await client.send((TEXT, b"go"))
        while "messages taken" not in result:
            await asyncio.sleep(0.01)
    while "closed with" not in result:
        await asyncio.sleep(0.01)
    tracemalloc.stop()
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
