"""Messages to frames (RFC 6455 section 5)."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

from tornado.util import _websocket_mask as apply_mask

from tornado_ws.engine.contract import MASKED

__all__ = ["SENDABLE", "Sendable", "apply_mask", "encode_frame", "encode_frame_parts", "encode_message", "unmask"]

#: What is sent as a message where there is no codec, a dict as JSON.
Sendable: TypeAlias = "str | bytes | bytearray | memoryview | dict[str, Any]"
#: The same without a dict.
SENDABLE = (str, bytes, bytearray, memoryview)


def unmask(mask: bytes, piece: bytes) -> tuple[bytes, bytes]:
    """Return a piece of a frame's payload, and the mask as what follows it needs it."""
    turn = len(piece) & 3
    return apply_mask(mask, piece), mask[turn:] + mask[:turn]


def encode_message(message: str | bytes | bytearray | memoryview, binary: bool) -> bytes:
    """Return the payload of a message. Raises ValueError for bytes that are to go as text and are not UTF-8."""
    if isinstance(message, str):
        return message.encode()
    payload = bytes(message)
    if not binary:
        payload.decode()
    return payload


def encode_frame(first_byte: int, payload: bytes, masked: bool) -> bytes:
    """Return one frame; ``first_byte`` is FIN, the reserved bits and the opcode."""
    head, payload = encode_frame_parts(first_byte, payload, masked)
    return head + payload


def encode_frame_parts(first_byte: int, payload: bytes, masked: bool) -> tuple[bytes, bytes]:
    """Return one frame in two parts, the second as long as its payload."""
    length = len(payload)
    mask_bit = MASKED if masked else 0
    if length < 126:
        head = bytes((first_byte, mask_bit | length))
    elif length <= 0xFFFF:
        head = bytes((first_byte, mask_bit | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first_byte, mask_bit | 127)) + length.to_bytes(8, "big")
    if not masked:
        return head, payload
    # Section 5.3: unpredictable, so from the operating system and fresh for each frame.
    mask = os.urandom(4)
    return head + mask, apply_mask(mask, payload)
