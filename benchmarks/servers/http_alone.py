"""Opening and closing handshakes by an HTTP server, Tornado's or ours, and a handler of requests alone.

Nothing of WebSocket is checked, parsed or told to anybody: what is before and behind the connection, in any WebSocket
server on Tornado.
"""

from __future__ import annotations

import asyncio

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

import tornado_ws
from benchmarks.servers.common import BACKLOG, HOST, Options, announce, parse_options, run
from tornado_ws.handshake import compute_accept_value

_CLOSE = b"\x88\x02\x03\xe8"


class Upgrade(RequestHandler):
    async def get(self) -> None:
        self.set_status(101)
        self.set_header("Upgrade", "websocket")
        self.set_header("Connection", "Upgrade")
        self.set_header("Sec-WebSocket-Accept", compute_accept_value(self.request.headers["Sec-WebSocket-Key"]))
        self.finish()
        stream = self.detach()
        # Or the close frame waits for the client to acknowledge the 101.
        stream.set_nodelay(True)
        await stream.read_bytes(64, partial=True)
        stream.socket.send(_CLOSE)
        stream.close()


async def serve(options: Options) -> None:
    (listener,) = bind_sockets(0, HOST, backlog=BACKLOG)
    server = (tornado_ws.HTTPServer if options.fast_http else HTTPServer)(Application([("/", Upgrade)]))
    server.add_sockets([listener])
    announce(listener.getsockname()[1], "tornado")
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = parse_options()
    run(serve(options), options)
