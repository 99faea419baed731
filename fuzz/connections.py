"""What the targets that run a whole connection share: a loop, the bytes of a peer, and what has to come of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.engine.reading import LIMIT
from tests.wire import CLOSE, PING
from tornado_ws.close_codes import decode_close
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.engine.reader import FrameReader
from tornado_ws.errors import ProtocolError

T = TypeVar("T")

#: The header that offers permessage-deflate, or agrees on it, for `opening_request` and `opening_answer`.
DEFLATE = {"Sec_WebSocket_Extensions": "permessage-deflate"}
#: Seconds after which a connection hangs. Not a measure of speed.
PATIENCE = 60
_loop: asyncio.AbstractEventLoop | None = None


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` in the loop that all inputs share. Making one takes longer than an input."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    logger = logging.getLogger("tornado")
    level = logger.level
    # Not some lines for each input.
    logger.setLevel(logging.CRITICAL)
    try:
        return _loop.run_until_complete(asyncio.wait_for(main, PATIENCE))
    finally:
        logger.setLevel(level)


class Expected:
    """What is in the bytes of a peer, by the pure reader."""

    def __init__(self, wire: bytes, masked: bool, deflate: bool) -> None:
        self.messages: list[str | bytes] = []
        self.pings: list[bytes] = []
        close_code: int | None = None
        reader = FrameReader(masked, LIMIT, PerMessageDeflateDecompressor(True, None, LIMIT) if deflate else None)
        reader.feed(wire)
        try:
            for event in reader:
                if event is None:
                    break
                opcode, payload, _ = event
                if opcode == CLOSE:
                    close_code = decode_close(payload)[0]
                    break
                if opcode < CLOSE:
                    self.messages.append(payload)
                elif opcode == PING:
                    self.pings.append(payload)
        except ProtocolError as error:
            close_code = error.close_code
        #: What `close_code` may become: the peer's end of the stream may stand where the close frame should.
        self.close_codes = (close_code,) if close_code is not None else (None, 1006)


async def send(sock: socket.socket, data: bytes, piece: int) -> None:
    """Send ``data`` in pieces, each in a turn of the loop of its own, and the end of the stream."""
    loop = asyncio.get_running_loop()
    # The other end may close at a violation.
    with contextlib.suppress(OSError):
        for at in range(0, len(data), piece):
            await loop.sock_sendall(sock, data[at : at + piece])
            await asyncio.sleep(0)
        sock.shutdown(socket.SHUT_WR)


async def receive_all(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await loop.sock_recv(sock, 1 << 16):
            received += chunk
    return received
