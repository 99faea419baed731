"""The wire format of topics in Redis, as ``docs/topics.md`` has it: names of keys, and what an entry has."""

from __future__ import annotations

import secrets
import zlib
from typing import Any


class Keys:
    """The names of keys. Those of one stream have one hash tag, so that a cluster keeps them together."""

    def __init__(self, prefix: str, streams: int) -> None:
        self._prefix = prefix
        self._streams = streams

    def number_of(self, topic: str) -> int:
        """Return which stream a topic belongs to."""
        return zlib.crc32(topic.encode()) % self._streams

    def stream(self, number: int) -> str:
        return f"{self._prefix}:{{{number}}}"

    def presence(self, topic: str) -> str:
        """Return the key of the set of processes that have members of ``topic``."""
        return f"{self._prefix}:{{{self.number_of(topic)}}}:presence:{topic}"


def epoch_key(key: str) -> str:
    """Return the key of the epoch of the stream that has ``key``."""
    return f"{key}:epoch"


def epoch_commands(key: str) -> list[tuple[Any, ...]]:
    """Return the commands that make an epoch of a stream, unless there is one, and say it."""
    epoch = epoch_key(key)
    return [("SET", epoch, secrets.token_hex(6), "NX"), ("GET", epoch)]


def add_command(
    key: str, max_length: int, topic: str, data: bytes, is_binary: bool, origin: str, number: int
) -> tuple[Any, ...]:
    """Return the command that publishes a message."""
    command = ("XADD", key, "MAXLEN", "~", max_length, "*", "t", topic, "m", data, "o", origin, "n", number)
    return (*command, "b", 1) if is_binary else command


def parse_entry(fields: Any) -> tuple[str, bytes, bool, bytes, int]:
    """Return what an entry with ``fields`` has: topic, data, whether those are binary, who published it (empty where
    nobody knows) and the number that it has there.

    Raises ValueError or TypeError, with what is wrong, for one that is no message.
    """
    each = iter(fields)
    found = dict(zip(each, each, strict=True))
    try:
        topic, data = found[b"t"].decode(), found[b"m"]
    except KeyError as error:
        raise ValueError(f"entry has no field {error.args[0].decode()}") from None
    is_binary = b"b" in found and found[b"b"] != b"0"
    if not is_binary:
        data.decode()
    return topic, data, is_binary, found.get(b"o", b""), int(found.get(b"n", 0))


def fields_of(flat: list[Any]) -> dict[bytes, Any]:
    """Return a reply of names and values one after the other as a dict."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
