"""Orders as typed values: ``python examples/codecs/orders.py``. Needs ``pip install "tornado_ws[codecs]"``.

The server gets each message as an `Order`, and answers with a `Receipt`. A client that sends something else is closed
with 1007 by the codec.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

import tornado_ws
from tornado_ws.codecs import MsgspecCodec

PRICES = {"tea": 3, "cake": 5}


class Order(msgspec.Struct):
    item: str
    count: int


class Receipt(msgspec.Struct):
    text: str
    total: int


class Counter(tornado_ws.WebSocketHandler):
    websocket_codec = MsgspecCodec(Order)

    async def on_message(self, order: Any) -> None:
        await self.write_message(Receipt(f"{order.count} x {order.item}", order.count * PRICES[order.item]))


async def main() -> None:
    server = HTTPServer(Application([("/", Counter)]))
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)
    url = f"ws://127.0.0.1:{sock.getsockname()[1]}/"
    async with tornado_ws.websocket_connect(url, codec=MsgspecCodec(Receipt)) as conn:
        for order in (Order("tea", 2), Order("cake", 1)):
            await conn.write_message(order)
            receipt: Any = await conn.read_message()
            print(f"{receipt.text}: {receipt.total}")
    async with tornado_ws.websocket_connect(url, codec="json") as conn:
        await conn.write_message({"item": "tea", "count": "two"})
        await conn.read_message()
        print(f"closed with {conn.close_code}: {conn.close_reason}")
    server.stop()
    await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main())
