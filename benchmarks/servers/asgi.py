"""Runs an ASGI application with uvicorn, for libraries that are no server of their own."""

from __future__ import annotations

import asyncio
import urllib.parse
from typing import Any

import uvicorn  # type: ignore[import-not-found,unused-ignore]
from tornado.netutil import bind_sockets

from benchmarks.servers.common import BACKLOG, HOST, announce


def topic_of(query: str) -> str:
    """Return the topic that a client has asked for."""
    return urllib.parse.parse_qs(query)["topic"][0]


async def serve(application: Any, *packages: str) -> None:
    """Serve until the process ends; ``packages`` are whose versions are said."""
    (listener,) = bind_sockets(0, HOST, backlog=BACKLOG)
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", loop="asyncio", lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    announce(listener.getsockname()[1], *packages, "uvicorn", "websockets", "redis")
    await task
