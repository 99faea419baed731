"""One message to many connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tornado.iostream import StreamBufferFullError

from tornado_ws.connection.protocol13 import WebSocketProtocol13
from tornado_ws.connection.writing import SharedMessage, sendable
from tornado_ws.engine import Sender, send_to_all
from tornado_ws.errors import WebSocketClosedError, WriteLimitError
from tornado_ws.server.handler import WebSocketHandler


def broadcast(connections: Iterable[Any], message: str | bytes | dict[str, Any], binary: bool = False) -> int:
    """Send a message to many connections.

    Connections that are closed or closing are left out, and so are those whose write limit refuses the message. Nothing
    is awaited: how much waits for a slow peer is bounded by its write limit. A message that has to wait for slow peers
    is in memory once for all of them; clients have a copy each, since each masks its own.

    With permessage-deflate the message is compressed once, not once a connection, and refers to nothing that was sent
    before: that takes a small part of the time, and some more bytes for messages that resemble each other.

    :param connections: `WebSocketHandler` or `WebSocketClientConnection` objects, of one loop.
    :param message: as in `.WebSocketHandler.write_message`.
    :param binary: as in `.WebSocketHandler.write_message`.
    :returns: to how many connections it was sent, an int.
    :raises TypeError: for anything else than str, bytes, bytearray, memoryview or dict.
    :raises ValueError: for bytes that are to go as text and are not UTF-8; nothing is sent then.
    """
    shared = SharedMessage(sendable(message), binary)
    # A callback of the application may change what it gave us.
    count, others = send_to_all(
        [_protocol_of(connection) for connection in connections], shared.frame(), len(shared.payload)
    )
    for protocol in others:
        if protocol is None or protocol.is_closing():
            continue
        try:
            if (
                not isinstance(protocol, WebSocketProtocol13)
                or type(protocol).write_message is not Sender.write_message
            ):
                protocol.write_message(shared.message, binary=binary)
                count += 1
            elif protocol.write_shared(shared):
                count += 1
        except (WebSocketClosedError, WriteLimitError, StreamBufferFullError):
            continue
    return count


def _protocol_of(connection: Any) -> Any:
    return connection.ws_connection if isinstance(connection, WebSocketHandler) else connection.protocol
