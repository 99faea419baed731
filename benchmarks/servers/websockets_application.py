"""An application of the websockets library, for all that have its API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from benchmarks.servers.common import BACKLOG, HOST, Options, announce, begin_task


async def application(
    serve: Callable[..., Any],
    connect: Callable[..., Any],
    broadcast: Callable[..., None],
    options: Options,
    package: str,
) -> None:
    clients: set[Any] = set()

    async def echo(websocket: Any) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def sleep(websocket: Any) -> None:
        async for message in websocket:
            await asyncio.sleep(0)
            await websocket.send(message)

    async def begin_tasks(websocket: Any) -> None:
        async for message in websocket:
            begin_task(websocket.send(message))

    async def put(websocket: Any) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        pump = asyncio.create_task(answer(websocket, queue))
        try:
            async for message in websocket:
                queue.put_nowait(message)
        finally:
            pump.cancel()

    async def answer(websocket: Any, queue: asyncio.Queue[Any]) -> None:
        while True:
            await websocket.send(await queue.get())

    async def echo_json(websocket: Any) -> None:
        async for message in websocket:
            await websocket.send(json.dumps(json.loads(message)))

    async def to_all(websocket: Any) -> None:
        clients.add(websocket)
        try:
            async for message in websocket:
                broadcast(clients, message)
        finally:
            clients.discard(websocket)

    async def relay(websocket: Any) -> None:
        async with connect(options.relay) as upstream:
            await asyncio.gather(forward(websocket, upstream), forward(upstream, websocket))

    async def forward(source: Any, target: Any) -> None:
        async for message in source:
            await target.send(message)

    async def burst_to_all(websocket: Any) -> None:
        clients.add(websocket)
        try:
            async for message in websocket:
                begin_task(send_burst(message))
        finally:
            clients.discard(websocket)

    async def send_burst(message: Any) -> None:
        for _ in range(options.burst):
            for client in clients:
                await client.send(message)

    shapes = {"sleeping": sleep, "task": begin_tasks, "call-soon": begin_tasks, "queue": put}
    send_to_all = burst_to_all if options.burst else to_all
    answer_one = relay if options.relay else shapes.get(options.shape, echo)
    handler = echo_json if options.json else send_to_all if options.broadcast else answer_one
    server = serve(handler, HOST, 0, ssl=options.tls, max_size=options.max_size, backlog=BACKLOG)
    async with server as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        announce(port, package, *(["uvloop"] if options.uvloop else []))
        await asyncio.Event().wait()
