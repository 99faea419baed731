"""The websockets library."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import connect  # type: ignore[import-not-found,unused-ignore]

from benchmarks.clients.websockets_application import ask

if __name__ == "__main__":
    asyncio.run(ask(connect, "websockets"))
