"""The engine that this process uses: the native one where it was built, else the pure Python one.

``TORNADO_WS_ENGINE=python`` in the environment picks the pure one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

__all__ = [
    "Channel",
    "ConnectionTask",
    "FrameReader",
    "ReadAhead",
    "Sender",
    "apply_mask",
    "encode_frame",
    "name",
    "send_to_all",
    "serve_ready",
]

#: "native" or "python".
name = "python"

if TYPE_CHECKING or os.environ.get("TORNADO_WS_ENGINE") == "python":
    from tornado_ws.engine.pure import (
        Channel,
        ConnectionTask,
        FrameReader,
        ReadAhead,
        Sender,
        apply_mask,
        encode_frame,
        send_to_all,
        serve_ready,
    )
else:
    try:
        from tornado_ws.engine._native import (
            Channel,
            ConnectionTask,
            FrameReader,
            ReadAhead,
            Sender,
            apply_mask,
            encode_frame,
            send_to_all,
            serve_ready,
        )

        name = "native"
    except ImportError:
        from tornado_ws.engine.pure import (
            Channel,
            ConnectionTask,
            FrameReader,
            ReadAhead,
            Sender,
            apply_mask,
            encode_frame,
            send_to_all,
            serve_ready,
        )
