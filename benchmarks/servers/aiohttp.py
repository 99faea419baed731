"""aiohttp."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import ClientSession, WSMsgType, web  # type: ignore[import-not-found,unused-ignore]

from benchmarks.servers.common import BACKLOG, HOST, Options, announce, begin_task, parse_options, run


async def serve(options: Options) -> None:
    clients: set[web.WebSocketResponse] = set()

    async def send_burst(message: str) -> None:
        for _ in range(options.burst):
            for client in clients:
                await client.send_str(message)

    async def forward(source: Any, target: Any) -> None:
        async for message in source:
            await target.send_str(message.data)

    async def handle(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(max_msg_size=options.max_size)
        await websocket.prepare(request)
        if options.relay:
            async with ClientSession() as session, session.ws_connect(options.relay) as upstream:
                await asyncio.gather(forward(websocket, upstream), forward(upstream, websocket))
            return websocket
        clients.add(websocket)
        try:
            async for message in websocket:
                if options.burst:
                    begin_task(send_burst(message.data))
                elif options.broadcast:
                    for client in clients:
                        await client.send_str(message.data)
                elif options.json:
                    await websocket.send_json(json.loads(message.data))
                elif message.type is WSMsgType.TEXT:
                    await websocket.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await websocket.send_bytes(message.data)
        finally:
            clients.discard(websocket)
        return websocket

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, ssl_context=options.tls, backlog=BACKLOG)
    await site.start()
    announce(runner.addresses[0][1], "aiohttp", *(["uvloop"] if options.uvloop else []))
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = parse_options()
    run(serve(options), options)
