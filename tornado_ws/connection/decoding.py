"""What gets the messages of a connection that has a codec: it decodes them, and calls the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tornado_ws.close_codes import INVALID_PAYLOAD
from tornado_ws.codecs import Codec
from tornado_ws.connection.interfaces import WebSocketDelegate
from tornado_ws.errors import ProtocolError
from tornado_ws.escaping import plain

#: Characters of an error for the log: it may quote the message.
_MOST_OF_AN_ERROR = 200


class Decoding:
    """Stands before a handler or client."""

    __slots__ = ("_codec", "_fail", "_handler")

    def __init__(self, handler: WebSocketDelegate, codec: Codec, fail: Callable[[ProtocolError], object]) -> None:
        self._handler = handler
        self._codec = codec
        self._fail = fail

    def on_message(self, message: Any) -> Any:
        try:
            value = self._codec.decode(message)
            if value is None and hasattr(self._handler, "read_queue"):
                raise ValueError("it decodes to None, which a client's application gets at the end")
        except Exception as error:
            return self._undecodable(message, error)
        return self._handler.on_message(value)

    def _undecodable(self, message: str | bytes, error: Exception) -> Any:
        hook = getattr(self._codec, "undecodable", None)
        if hook is not None:
            return hook(self._handler, message, error)
        text = f"{type(error).__name__}: {error}"[:_MOST_OF_AN_ERROR]
        detail = f"message of {len(message)} does not decode: {plain(text)}"
        self._fail(ProtocolError(INVALID_PAYLOAD, "message does not decode", detail))
        return None
