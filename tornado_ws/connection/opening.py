"""The opening handshake of one connection (RFC 6455 section 4): what `handshake` decides, put into effect.

The methods and their names are Tornado's: subclasses override them, and call them.
"""

from __future__ import annotations

import abc
import asyncio
import zlib
from collections.abc import Awaitable
from typing import Any

from tornado import httputil
from tornado.iostream import IOStream
from tornado.log import gen_log
from tornado.web import HTTPError

from tornado_ws import handshake
from tornado_ws.connection.interfaces import ServerEnd, WebSocketProtocol, _WebSocketDelegate, _WebSocketParams
from tornado_ws.coroutines import nothing, value_of
from tornado_ws.deflate.codec import _PerMessageDeflateCompressor, _PerMessageDeflateDecompressor
from tornado_ws.deflate.negotiation import (
    DeflateParams,
    accept_deflate_offer,
    check_extensions_response,
    encode_deflate_params,
)
from tornado_ws.deflate.offload import OffloadingInflater
from tornado_ws.deflate.options import MIN_DEFLATE_WBITS, deflate_options
from tornado_ws.deflate.ratio import RatioLimitedInflater
from tornado_ws.engine.contract import Inflater
from tornado_ws.escaping import shown
from tornado_ws.transport.futures import completed_future
from tornado_ws.transport.stream import free_http_state, peer_has_closed


class Opening(WebSocketProtocol):
    """A protocol that opens connections, from either side."""

    stream: IOStream

    def __init__(self, handler: _WebSocketDelegate, params: _WebSocketParams) -> None:
        super().__init__(handler)
        self.params = params
        self._selected_subprotocol: str | None = None
        self._compressor: _PerMessageDeflateCompressor | None = None
        self._decompressor: _PerMessageDeflateDecompressor | None = None
        #: The same, within the limits of the options.
        self._inflater: Inflater | None = None

    @property
    def selected_subprotocol(self) -> str | None:
        return self._selected_subprotocol

    @selected_subprotocol.setter
    def selected_subprotocol(self, value: str | None) -> None:
        self._selected_subprotocol = value

    @abc.abstractmethod
    async def _open(self, handler: ServerEnd) -> None:
        """Receive, and call ``open`` of the application."""

    # Server

    # Not a coroutine, and the next one has no more than it needs: each lives as long as the connection.
    def accept_connection(self, handler: Any) -> Awaitable[None]:
        try:
            self._handle_websocket_headers(handler)
        except ValueError as error:
            handler.set_status(getattr(error, "status", 400))
            log_msg = f"Missing/Invalid WebSocket headers: {error}"
            handler.finish(log_msg)
            gen_log.debug(log_msg)
            return nothing()
        return self._accept_connection(handler)

    async def _accept_connection(self, handler: ServerEnd) -> None:
        try:
            if self._answer(handler):
                self.start_pinging()
                await self._open(handler)
                await self._receive_frame_loop()
        except asyncio.CancelledError:
            self._abort()

    def _handle_websocket_headers(self, handler: ServerEnd) -> None:
        """Raise ValueError unless the request is a valid opening handshake."""
        request = handler.request
        handshake.check_request(request.method, request.version, request.headers)

    @staticmethod
    def compute_accept_value(key: str | bytes) -> str:
        """Return the Sec-WebSocket-Accept header for a Sec-WebSocket-Key."""
        return handshake.compute_accept_value(key)

    def _challenge_response(self, handler: ServerEnd) -> str:
        return self.compute_accept_value(handler.request.headers["Sec-WebSocket-Key"])

    def _answer(self, handler: ServerEnd) -> bool:
        """Send the 101, and take the stream from HTTP; return whether the peer is still there."""
        headers = handler.request.headers
        offered = handshake.list_tokens(headers.get("Sec-WebSocket-Protocol", ""))
        selected = value_of(handler, "select_subprotocol", handler.select_subprotocol(offered))
        if selected:
            if selected not in offered:
                raise HTTPError(
                    500, f"select_subprotocol returned {shown(selected)}; the client offered {shown(offered)}"
                )
            handler.set_header("Sec-WebSocket-Protocol", selected)
        self.selected_subprotocol = selected

        if self.params.compression_options is not None:
            try:
                options = deflate_options(self.params.compression_options)
            except ValueError as error:
                raise HTTPError(500, str(error)) from None
            agreed = accept_deflate_offer(headers.get("Sec-WebSocket-Extensions", ""), options)
            if agreed is not None:
                self._create_compressors("server", agreed)
                handler.set_header("Sec-WebSocket-Extensions", encode_deflate_params(agreed))

        handler.clear_header("Content-Type")
        handler.set_status(101)
        handler.set_header("Upgrade", "websocket")
        handler.set_header("Connection", "Upgrade")
        handler.set_header("Sec-WebSocket-Accept", self._challenge_response(handler))
        handler.finish()

        self.stream = handler._detach_stream()
        free_http_state(handler.request, completed_future(self.stream.io_loop))
        if peer_has_closed(self.stream):
            self._abort()
            return False
        return True

    # Client

    def _process_server_headers(self, key: str | bytes, headers: httputil.HTTPHeaders) -> None:
        """Take the headers of the server's 101. Raises ValueError where they break RFC 6455 or RFC 7692."""
        handshake.check_response(headers, key)
        agreed = check_extensions_response(
            headers.get("Sec-WebSocket-Extensions", ""),
            self.params.compression_options is not None,
            deflate_options(self.params.compression_options),
        )
        if agreed is not None:
            self._create_compressors("client", agreed)
        self.selected_subprotocol = headers.get("Sec-WebSocket-Protocol")

    # Both

    def _create_compressors(self, side: str, agreed: DeflateParams) -> None:
        options = deflate_options(self.params.compression_options)
        server = (not agreed.server_no_context_takeover, agreed.server_max_window_bits)
        client = (not agreed.client_no_context_takeover, agreed.client_max_window_bits)
        if side == "client":
            # Nobody has to agree to what makes it easier for the peer.
            client = (
                client[0] and not options.client_no_context_takeover,
                min(client[1] or zlib.MAX_WBITS, options.client_max_wbits),
            )
        ours, theirs = (server, client) if side == "server" else (client, server)
        # For a window that zlib cannot keep to there is no compressor: messages may always go uncompressed.
        if (ours[1] or MIN_DEFLATE_WBITS) >= MIN_DEFLATE_WBITS:
            self._compressor = _PerMessageDeflateCompressor(*ours, options)
        limit = self.params.max_message_size
        self._inflater = self._decompressor = _PerMessageDeflateDecompressor(*theirs, limit, options)
        if options.max_ratio is not None:
            self._inflater = RatioLimitedInflater(self._inflater, options.max_ratio)
        if options.offload_size is not None:
            self._inflater = OffloadingInflater(self._inflater, options.offload_size, limit)
