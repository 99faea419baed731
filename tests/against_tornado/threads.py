"""``write_message`` from a thread that is not the connection's."""

from __future__ import annotations

import asyncio
import json
import threading

from tornado import websocket

from tests.against_tornado.raw import TEXT, raw_client, serve

handlers: list[websocket.WebSocketHandler] = []
errors: list[str] = []


class Handler(websocket.WebSocketHandler):
    def open(self) -> None:
        handlers.append(self)

    def on_message(self, message: str | bytes) -> None:
        self.write_message("from the right thread")


def write() -> None:
    try:
        handlers[0].write_message("from the wrong thread")
    except RuntimeError as error:
        errors.append(str(error))


async def main() -> None:
    async with raw_client(serve(Handler)) as client:
        while not handlers:
            await asyncio.sleep(0)
        thread = threading.Thread(target=write, name="worker")
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.001)
        await client.send((TEXT, b""))
        messages: list[str] = []
        while not messages or messages[-1] != "from the right thread":
            messages.append((await client.receive())[1].decode())
    print(json.dumps({"error": errors[0] if errors else None, "messages sent": messages}))


if __name__ == "__main__":
    asyncio.run(main())
