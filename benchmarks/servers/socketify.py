"""socketify: uWebSockets under CFFI, with its own loop beside asyncio's. Coroutines are tasks of asyncio's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from socketify import (
    App,
    AppListenOptions,
    AppOptions,
    CompressOptions,
    OpCode,
    WebSocket,
)

from benchmarks.servers.common import HOST, LIFETIME, Options, announce, parse_options

_ALL = "all"


def handlers_of(options: Options, app: App) -> dict[str, Callable[..., Any]]:
    """Return what a route is given for ``options``."""
    compress = options.compression is not None
    clients: list[WebSocket] = []

    def echo(websocket: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        websocket.send(message, opcode, compress)

    async def echo_in_coroutine(websocket: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        websocket.send(message, opcode, compress)

    async def sleep(websocket: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        await asyncio.sleep(0)
        websocket.send(message, opcode, compress)

    def call_soon(websocket: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        app.loop.loop.call_soon(websocket.send, message, opcode, compress)

    queue: asyncio.Queue[tuple[WebSocket, str | bytes, OpCode]] = asyncio.Queue()

    def put(websocket: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        queue.put_nowait((websocket, message, opcode))

    async def answer() -> None:
        while True:
            websocket, message, opcode = await queue.get()
            websocket.send(message, opcode, compress)

    def echo_json(websocket: WebSocket, message: str, opcode: OpCode) -> None:
        websocket.send(json.dumps(json.loads(message)), opcode, compress)

    def publish(websocket: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        app.publish(_ALL, message, opcode, compress)

    async def send_burst(websocket: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        for _ in range(options.burst):
            for client in clients:
                client.send(message, opcode)

    def add(websocket: WebSocket) -> None:
        websocket.subscribe(_ALL)
        clients.append(websocket)

    shapes = {
        "awaiting": echo_in_coroutine,
        "not-awaiting": echo_in_coroutine,
        "gen-coroutine": echo_in_coroutine,
        "sleeping": sleep,
        "task": echo_in_coroutine,
        "call-soon": call_soon,
        "queue": put,
    }
    if options.shape == "queue":
        app.loop.create_background_task(answer)
    to_all = send_burst if options.burst else publish
    handler = echo_json if options.json else to_all if options.broadcast else shapes.get(options.shape, echo)
    return {"message": handler, **({"open": add} if options.broadcast else {})}


def serve(options: Options) -> None:
    certificate, key = options.certificate or (None, None)
    app = App(AppOptions(cert_file_name=certificate, key_file_name=key) if certificate else None)
    dedicated = CompressOptions.DEDICATED_COMPRESSOR_256KB | CompressOptions.DEDICATED_DECOMPRESSOR_32KB
    app.ws(
        "/*",
        {
            "compression": dedicated if options.compression is not None else CompressOptions.DISABLED,
            "max_payload_length": options.max_size,
            "max_backpressure": 64 * 1024 * 1024,
            "idle_timeout": 0,
            **handlers_of(options, app),
        },
    )

    app.listen(AppListenOptions(port=0, host=HOST), lambda listening: announce(listening.port, "socketify"))
    app.run()


def _end_with_standard_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(LIFETIME)
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    serve(parse_options())
