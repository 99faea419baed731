"""A server that leaves nobody without an answer when it is stopped: ``python examples/shutdown/server.py``.

On SIGTERM or SIGINT it accepts no more connections, answers what it has received, closes every WebSocket with 1001
and is gone after some seconds at most. It prints its address first, and last what became of everybody.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_ws import WebSocketHandler, close_all

#: Seconds for all to be answered and closed. A supervisor sends SIGKILL later than that: systemd after 90, Kubernetes
#: after 30.
TIMEOUT = 8.0


class Worker(WebSocketHandler):
    """Answers each message when its work is done."""

    handled = 0

    async def on_message(self, message: str | bytes) -> None:
        await asyncio.sleep(0.001)
        await self.write_message(f"done: {message!s}")
        Worker.handled += 1


async def main(port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)

    application = Application([("/", Worker)])
    server = HTTPServer(application)
    try:
        sockets = bind_sockets(port, "127.0.0.1")
    except OSError as error:
        raise SystemExit(f"Cannot listen on port {port}: {error.strerror}. --port 0 takes any free one.") from None
    server.add_sockets(sockets)
    print(f"ws://127.0.0.1:{sockets[0].getsockname()[1]}/", flush=True)

    await stopped.wait()
    server.stop()
    closed, aborted = await close_all(application, reason="restarting", timeout=TIMEOUT)
    # Requests that were no WebSockets yet.
    await server.close_all_connections()
    print(f"{Worker.handled} messages handled, {closed} connections closed, {aborted} aborted", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    port = os.environ.get("PORT", "8765")
    parser.add_argument("--port", type=int, default=port, help="0 for any that is free (default: PORT, or 8765)")
    asyncio.run(main(parser.parse_args().port))
