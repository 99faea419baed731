"""The server that the suite tests: a `WebSocketHandler` as an application would write it.

It prints its port, and serves until it is terminated or its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_ws import WebSocketHandler

#: Group 9 sends messages of 16 MiB.
MAX_MESSAGE_SIZE = 64 * 1024 * 1024


class EchoHandler(WebSocketHandler):
    def get_compression_options(self) -> dict[str, Any] | None:
        return {}

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


async def serve() -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)

    def watch_standard_input() -> None:
        if not os.read(0, 4096):
            stopped.set()

    # The runner holds the other end: should it die without a word, we do not outlive it.
    # Epoll does not take a file or /dev/null, and neither ever ends for that reason.
    with contextlib.suppress(PermissionError):
        loop.add_reader(0, watch_standard_input)

    application = Application([("/", EchoHandler)], websocket_max_message_size=MAX_MESSAGE_SIZE)
    (listener,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(application)
    server.add_sockets([listener])
    print(listener.getsockname()[1], flush=True)
    await stopped.wait()
    server.stop()
    await server.close_all_connections()


def main() -> None:
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    main()
