"""A client of the websockets library, for all that have its API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.clients.common import measure, parse_options


async def ask(connect: Callable[..., Any], package: str) -> None:
    options = parse_options()
    message = options.message
    async with connect(options.url, compression=None) as connection:

        async def exchange(count: int) -> None:
            for _ in range(count):
                await connection.send(message)
                answer = await connection.recv()
            assert answer == message

        await measure(options, exchange, package)
