"""The payload of a close frame: status codes and reasons (RFC 6455 sections 5.5.1 and 7.4)."""

from __future__ import annotations

import struct

from tornado_ws.errors import ProtocolError

NORMAL_CLOSURE = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
UNSUPPORTED_DATA = 1003
NO_STATUS_RECEIVED = 1005
ABNORMAL_CLOSURE = 1006
INVALID_PAYLOAD = 1007
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
MANDATORY_EXTENSION = 1010
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013

#: The codes of the IANA registry that may stand in a close frame; 1005, 1006 and 1015 may not (section 7.4.1).
_REGISTERED = frozenset((*range(1000, 1004), *range(1007, 1015)))

MAX_REASON_BYTES = 123


def may_be_sent(code: int) -> bool:
    """Whether ``code`` may stand in a close frame."""
    return code in _REGISTERED or 3000 <= code <= 4999


def encode_close(code: int | None, reason: str | bytes | None) -> bytes:
    """Return the payload of a close frame that we are to send.

    As in Tornado a reason alone goes with 1000, and neither gives an empty payload. Raises ValueError for a code that
    may not be sent and for a reason of more than 123 bytes.
    """
    if code is None:
        if reason is None:
            return b""
        code = NORMAL_CLOSURE
    if not may_be_sent(code):
        raise ValueError(f"close code {code!r} may not be sent; allowed are 1000-1003, 1007-1014 and 3000-4999")
    if isinstance(reason, bytes):
        # Decoded for the check alone: UnicodeDecodeError is a ValueError.
        reason = reason.decode()
    encoded = (reason or "").encode()
    if len(encoded) > MAX_REASON_BYTES:
        raise ValueError(f"close reason has {len(encoded)} bytes in UTF-8; at most {MAX_REASON_BYTES} are allowed")
    return struct.pack(">H", code) + encoded


def decode_close(payload: bytes) -> tuple[int | None, str | None]:
    """Return code and reason of a received close frame, None for what it left out.

    Raises `.ProtocolError` where section 7.4 forbids the payload.
    """
    if not payload:
        return None, None
    if len(payload) == 1:
        raise ProtocolError(PROTOCOL_ERROR, "close frame with a payload of 1 byte; 0 or at least 2 are allowed")
    code = int.from_bytes(payload[:2], "big")
    if not may_be_sent(code):
        raise ProtocolError(PROTOCOL_ERROR, f"close frame with code {code}, which may not be sent")
    try:
        return code, payload[2:].decode() or None
    except UnicodeDecodeError:
        raise ProtocolError(INVALID_PAYLOAD, "close frame with a reason that is not UTF-8") from None
