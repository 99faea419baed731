"""picows, by the API that it shares with the websockets library."""

from __future__ import annotations

import asyncio

from picows.websockets.asyncio.client import connect  # type: ignore[import-not-found,unused-ignore]

from benchmarks.clients.websockets_application import ask

if __name__ == "__main__":
    asyncio.run(ask(connect, "picows"))
