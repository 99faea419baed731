"""Bytes echoed through Tornado's IOStream, and no WebSocket at all: what Tornado's own transport costs."""

from __future__ import annotations

import asyncio

from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets
from tornado.tcpserver import TCPServer

from benchmarks.servers.common import BACKLOG, HOST, announce, parse_options, run


class Echo(TCPServer):
    async def handle_stream(self, stream: IOStream, address: tuple[str, int]) -> None:
        stream.set_nodelay(True)
        try:
            while True:
                await stream.write(await stream.read_bytes(65536, partial=True))
        except StreamClosedError:
            pass


async def serve() -> None:
    (listener,) = bind_sockets(0, HOST, backlog=BACKLOG)
    server = Echo()
    server.add_sockets([listener])
    announce(listener.getsockname()[1], "tornado")
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(serve(), parse_options())
