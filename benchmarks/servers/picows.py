"""picows, by its core API: frames instead of messages, no permessage-deflate, no check that text is UTF-8."""

from __future__ import annotations

import json

from picows import (  # type: ignore[import-not-found,unused-ignore]
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_create_server,
)

from benchmarks.servers.common import BACKLOG, HOST, Options, announce, begin_task, parse_options, run


class Echo(WSListener):  # type: ignore[misc,unused-ignore]
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            self.on_data(transport, frame)

    def on_data(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class EchoJSON(Echo):
    def on_data(self, transport: WSTransport, frame: WSFrame) -> None:
        message = json.loads(frame.get_payload_as_bytes())
        transport.send(WSMsgType.TEXT, json.dumps(message).encode())


class Broadcast(Echo):
    clients: set[WSTransport] = set()  # noqa: RUF012

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.clients.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.clients.discard(transport)

    def on_data(self, transport: WSTransport, frame: WSFrame) -> None:
        message = frame.get_payload_as_bytes()
        for client in self.clients:
            client.send(frame.msg_type, message)


class Burst(Broadcast):
    count = 0

    def on_data(self, transport: WSTransport, frame: WSFrame) -> None:
        begin_task(self.send_burst(frame.msg_type, frame.get_payload_as_bytes()))

    async def send_burst(self, kind: WSMsgType, message: bytes) -> None:
        for _ in range(self.count):
            for client in self.clients:
                client.send(kind, message)


async def serve(options: Options) -> None:
    Burst.count = options.burst
    to_all = Burst if options.burst else Broadcast
    listener = EchoJSON if options.json else to_all if options.broadcast else Echo
    server = await ws_create_server(
        lambda request: listener(), HOST, 0, ssl=options.tls, max_frame_size=options.max_size, backlog=BACKLOG
    )
    announce(server.sockets[0].getsockname()[1], "picows", *(["uvloop"] if options.uvloop else []))
    await server.serve_forever()


if __name__ == "__main__":
    options = parse_options()
    run(serve(options), options)
