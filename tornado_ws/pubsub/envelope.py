"""What tells a client the position of a message: JSON around text, and a header before bytes."""

from __future__ import annotations

import json
from typing import NamedTuple

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
        return _from_text(message) if isinstance(message, str) else _from_bytes(message)


def wrap(topic: str, position: str, data: str | bytes) -> str | bytes:
    """Return ``data`` in its envelope: a str for a str, bytes for bytes."""
    if isinstance(data, str):
        return json.dumps({"topic": topic, "position": position, "data": data}, ensure_ascii=False)
    head, name = position.encode(), topic.encode()
    return bytes((VERSION, len(head))) + head + len(name).to_bytes(2, "big") + name + data


def _from_text(message: str) -> Envelope:
    fields = json.loads(message)
    if not isinstance(fields, dict) or any(
        not isinstance(fields.get(name), str) for name in ("topic", "position", "data")
    ):
        raise ValueError("message is in no envelope: a JSON object with the texts topic, position and data")
    return Envelope(fields["topic"], fields["position"], fields["data"])


def _from_bytes(message: bytes) -> Envelope:
    if len(message) < 2 or message[0] != VERSION:
        raise ValueError(f"message is in no envelope: its first byte is not {VERSION}")
    name = 2 + message[1] + 2
    end = name + int.from_bytes(message[name - 2 : name], "big")
    if len(message) < max(name, end):
        raise ValueError(f"message of {len(message)} bytes ends within its envelope")
    return Envelope(message[name:end].decode(), message[2 : name - 2].decode(), message[end:])
