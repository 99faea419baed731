"""The engine in pure Python: the names that `tornado_ws.engine` hands on."""

from __future__ import annotations

from tornado_ws.engine.channel import Channel
from tornado_ws.engine.connection_task import ConnectionTask
from tornado_ws.engine.encoding import apply_mask, encode_frame
from tornado_ws.engine.read_ahead import ReadAhead
from tornado_ws.engine.reader import FrameReader
from tornado_ws.engine.sender import Sender, send_to_all
from tornado_ws.engine.serving import serve_ready

__all__ = [
    "Channel",
    "ConnectionTask",
    "FrameReader",
    "ReadAhead",
    "Sender",
    "apply_mask",
    "encode_frame",
    "send_to_all",
    "serve_ready",
]
