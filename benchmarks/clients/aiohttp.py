"""aiohttp."""

from __future__ import annotations

import asyncio

from aiohttp import ClientSession  # type: ignore[import-not-found,unused-ignore]

from benchmarks.clients.common import Options, measure, parse_options


async def ask(options: Options) -> None:
    message = options.message
    async with ClientSession() as session, session.ws_connect(options.url) as connection:

        async def exchange(count: int) -> None:
            for _ in range(count):
                if isinstance(message, str):
                    await connection.send_str(message)
                else:
                    await connection.send_bytes(message)
                answer = await connection.receive()
            assert answer.data == message

        await measure(options, exchange, "aiohttp")


if __name__ == "__main__":
    asyncio.run(ask(parse_options()))
