"""What tells a client the position of a message, and where its subscription begins: see ``docs/topics.md``.

Servers put it around what is published, clients take it apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

#: The first byte of a binary message in an envelope, which is its version.
VERSION = 1


class Envelope(NamedTuple):
    """A message, and where it stands: ``position`` is text for ``subscribe(since=...)``."""

    topic: str
    position: str
    data: str | bytes

    @classmethod
    def of(cls, message: str | bytes) -> Envelope:
        """Return what a server has put into an envelope. Raises ValueError for anything else."""
        opened = take_apart(message)
        if isinstance(opened, Beginning):
            raise ValueError("message has no data: it says where a subscription begins")
        return opened


class Beginning(NamedTuple):
    """What a server says of a subscription: everything up to ``position`` has been sent, if it has ``recovered``."""

    topic: str
    position: str
    recovered: bool


def wrap(topic: str, position: str, data: str | bytes) -> str | bytes:
    """Return ``data`` in its envelope: a str for a str, bytes for bytes."""
    if isinstance(data, str):
        return json.dumps({"topic": topic, "position": position, "data": data}, ensure_ascii=False)
    head, name = position.encode(), topic.encode()
    return bytes((VERSION, len(head))) + head + len(name).to_bytes(2, "big") + name + data


def begin(topic: str, position: str, recovered: bool, missed: int) -> str:
    """Return the message that says where a subscription begins, and how many messages of it were sent before."""
    fields = {"topic": topic, "position": position, "recovered": recovered, "missed": missed}
    return json.dumps(fields, ensure_ascii=False)


def take_apart(message: str | bytes) -> Envelope | Beginning:
    """Return what a server has said. Raises ValueError for what is in no envelope."""
    return _from_text(message) if isinstance(message, str) else _from_bytes(message)


def _from_text(message: str) -> Envelope | Beginning:
    fields = _parsed(message)
    if isinstance(fields, dict) and isinstance(topic := fields.get("topic"), str):
        position, data, recovered = fields.get("position"), fields.get("data"), fields.get("recovered")
        if isinstance(position, str) and isinstance(data, str):
            return Envelope(topic, position, data)
        if isinstance(position, str) and "data" not in fields and isinstance(recovered, bool):
            return Beginning(topic, position, recovered)
    raise ValueError("message is in no envelope: a JSON object with the texts topic, position and data")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def _from_bytes(message: bytes) -> Envelope:
    if len(message) < 2 or message[0] != VERSION:
        raise ValueError(f"message is in no envelope: its first byte is not {VERSION}")
    name = 2 + message[1] + 2
    end = name + int.from_bytes(message[name - 2 : name], "big")
    if len(message) < max(name, end):
        raise ValueError(f"message of {len(message)} bytes ends within its envelope")
    return Envelope(message[name:end].decode(), message[2 : name - 2].decode(), message[end:])


# What a client that comes back has


def join_positions(positions: Mapping[str, str]) -> str:
    """Return the positions of topics as one text, for ``subscribe(since=...)`` of each of them; empty without any."""
    return json.dumps(dict(positions), separators=(",", ":")) if positions else ""


def position_in(text: str, topic: str) -> str:
    """Return the position of ``topic`` in what `join_positions` has made; a text that is a position by itself as it is.

    Raises ValueError where there is none.
    """
    if not text.startswith("{"):
        return text
    found = _parsed(text).get(topic)
    if not isinstance(found, str):
        raise ValueError(f"there is no position of topic {topic!r}")
    return found
