"""The opening handshake of one connection (RFC 6455 section 4): what `handshake` decides, put into effect."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from tornado import httputil
from tornado.iostream import IOStream
from tornado.log import gen_log
from tornado.web import HTTPError

from tornado_ws import handshake
from tornado_ws.connection.interfaces import ServerEnd, WebSocketParams
from tornado_ws.coroutines import value_of
from tornado_ws.deflate.codec import PerMessageDeflateCompressor, PerMessageDeflateDecompressor
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
from tornado_ws.escaping import shown, shown_names
from tornado_ws.transport.futures import completed_future
from tornado_ws.transport.http_answer import send_101
from tornado_ws.transport.stream import free_http_state

# Server


def refuse(handler: ServerEnd, error: ValueError) -> None:
    """Answer a request that is no valid opening handshake."""
    handler.set_status(getattr(error, "status", 400))
    log_msg = f"Missing/Invalid WebSocket headers: {error}"
    handler.finish(log_msg)
    gen_log.debug(log_msg)


def select_subprotocol(handler: ServerEnd) -> str | None:
    """Let the application select, and put the answer's header in place. Raises HTTPError for what was not offered."""
    headers = handler.request.headers
    # Most offer none, and to ask for what is not there is an exception inside.
    has_offer = "Sec-WebSocket-Protocol" in headers
    offered = handshake.list_tokens(headers["Sec-WebSocket-Protocol"]) if has_offer else []
    selected: str | None = value_of(handler, "select_subprotocol", handler.select_subprotocol(offered))
    if selected:
        if selected not in offered:
            text = f"select_subprotocol returned {shown(selected)}; the client offered {shown_names(offered)}"
            raise HTTPError(500, text)
        handler.set_header("Sec-WebSocket-Protocol", selected)
    return selected


def accept_compression(handler: ServerEnd, params: WebSocketParams) -> DeflateParams | None:
    """Return what is agreed on, and put the answer's header in place. Raises HTTPError for options that are wrong."""
    if params.compression_options is None:
        return None
    try:
        options = deflate_options(params.compression_options)
    except ValueError as error:
        raise HTTPError(500, str(error)) from None
    agreed = accept_deflate_offer(handler.request.headers.get("Sec-WebSocket-Extensions", ""), options)
    if agreed is not None:
        handler.set_header("Sec-WebSocket-Extensions", encode_deflate_params(agreed))
    return agreed


def accept(handler: ServerEnd, accept_value: str) -> IOStream:
    """Send the 101, and take the stream from HTTP."""
    if not send_101(handler, accept_value):
        handler.clear_header("Content-Type")
        handler.set_status(101)
        handler.set_header("Upgrade", "websocket")
        handler.set_header("Connection", "Upgrade")
        handler.set_header("Sec-WebSocket-Accept", accept_value)
        handler.finish()
    stream = handler._detach_stream()
    free_http_state(handler.request, completed_future(stream.io_loop))
    return stream


# Client


def check_answer(key: str | bytes, headers: httputil.HTTPHeaders, params: WebSocketParams) -> DeflateParams | None:
    """Return what a 101 agrees on. Raises ValueError where its headers break RFC 6455 or RFC 7692."""
    handshake.check_response(headers, key)
    return check_extensions_response(
        headers.get("Sec-WebSocket-Extensions", ""),
        params.compression_options is not None,
        deflate_options(params.compression_options),
    )


# Both


class Codecs(NamedTuple):
    """What messages of one connection are compressed and inflated with."""

    #: None where messages go uncompressed.
    compressor: PerMessageDeflateCompressor | None
    decompressor: PerMessageDeflateDecompressor
    #: The same, within the limits of the options.
    inflater: Inflater


def make_codecs(side: str, agreed: DeflateParams, params: WebSocketParams, in_parts: bool) -> Codecs:
    """Return what a connection needs that has ``agreed`` on permessage-deflate; ``side`` is "server" or "client".

    What it reads ``in_parts`` is not inflated by threads.
    """
    options = deflate_options(params.compression_options)
    server = (not agreed.server_no_context_takeover, agreed.server_max_window_bits)
    client = (not agreed.client_no_context_takeover, agreed.client_max_window_bits)
    if side == "client":
        # Nobody has to agree to what makes it easier for the peer.
        client = (
            client[0] and not options.client_no_context_takeover,
            min(client[1] or zlib.MAX_WBITS, options.client_max_wbits),
        )
    ours, theirs = (server, client) if side == "server" else (client, server)
    compressor = None
    # For a window that zlib cannot keep to there is no compressor: messages may always go uncompressed.
    if (ours[1] or MIN_DEFLATE_WBITS) >= MIN_DEFLATE_WBITS:
        compressor = PerMessageDeflateCompressor(*ours, options)
    limit = params.max_message_size
    decompressor = PerMessageDeflateDecompressor(*theirs, limit, options)
    inflater: Inflater = decompressor
    if options.max_ratio is not None:
        inflater = RatioLimitedInflater(inflater, options.max_ratio)
    if options.offload_size is not None and not in_parts:
        inflater = OffloadingInflater(inflater, options.offload_size, limit)
    return Codecs(compressor, decompressor, inflater)
