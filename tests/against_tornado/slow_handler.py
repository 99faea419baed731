"""A coroutine ``on_message`` takes 2 seconds, on a server that pings every 0.4 seconds; the client is alive."""

from __future__ import annotations

import asyncio
import json

from tornado import websocket

from tests.against_tornado.raw import PING, PONG, TEXT, raw_client, serve


class Slow(websocket.WebSocketHandler):
    async def on_message(self, message: str | bytes) -> None:
        await asyncio.sleep(2)
        self.write_message(message)


async def main() -> None:
    port = serve(Slow, websocket_ping_interval=0.4, websocket_ping_timeout=0.4)
    messages: list[str] = []
    answered_ping_after = None
    async with raw_client(port) as client:
        await client.send((TEXT, b"1"), (PING, b"are you there"), (TEXT, b"2"))
        try:
            while len(messages) < 2:
                opcode, payload = await client.receive()
                if opcode == TEXT:
                    messages.append(payload.decode())
                elif opcode == PING:
                    await client.send((PONG, payload))
                elif opcode == PONG:
                    answered_ping_after = len(messages)
                else:
                    break
        except (EOFError, ConnectionError):
            pass
    result = {"messages answered": messages, "answers before the pong": answered_ping_after}
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
