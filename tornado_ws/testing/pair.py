"""A client and a handler that are connected in memory: no socket, no port, and buffers of a known size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from tornado_ws import WebSocketClientConnection, WebSocketHandler
from tornado_ws.client.arguments import add_arguments, make_request
from tornado_ws.client.connectors import Connector, Opener
from tornado_ws.client.reach import Reach
from tornado_ws.connection.registry import connections_of
from tornado_ws.errors import WebSocketClosedError
from tornado_ws.escaping import shown
from tornado_ws.testing.memory import memory_streams
from tornado_ws.testing.serving import Served, application_of

#: Bytes that one end may have sent and the other not have read.
BUFFER_SIZE = 65536


class Pair(NamedTuple):
    """Both ends of one connection."""

    client: WebSocketClientConnection
    handler: WebSocketHandler


class _StreamConnector:
    """Uses a stream that there is."""

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream

    async def connect(self, opener: Opener, host: str, port: int, af: int, over_tls: bool) -> IOStream:
        return opener.own(self._stream)

    def give_up(self) -> None:
        self._stream.close()


@dataclass(frozen=True)
class _ReachOfStream(Reach):
    stream: IOStream | None = None

    def connector(self, request: Any) -> Connector | None:
        assert self.stream is not None
        return _StreamConnector(self.stream)


async def connected_pair(
    served: Served,
    path: str = "/",
    *,
    settings: dict[str, Any] | None = None,
    buffer_size: int = BUFFER_SIZE,
    headers: dict[str, str] | None = None,
    **arguments: Any,
) -> Pair:
    """Return a client and the handler that it is connected to, without sockets.

    Opening handshake, frames, compression, flow control and closing handshake are what they are over TCP. Only what
    TCP does is left out: resets, addresses, TLS. ``async with client`` closes both ends.

    :param served: as in `serve`.
    :param path: what the client asks for, with the query.
    :param settings: those of the application.
    :param buffer_size: bytes (65536) that one end may have sent and the other not have read: what is written beyond
        them is in ``buffered_amount`` of the writer.
    :param headers: those of the client's request, beside those of the opening handshake.
    :param arguments: the others of `WebSocketClientConnection`: ``compression_options``, ``subprotocols``,
        ``on_message_callback`` and so on.
    :raises ValueError: for a buffer of less than 1 byte and for a wrong path or option.
    :raises HandshakeRejectedError: when the application refuses the opening handshake.
    :raises WebSocketClosedError: when ``open`` of the handler has ended the connection.
    """
    if not isinstance(buffer_size, int) or buffer_size < 1:
        raise ValueError(f"buffer_size is {shown(buffer_size)}; it has to be a number of bytes from 1")
    if not path.startswith("/"):
        raise ValueError(f"path is {shown(path)}; it has to begin with a slash")
    application = application_of(served, settings or {})
    before = set(connections_of(application).open)
    client_stream, server_stream = memory_streams(buffer_size)
    HTTPServer(application).handle_stream(server_stream, ("127.0.0.1", 0))
    try:
        request = make_request(f"ws://127.0.0.1{path}", None)
        add_arguments(request, headers, None, None)
        reach = _ReachOfStream(stream=client_stream)
        client = await WebSocketClientConnection(request, reach=reach, **arguments).connect_future
    except BaseException:
        client_stream.close()
        server_stream.close()
        raise
    opened: Any = [connection for connection in connections_of(application).open if connection not in before]
    if not opened:
        async with client:
            raise WebSocketClosedError("nothing is connected: open() of the handler has ended the connection")
    return Pair(client, opened[0].handler)
