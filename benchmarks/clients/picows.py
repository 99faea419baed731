"""picows, by its core API: frames, told by a callback."""

from __future__ import annotations

import asyncio

from picows import (  # type: ignore[import-not-found,unused-ignore]
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from benchmarks.clients.common import Callbacks, Options, measure, parse_options


class Client(WSListener):  # type: ignore[misc,unused-ignore]
    callbacks: Callbacks

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        # What a client does with an answer begins with having it.
        if frame.msg_type == WSMsgType.TEXT:
            frame.get_payload_as_utf8_text()
        else:
            frame.get_payload_as_bytes()
        self.callbacks.received()


async def ask(options: Options) -> None:
    transport, client = await ws_connect(Client, options.url)
    assert isinstance(client, Client)
    message = options.message
    kind, payload = (WSMsgType.TEXT, message.encode()) if isinstance(message, str) else (WSMsgType.BINARY, message)
    client.callbacks = Callbacks(lambda: transport.send(kind, payload))
    await measure(options, client.callbacks.exchange, "picows")


if __name__ == "__main__":
    asyncio.run(ask(parse_options()))
