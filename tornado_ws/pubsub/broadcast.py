"""One message to many connections."""

from __future__ import annotations

from collections.abc import Iterable

from tornado_ws.connection.writing import SharedMessage, sendable
from tornado_ws.engine.encoding import Sendable
from tornado_ws.pubsub.fan_out import Connection, protocol_of, send_shared


def broadcast(connections: Iterable[Connection], message: Sendable, binary: bool = False) -> int:
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
    return send_shared([protocol_of(connection) for connection in connections], [shared])
