"""What tests of WebSocket applications need: servers, clients, a pair in memory, peers that misbehave, assertions.

The fixtures for pytest are in `tornado_ws.testing.plugin`, which is turned on in a ``conftest.py``; only that needs
pytest. docs/testing.md has all of it.
"""

from tornado_ws.testing.case import AsyncWebSocketTestCase
from tornado_ws.testing.expecting import expect, expect_close, expect_refused
from tornado_ws.testing.frames import Frame
from tornado_ws.testing.pair import Pair, connected_pair
from tornado_ws.testing.raw_ends import RawServer, raw_client, raw_server
from tornado_ws.testing.raw_peer import RawPeer
from tornado_ws.testing.serving import Server, connected, serve
from tornado_ws.testing.violations import VIOLATIONS, Violation

__all__ = [
    "VIOLATIONS",
    "AsyncWebSocketTestCase",
    "Frame",
    "Pair",
    "RawPeer",
    "RawServer",
    "Server",
    "Violation",
    "connected",
    "connected_pair",
    "expect",
    "expect_close",
    "expect_refused",
    "raw_client",
    "raw_server",
    "serve",
]
