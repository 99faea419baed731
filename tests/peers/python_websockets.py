"""The `websockets` library as a peer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.peers import REFUSAL_HEADER, Closed, Deflate, Options, Refused, Server, Theirs

_MOST = 1 << 24

_Factory = TypeVar("_Factory", ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory)


def extensions(factory: type[_Factory], deflate: Deflate | None) -> list[_Factory]:
    if deflate is None:
        return []
    return [
        factory(
            server_no_context_takeover=deflate.no_context_takeover,
            client_no_context_takeover=deflate.no_context_takeover,
            server_max_window_bits=deflate.max_window_bits,
            client_max_window_bits=deflate.max_window_bits,
        )
    ]


class Connection:
    def __init__(self, connection: ClientConnection | ServerConnection) -> None:
        assert connection.response is not None
        self._connection = connection
        self.extensions = connection.response.headers.get("Sec-WebSocket-Extensions", "")
        self.subprotocol = connection.subprotocol or ""

    async def send(self, message: str | bytes) -> None:
        await self._connection.send(message)

    async def send_fragments(self, parts: Sequence[bytes], *, text: bool, ping: bytes) -> None:
        async def with_ping() -> AsyncIterator[bytes]:
            yield parts[0]
            await self.ping(ping)
            for part in parts[1:]:
                yield part

        await self._connection.send(with_ping(), text=text)

    async def receive(self) -> str | bytes:
        return await self._connection.recv()

    async def ping(self, payload: bytes) -> None:
        await (await self._connection.ping(payload))

    async def close(self, code: int | None, reason: str) -> None:
        assert code is not None, "the library's API has no close frame without a code"
        await self._connection.close(code, reason)

    async def closed(self) -> Closed:
        try:
            message = await self._connection.recv()
        except ConnectionClosed as end:
            frame = end.rcvd
            return Closed(frame.code, frame.reason) if frame else Closed(None, None)
        raise AssertionError(f"{message!r} in place of the close")


class PythonWebsockets:
    @asynccontextmanager
    async def connect(self, url: str, options: Options) -> AsyncIterator[Theirs]:
        try:
            connection = await connect(
                url,
                compression=None,
                extensions=extensions(ClientPerMessageDeflateFactory, options.deflate),
                subprotocols=[Subprotocol(name) for name in options.subprotocols] or None,
                max_size=_MOST,
                ping_interval=None,
                proxy=None,
            )
        except InvalidStatus as refusal:
            raise Refused(refusal.response.status_code) from None
        try:
            yield Connection(connection)
        finally:
            await connection.close()

    @asynccontextmanager
    async def serve(self, options: Options) -> AsyncIterator[Server]:
        accepted: asyncio.Future[Theirs] = asyncio.get_running_loop().create_future()

        async def handler(connection: ServerConnection) -> None:
            accepted.set_result(Connection(connection))
            # The library closes the connection when this returns.
            await connection.wait_closed()

        def refuse(connection: ServerConnection, request: Request) -> Response | None:
            if options.refuse is None:
                return None
            response = connection.respond(options.refuse, "not here\n")
            response.headers[REFUSAL_HEADER[0]] = REFUSAL_HEADER[1]
            return response

        async with serve(
            handler,
            "127.0.0.1",
            0,
            process_request=refuse,
            compression=None,
            extensions=extensions(ServerPerMessageDeflateFactory, options.deflate),
            subprotocols=[Subprotocol(name) for name in options.subprotocols] or None,
            max_size=_MOST,
            ping_interval=None,
        ) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            yield Server(f"ws://127.0.0.1:{port}/", lambda: accepted)
