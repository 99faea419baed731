"""The engine that this process uses: the native one where it was built, else the pure Python one.

``TORNADO_WS_ENGINE=python`` in the environment picks the pure one.
"""

from __future__ import annotations

import logging
import os
import sys
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
    "reason",
    "send_to_all",
    "serve_ready",
]

#: "native" or "python".
name = "python"
#: Why it is that one, in one line.
reason = ""

if os.environ.get("TORNADO_WS_ENGINE") == "python":
    reason = "TORNADO_WS_ENGINE=python is in the environment"
elif not getattr(sys, "_is_gil_enabled", lambda: True)():
    # To import it would turn the GIL on, for everybody in the process.
    reason = "this process runs without the GIL, which the native engine needs: PYTHON_GIL=1 turns it on"

if not TYPE_CHECKING and not reason:
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
        reason = "it was built with this installation"
    except ModuleNotFoundError:
        reason = "this installation was made without the native one: docs/installing.md says how to get it"
    except ImportError as error:
        # In a subinterpreter, say: a process has it once.
        reason = f"the native one cannot be imported: {error}"

if TYPE_CHECKING or name == "python":
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

# Here, and not at the first connection: a test that wants a quiet log, as all of Tornado's do, would fail by it.
logging.getLogger("tornado_ws").info("tornado_ws uses its %s engine: %s", name, reason)
