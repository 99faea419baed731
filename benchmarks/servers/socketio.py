"""python-socketio with its Redis manager: a client is in the room that its URL names."""

from __future__ import annotations

from typing import Any

from socketio import ASGIApp, AsyncRedisManager, AsyncServer  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.servers.asgi import serve, topic_of
from benchmarks.servers.common import parse_options, run


def application(redis: str) -> Any:
    server = AsyncServer(async_mode="asgi", client_manager=AsyncRedisManager(redis))

    async def connect(sid: str, environ: dict[str, Any]) -> None:
        await server.enter_room(sid, topic_of(environ["QUERY_STRING"]))

    server.on("connect", connect)
    return ASGIApp(server)


if __name__ == "__main__":
    options = parse_options()
    assert options.redis is not None
    run(serve(application(options.redis), "python-socketio"), options)
