"""A client connection over a socket: to a server that says anything, or shakes hands and sends anything then."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from tornado.httpclient import HTTPError
from tornado.iostream import StreamClosedError

from fuzz.connections import DEFLATE, Expected, receive_all, run, send
from tests.engine.reading import LIMIT
from tests.peer import RawPeer, opening_answer
from tornado_ws import WebSocketError, websocket_connect


async def _serve(listening: socket.socket, content: bytes, piece: int, shakes: bool, deflate: bool) -> None:
    loop = asyncio.get_running_loop()
    sock, _ = await loop.sock_accept(listening)
    with contextlib.closing(sock):
        sock.setblocking(False)
        peer = RawPeer(sock, is_client=False)
        await peer.receive_head()
        if shakes:
            content = opening_answer(peer, **(DEFLATE if deflate else {})) + content
        await asyncio.gather(send(sock, content, piece), receive_all(sock))


async def _connect(content: bytes, piece: int, shakes: bool, deflate: bool) -> tuple[list[Any], int | None] | None:
    """Return the messages and the close code, None where the connection was refused."""
    listening = socket.socket()
    with contextlib.closing(listening):
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        serving = asyncio.ensure_future(_serve(listening, content, piece, shakes, deflate))
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}/"
        try:
            conn = await websocket_connect(
                url, compression_options={} if deflate else None, max_message_size=LIMIT, connect_timeout=None
            )
        except (WebSocketError, HTTPError, StreamClosedError):
            return None
        finally:
            if not shakes:
                await serving
        messages = []
        while (message := await conn.read_message()) is not None:
            messages.append(message)
        await serving
        return messages, conn.close_code


def check(data: bytes) -> None:
    """The first byte says whether the server shakes hands, and agrees on deflate; the second the size of the pieces."""
    if len(data) < 2:
        return
    shakes, deflate, piece, content = bool(data[0] & 1), bool(data[0] & 2), (data[1] or 1) * 8, data[2:]
    outcome = run(_connect(content, piece, shakes, deflate))
    if not shakes:
        return
    assert outcome is not None, "a right handshake was refused"
    messages, code = outcome
    expected = Expected(content, masked=False, deflate=deflate)
    assert messages == expected.messages, (messages, expected.messages)
    assert code in expected.close_codes, (code, expected.close_codes)
