"""A whole server connection of the engine that this process uses, over a pair of sockets, against the pure reader."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application

from fuzz.connections import DEFLATE, Expected, receive_all, run, send
from tests.engine.reading import LIMIT, events_now
from tests.peer import opening_request
from tests.wire import PONG
from tornado_ws import WebSocketHandler
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.engine.reader import FrameReader


class _Echo(WebSocketHandler):
    def initialize(self, kept: list[Any], closed: asyncio.Event) -> None:
        self._kept, self._closed = kept, closed

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def on_message(self, message: str | bytes) -> None:
        self._kept.append(message)
        self.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        self._kept.append(self.close_code)
        assert not self._closed.is_set(), "on_close was called twice"
        self._closed.set()


async def _serve(request: bytes, wire: bytes, piece: int) -> tuple[list[Any], bytes]:
    """Return what the handler saw, and what the server sent."""
    kept: list[Any] = []
    closed = asyncio.Event()
    settings: dict[str, Any] = {"websocket_max_message_size": LIMIT}
    server = HTTPServer(Application([("/", _Echo, {"kept": kept, "closed": closed})], log_function=_log, **settings))
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    server.handle_stream(IOStream(ours), ("127.0.0.1", 0))
    with contextlib.closing(theirs):
        received, _ = await asyncio.gather(receive_all(theirs), send(theirs, request + wire, piece))
        await closed.wait()
    return kept, received


def _log(handler: object) -> None:
    """Not a line for each input."""


def check(data: bytes) -> None:
    """The first byte is the offer, the second the size of the pieces; the rest is what follows the request."""
    if len(data) < 3:
        # A peer that is gone at once is not opened.
        return
    deflate, piece, wire = bool(data[0] & 1), (data[1] or 1) * 8, data[2:]
    expected = Expected(wire, masked=True, deflate=deflate)
    request = opening_request("ws://localhost/", **(DEFLATE if deflate else {}))
    kept, received = run(_serve(request, wire, piece))
    assert kept[:-1] == expected.messages, (kept, expected.messages)
    assert kept[-1] in expected.close_codes, (kept, expected.close_codes)
    head, _, frames = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    reader = FrameReader(False, LIMIT, PerMessageDeflateDecompressor(True, None, LIMIT) if deflate else None)
    reader.feed(frames)
    events = events_now(reader)
    # The peer may be gone before it has all.
    echoed = [payload for opcode, payload, _ in events if opcode < 8]
    assert echoed == expected.messages[: len(echoed)], (echoed, expected.messages)
    pongs = [payload for opcode, payload, _ in events if opcode == PONG]
    assert pongs == expected.pings[: len(pongs)], (pongs, expected.pings)
