"""What turns the application's values into messages and back: JSON, MessagePack, or a codec of its own.

``websocket_codec`` is a setting of a server's application or class, ``codec`` an argument of a client: a name
("json", "orjson", "msgspec", "msgpack") or a `Codec`.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable
from typing import Any, Protocol


class Codec(Protocol):
    """What an object needs to be a codec. It is asked for each message of each connection that has it.

    It may have ``binary`` too, a bool: whether the bytes of `encode` go as binary messages, as they do without it. And
    ``undecodable(connection, message, error)``: it is called with the handler or client, the message and what `decode`
    has raised, in the place of the end of the connection with 1007. What it returns is handled as what ``on_message``
    returns.
    """

    def encode(self, value: Any) -> str | bytes:
        """Return the message for ``value``. What this raises, `write_message` raises."""

    def decode(self, message: str | bytes) -> Any:
        """Return the value of a message. Whatever this raises means that the message has none."""


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class JSONCodec:
    """JSON by Python's own module, as text messages without spaces."""

    def encode(self, value: Any) -> str:
        return _JSON.encode(value)

    def decode(self, message: str | bytes) -> Any:
        return json.loads(message)


class _LibraryCodec:
    """A codec whose work a library does. Its ``encode`` and ``decode`` are that library's own."""

    def __init__(self, encode: Callable[[Any], bytes], decode: Callable[[str | bytes], Any], binary: bool) -> None:
        self.encode = encode
        self.decode = decode
        #: Whether messages are binary.
        self.binary = binary


class OrjsonCodec(_LibraryCodec):
    """JSON by orjson, as text messages. Raises ImportError where that is not installed."""

    def __init__(self) -> None:
        library = _library("orjson")
        super().__init__(library.dumps, library.loads, False)


class MsgpackCodec(_LibraryCodec):
    """MessagePack by the library of that name, as binary messages. Raises ImportError where that is not installed."""

    def __init__(self) -> None:
        library = _library("msgpack")
        super().__init__(library.packb, library.unpackb, True)


class MsgspecCodec(_LibraryCodec):
    """JSON or MessagePack by msgspec, which checks that a message is of a type.

    :param type: what messages are decoded to, as a `msgspec.Struct` or a union of some; anything by default.
    :param format: "json", as text messages, or "msgpack", as binary ones. Raises ValueError for others.

    Raises ImportError where msgspec is not installed.
    """

    def __init__(self, type: Any = Any, format: str = "json") -> None:
        if format not in ("json", "msgpack"):
            raise ValueError(f"format is {format!r}; it has to be 'json' or 'msgpack'")
        _library("msgspec")
        library = importlib.import_module(f"msgspec.{format}")
        super().__init__(library.Encoder().encode, library.Decoder(type).decode, format == "msgpack")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"the codec needs {name}: pip install 'tornado_ws[codecs]' ({error})") from error


_NAMED: dict[str, Callable[[], Codec]] = {
    "json": JSONCodec,
    "orjson": OrjsonCodec,
    "msgspec": MsgspecCodec,
    "msgpack": MsgpackCodec,
}
#: What a setting has to be, in words.
ACCEPTED = f"None, one of {', '.join(map(repr, _NAMED))}, or an object with encode and decode"

_named: Callable[[str], Codec] = functools.cache(lambda name: _NAMED[name]())


def is_codec(value: Any) -> bool:
    """Whether a setting may be ``value``. Raises ImportError for a name whose library is not installed."""
    if value is None or isinstance(value, str):
        return value is None or (value in _NAMED and _named(value) is not None)
    return not isinstance(value, type) and callable(getattr(value, "encode", None)) and hasattr(value, "decode")


def codec_of(value: Any) -> Codec | None:
    """Return the codec that a setting means."""
    codec: Codec | None = _named(value) if isinstance(value, str) else value
    return codec


def encode_with(codec: Codec, value: Any) -> tuple[str | bytes, bool]:
    """Return the message for ``value``, and whether it is binary."""
    message = codec.encode(value)
    return message, getattr(codec, "binary", not isinstance(message, str))
