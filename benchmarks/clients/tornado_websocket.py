"""tornado.websocket, or what `benchmarks.clients.tornado_ws` has put in its place: ``await read_message()``."""

from __future__ import annotations

import asyncio

from tornado.websocket import websocket_connect

from benchmarks.clients.common import Options, measure, parse_options


async def ask(options: Options) -> None:
    connection = await websocket_connect(options.url)
    message = options.message
    binary = isinstance(message, bytes)

    async def exchange(count: int) -> None:
        for _ in range(count):
            connection.write_message(message, binary)
            answer = await connection.read_message()
        assert answer == message

    await measure(options, exchange, "tornado")


def main() -> None:
    asyncio.run(ask(parse_options()))


if __name__ == "__main__":
    main()
