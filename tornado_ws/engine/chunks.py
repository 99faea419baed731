"""Bytes that are gathered in pieces: large ones as they are, small ones joined, since each object has its overhead."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

#: From this size on a piece is kept as it is.
_OWN_PIECE = 16 * 1024


def add_piece(pieces: MutableSequence[Any], piece: bytes | memoryview) -> None:
    """Put ``piece``, which may not change from then on, behind ``pieces``, which has bytearrays for what was joined."""
    if len(piece) >= _OWN_PIECE:
        pieces.append(piece)
    elif pieces and isinstance(pieces[-1], bytearray) and len(pieces[-1]) < _OWN_PIECE:
        pieces[-1] += piece
    elif piece:
        pieces.append(bytearray(piece))
