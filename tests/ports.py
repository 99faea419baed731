"""A port for a program that is told where to listen, and so cannot take one that the system picks."""

from __future__ import annotations

import random
import socket

#: Below the ports that Linux (from 32,768 on) and others give to clients and to whoever binds port 0: the other tests
#: take thousands of those, and one of them between the look and the program's start would be in its way.
_PORTS = range(10_000, 32_000)


def unused_port() -> int:
    """Return a port of loopback that nobody has."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
