"""tornado.websocket. It is also the application of `benchmarks.servers.tornado_ws`, which puts ours in its place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from tornado import gen
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketClientConnection, WebSocketHandler, websocket_connect

from benchmarks.servers.common import BACKLOG, HOST, Options, announce, begin_task, parse_options, run


class Echo(WebSocketHandler):
    def get_compression_options(self) -> dict[str, Any] | None:
        compression: dict[str, Any] | None = self.settings["compression"]
        return compression

    def on_message(self, message: str | bytes) -> Any:
        self.write_message(message, binary=isinstance(message, bytes))


class Awaiting(Echo):
    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(message, binary=isinstance(message, bytes))


class NotAwaiting(Echo):
    async def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


class Sleeping(Echo):
    async def on_message(self, message: str | bytes) -> None:
        await asyncio.sleep(0)
        await self.write_message(message, binary=isinstance(message, bytes))


class GenCoroutine(Echo):
    @gen.coroutine
    def on_message(self, message: str | bytes) -> Any:
        yield self.write_message(message, binary=isinstance(message, bytes))


class InTasks(Echo):
    def on_message(self, message: str | bytes) -> None:
        begin_task(self.answer(message))

    async def answer(self, message: str | bytes) -> None:
        await self.write_message(message, binary=isinstance(message, bytes))


class CallSoon(Echo):
    def on_message(self, message: str | bytes) -> None:
        asyncio.get_running_loop().call_soon(self.write_message, message, isinstance(message, bytes))


class Queued(Echo):
    def open(self, *args: str, **kwargs: str) -> None:
        self.queue: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.pump = asyncio.create_task(self.answer())

    def on_message(self, message: str | bytes) -> None:
        self.queue.put_nowait(message)

    def on_close(self) -> None:
        self.pump.cancel()

    async def answer(self) -> None:
        while True:
            message = await self.queue.get()
            await self.write_message(message, binary=isinstance(message, bytes))


_SHAPES = {
    "plain": Echo,
    "awaiting": Awaiting,
    "not-awaiting": NotAwaiting,
    "sleeping": Sleeping,
    "gen-coroutine": GenCoroutine,
    "task": InTasks,
    "call-soon": CallSoon,
    "queue": Queued,
}


class EchoJSON(Echo):
    def on_message(self, message: str | bytes) -> None:
        self.write_message(json.loads(message))


class Broadcast(Echo):
    clients: set[Broadcast] = set()  # noqa: RUF012

    def open(self, *args: str, **kwargs: str) -> None:
        self.clients.add(self)

    def on_close(self) -> None:
        self.clients.discard(self)

    def on_message(self, message: str | bytes) -> None:
        self.send_to_all(self.clients, message, isinstance(message, bytes))

    @staticmethod
    def send_to_all(clients: Iterable[WebSocketHandler], message: str | bytes, binary: bool) -> object:
        for client in clients:
            client.write_message(message, binary=binary)
        return None


class Burst(Broadcast):
    def on_message(self, message: str | bytes) -> None:
        begin_task(self.write_burst(message, isinstance(message, bytes)))

    async def write_burst(self, message: str | bytes, binary: bool) -> None:
        for _ in range(self.settings["burst"]):
            for client in self.clients:
                client.write_message(message, binary=binary)


class Relay(Echo):
    upstream: WebSocketClientConnection

    async def open(self, *args: str, **kwargs: str) -> None:
        self.upstream = await websocket_connect(self.settings["relay"], on_message_callback=self.on_answer)

    def on_message(self, message: str | bytes) -> None:
        self.upstream.write_message(message, binary=isinstance(message, bytes))

    def on_answer(self, message: str | bytes | None) -> None:
        if message is not None:
            self.write_message(message, binary=isinstance(message, bytes))


#: What `benchmarks.servers.tornado_ws` has for ``--fast-http`` and ``--topics``.
fast_http_server = HTTPServer
subscriber: type[Echo] = Broadcast


async def serve(options: Options, **more: str) -> None:
    to_all = Burst if options.burst else subscriber if options.topics else Broadcast
    echo = Relay if options.relay else _SHAPES[options.shape]
    handler = EchoJSON if options.json else to_all if options.broadcast else echo
    application = Application(
        [("/", handler)],
        compression=options.compression,
        burst=options.burst,
        relay=options.relay,
        websocket_max_message_size=options.max_size,
        websocket_ping_interval=options.ping_interval,
    )
    (listener,) = bind_sockets(0, HOST, backlog=BACKLOG)
    server = (fast_http_server if options.fast_http else HTTPServer)(application, ssl_options=options.tls)
    server.add_sockets([listener])
    announce(listener.getsockname()[1], "tornado", *(["uvloop"] if options.uvloop else []), **more)
    await asyncio.Event().wait()


def main(**more: str) -> None:
    options = parse_options()
    run(serve(options, **more), options)


if __name__ == "__main__":
    main()
