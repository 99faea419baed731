"""How many opening handshakes an application accepts: for storms of clients that all come back at once."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

from tornado_ws.connection.registry import Connections
from tornado_ws.options import checked_count

#: Seconds within which clients that are refused are asked to come back, each at random.
_MOST_WAIT = 10


def seconds_to_wait(connections: Connections, settings: Mapping[str, Any], is_handshake: bool = True) -> int:
    """Return 0 where a handshake is to be answered now, else the seconds until the client may try again.

    Who only asks takes nothing from what handshakes may have.

    Raises ValueError for a wrong setting.
    """
    most, rate = settings.get("websocket_max_connections"), settings.get("websocket_max_handshakes_per_second")
    if most is not None:
        checked_count("websocket_max_connections", most)
        if len(connections.open) >= most:
            return random.randint(1, _MOST_WAIT)
    if rate is None:
        return 0
    checked_count("websocket_max_handshakes_per_second", rate)
    # Those of one second may come at once.
    now = time.monotonic()
    connections.handshakes = max(0.0, connections.handshakes - (now - connections.asked_at) * rate)
    connections.asked_at = now
    if connections.handshakes + 1 > rate:
        return random.randint(1, _MOST_WAIT)
    connections.handshakes += is_handshake
    return 0
