"""What is a violation of RFC 6455, and how it is told: for both engines."""

from __future__ import annotations

from tornado_ws.close_codes import INVALID_PAYLOAD, MESSAGE_TOO_BIG, PROTOCOL_ERROR
from tornado_ws.engine.contract import BINARY, CONTINUATION, CONTROL, FIN, MASKED, OPCODES, RSV, RSV1, TEXT
from tornado_ws.errors import ProtocolError


def check_header(first: int, second: int, in_message: bool, expect_masked: bool, inflating: bool) -> None:
    """Raise `.ProtocolError` unless the first two bytes of a frame are right where they stand (section 5.2)."""
    opcode = first & 0xF
    reserved = first & RSV
    if reserved and not (reserved == RSV1 and inflating and opcode in (TEXT, BINARY)):
        raise ProtocolError(
            PROTOCOL_ERROR,
            f"frame with opcode {opcode:#x} and reserved bits {reserved:#x}, which no extension allows here",
        )
    if opcode not in OPCODES:
        raise ProtocolError(PROTOCOL_ERROR, f"frame with reserved opcode {opcode:#x}")
    if bool(second & MASKED) != expect_masked:
        who = "unmasked frame from a client" if expect_masked else "masked frame from a server"
        raise ProtocolError(PROTOCOL_ERROR, who)
    if opcode & CONTROL:
        if not first & FIN:
            raise ProtocolError(PROTOCOL_ERROR, f"fragmented control frame with opcode {opcode:#x}")
        if second & 0x7F > 125:
            raise ProtocolError(PROTOCOL_ERROR, "control frame with a payload of more than 125 bytes")
    elif opcode == CONTINUATION:
        if not in_message:
            raise ProtocolError(PROTOCOL_ERROR, "continuation frame with no message to continue")
    elif in_message:
        raise ProtocolError(PROTOCOL_ERROR, "new message inside a fragmented message")


def check_extended_length(encoded: bytes) -> int:
    """Return the payload length that 2 or 8 bytes tell; raises `.ProtocolError` where fewer would do."""
    length = int.from_bytes(encoded, "big")
    if length >> 63:
        raise ProtocolError(PROTOCOL_ERROR, "frame length with its most significant bit set")
    if length <= (125 if len(encoded) == 2 else 0xFFFF):
        raise ProtocolError(PROTOCOL_ERROR, f"frame length {length} in {len(encoded)} bytes, not the fewest")
    return length


def check_size(size: int, limit: int) -> None:
    """Raise `.ProtocolError` when a message is known to have ``size`` bytes and that is over ``limit``."""
    if size > limit:
        # The reason is Tornado's own: applications and its tests compare it.
        detail = f"message of at least {size} bytes; the limit is {limit}"
        raise ProtocolError(MESSAGE_TOO_BIG, "message too big", detail)


def too_big_inflated() -> ProtocolError:
    return ProtocolError(MESSAGE_TOO_BIG, "message too big after decompression")


def not_utf8() -> ProtocolError:
    return ProtocolError(INVALID_PAYLOAD, "text message that is not UTF-8")


def checked_text(payload: bytes) -> bytes:
    """Return the text of a message as it came. Raises `.ProtocolError` unless it is UTF-8."""
    decode_text(payload)
    return payload


def decode_text(payload: bytes) -> str:
    """Return the text of a message. Raises `.ProtocolError` unless it is UTF-8."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise not_utf8() from None
