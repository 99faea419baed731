"""tornado.websocket, or what `benchmarks.clients.tornado_ws_callback` has put in its place: ``on_message_callback``."""

from __future__ import annotations

import asyncio

from tornado.websocket import websocket_connect

from benchmarks.clients.common import Callbacks, Options, measure, parse_options


async def ask(options: Options) -> None:
    message = options.message
    binary = isinstance(message, bytes)

    def received(answer: str | bytes | None) -> None:
        assert answer is not None
        callbacks.received()

    connection = await websocket_connect(options.url, on_message_callback=received)
    callbacks = Callbacks(lambda: connection.write_message(message, binary))
    await measure(options, callbacks.exchange, "tornado")


def main() -> None:
    asyncio.run(ask(parse_options()))


if __name__ == "__main__":
    main()
