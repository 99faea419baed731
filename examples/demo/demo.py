"""One page with an echo box, a chat room and the round-trip time drawn live, all over `tornado_ws`.

Run ``python examples/demo/demo.py`` and open the address that it prints. With ``tornado.websocket`` in place of
``tornado_ws`` in the one import below it is an ordinary Tornado application, and works as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import platform
import signal
import socket
import time
from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import tornado
from tornado.escape import json_decode, json_encode
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, StaticFileHandler

import tornado_ws as websocket

log = logging.getLogger("demo")

EXAMPLES = Path(__file__).parent.parent

# RFC 6455 leaves 4000 to 4999 to applications. The page takes them as final, as examples/client/tornado_ws.js does.
NOT_UNDERSTOOD = 4000
TOO_FAST = 4001
GOING_AWAY = 1001

MOST_MESSAGES, PER_SECONDS = 10, 5.0


class Page(StaticFileHandler):
    def set_extra_headers(self, path: str) -> None:
        # Browsers round their clock to 0.1 ms, which is a good part of a local round trip, unless a page is isolated.
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.set_header("Cache-Control", "no-cache")


class DemoSocket(websocket.WebSocketHandler):
    """What both sockets of the page have in common."""

    #: The server's shutdown has to close these itself: they are no longer HTTP connections.
    connected: ClassVar[set[DemoSocket]] = set()

    def get_compression_options(self) -> dict[str, Any] | None:
        return {}

    def open(self) -> None:
        self.connected.add(self)

    def on_close(self) -> None:
        self.connected.discard(self)
        log.info("%s closed: %s %s", self.request.path, self.close_code, self.close_reason or "")


class EchoSocket(DemoSocket):
    def on_message(self, message: str | bytes) -> None:
        # What was on its way when the server began to close is delivered, and there is nobody to answer.
        with contextlib.suppress(websocket.WebSocketClosedError):
            # Text and binary are two kinds of message, and bytes would go out as text if nothing were said.
            self.write_message(message, binary=isinstance(message, bytes))


class Room:
    """Who is in the chat room, and the last of what happened there."""

    def __init__(self) -> None:
        self.members: dict[ChatSocket, str] = {}
        self.past: deque[dict[str, object]] = deque(maxlen=50)

    def join(self, member: ChatSocket, name: str) -> None:
        member.write_message({"kind": "past", "events": list(self.past), "server": runs_on()})
        self.members[member] = name
        self.tell("joined", name)

    def rename(self, member: ChatSocket, name: str) -> None:
        before, self.members[member] = self.members[member], name
        self.tell("renamed", before, name=name)

    def leave(self, member: ChatSocket, code: int | None, reason: str | None) -> None:
        # A member that was sent away is gone before its connection is.
        if member in self.members:
            self.tell("left", self.members.pop(member), code=code, reason=reason)

    def tell(self, kind: str, who: str, **more: object) -> None:
        event = {"kind": kind, "who": who, "at": time.time(), **more}
        self.past.append(event)
        # Encoded here and not by each write_message: that is once, however many there are.
        text = json_encode({**event, "present": sorted(self.members.values())})
        for member in list(self.members):
            # The Futures are not awaited, so that the slowest reader does not hold up the others; one that reads
            # nothing at all is cut off by the keepalive. Who is closing already will leave by on_close.
            with contextlib.suppress(websocket.WebSocketClosedError):
                member.write_message(text)


class ChatSocket(DemoSocket):
    def initialize(self, room: Room) -> None:
        self.room = room
        self.recent: deque[float] = deque(maxlen=MOST_MESSAGES + 1)

    def open(self) -> None:
        super().open()
        self.room.join(self, clean_name(self.get_query_argument("name", "")))

    def on_message(self, message: str | bytes) -> None:
        if self not in self.room.members:
            return  # What was on its way when we sent it away.
        self.recent.append(time.monotonic())
        if len(self.recent) > MOST_MESSAGES and self.recent[-1] - self.recent[0] < PER_SECONDS:
            self.send_away(TOO_FAST, f"more than {MOST_MESSAGES} messages in {PER_SECONDS:.0f} seconds")
            return
        try:
            request = json_decode(message)
        except ValueError:
            request = None
        match request:
            case {"kind": "say", "text": str(text)} if text.strip():
                self.room.tell("said", self.room.members[self], text=text.strip()[:1000])
            case {"kind": "name", "name": str(name)}:
                self.room.rename(self, clean_name(name))
            case _:
                self.send_away(NOT_UNDERSTOOD, "not a message of this chat")

    def on_close(self) -> None:
        super().on_close()
        self.room.leave(self, self.close_code, self.close_reason)

    def send_away(self, code: int, reason: str) -> None:
        self.close(code, reason)
        self.room.leave(self, code, reason)


def clean_name(name: str) -> str:
    return " ".join(name.split())[:24] or "Nobody"


def runs_on() -> str:
    """Return what serves the page, for its head."""
    parts = [f"Tornado {tornado.version}", f"{platform.python_implementation()} {platform.python_version()}"]
    if websocket.__name__ == "tornado_ws":
        parts.insert(0, f"tornado_ws {websocket.__version__}, {websocket.engine.name} engine")
    return ", ".join(parts)


def make_app() -> Application:
    return Application(
        [
            (r"/echo", EchoSocket),
            (r"/chat", ChatSocket, {"room": Room()}),
            (r"/(tornado_ws\.js)", Page, {"path": EXAMPLES / "client"}),
            (r"/(.*)", Page, {"path": EXAMPLES / "demo" / "static", "default_filename": "index.html"}),
        ],
        # Proxies drop what is idle for a minute or so, and without pings a peer that lost its network stays for ever.
        websocket_ping_interval=20,
        # The default is 10 MiB, and a chat needs less.
        websocket_max_message_size=64 * 1024,
    )


def bind(address: str, port: int) -> list[socket.socket]:
    """Listen on ``port``, or on the next one that nobody has."""
    for candidate in range(port, min(port + 100, 65536)):
        try:
            sockets = bind_sockets(candidate, address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise SystemExit(f"Cannot listen on {address} port {candidate}: {error}") from None
        if candidate != port:
            log.warning("port %d is taken; this is port %d", port, candidate)
        return sockets
    raise SystemExit(f"Cannot listen on {address}: the ports from {port} to {candidate} are taken. --port 0 takes any.")


async def serve(address: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # loop.add_signal_handler would do the same, but not on Windows.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))

    sockets = bind(address, port)
    server = HTTPServer(make_app())
    server.add_sockets(sockets)
    host = f"[{address}]" if ":" in address else address
    print(f"http://{host}:{sockets[0].getsockname()[1]}/", flush=True)

    await stop.wait()
    server.stop()
    for connection in list(DemoSocket.connected):
        connection.close(GOING_AWAY, "the server is shutting down")
    # A page that does not answer the close is not waited for.
    patience = loop.time() + 2
    while DemoSocket.connected and loop.time() < patience:
        await asyncio.sleep(0.02)
    await server.close_all_connections()


def main() -> None:
    parser = argparse.ArgumentParser(description="An echo box and a chat room over tornado_ws.")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8888, help="port, or the next free one; 0 for any (default: %(default)s)"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    # One line for each file of the page would hide the closes.
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    asyncio.run(serve(arguments.address, arguments.port))


if __name__ == "__main__":
    main()
