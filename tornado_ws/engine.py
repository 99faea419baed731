"""The frame engine that this process uses."""

from __future__ import annotations

from tornado_ws.frames import FrameReader, apply_mask, encode_frame

__all__ = ["FrameReader", "apply_mask", "encode_frame", "name"]

#: "python" or the name of the native engine.
name = "python"
