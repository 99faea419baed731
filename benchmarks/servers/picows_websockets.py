"""picows, by the API that it shares with the websockets library."""

from __future__ import annotations

from picows.websockets.asyncio.client import connect  # type: ignore[import-not-found,unused-ignore]
from picows.websockets.asyncio.server import (  # type: ignore[import-not-found,unused-ignore]
    broadcast,
    serve,
)

from benchmarks.servers.common import parse_options, run
from benchmarks.servers.websockets_application import application

if __name__ == "__main__":
    options = parse_options()
    run(application(serve, connect, broadcast, options, "picows"), options)
