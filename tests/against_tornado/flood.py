"""One client floods; another one sends a message at a time and waits for the answer.

How many messages of the flood are handled between two of the other client, and how long that one waits.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
import time

from tornado import websocket

from tests.against_tornado.raw import TEXT, RawClient, raw_client, serve

flooded = 0


class Handler(websocket.WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        global flooded
        if message == "flood":
            flooded += 1
        else:
            self.write_message(f"{flooded}")


async def flood(client: RawClient) -> None:
    while True:
        await client.send(*[(TEXT, b"flood")] * 5000)


async def main() -> None:
    port = serve(Handler)
    async with raw_client(port) as flooding, raw_client(port) as other:
        sending = asyncio.ensure_future(flood(flooding))
        while not flooded:
            await asyncio.sleep(0)
        handled, waited = [], []
        for _ in range(int(sys.argv[1])):
            start = time.perf_counter()
            await other.send((TEXT, b"x"))
            handled.append(int((await other.receive())[1]))
            waited.append((time.perf_counter() - start) * 1000)
        sending.cancel()
        await asyncio.wait([sending])
    between = [later - earlier for earlier, later in itertools.pairwise(handled)]
    result = {
        "messages of the flood between two others, median": statistics.median(between),
        "messages of the flood between two others, most": max(between),
        "milliseconds for an answer, median": round(statistics.median(waited), 2),
        "milliseconds for an answer, most": round(max(waited), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
