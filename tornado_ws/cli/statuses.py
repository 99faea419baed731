"""Exit statuses: how a command ended. They are part of what users rely on; docs/command-line.md has them too."""

from __future__ import annotations

import signal

from tornado_ws.close_codes import ABNORMAL_CLOSURE

#: It did what it was asked to. A connection was closed by this side, or by the server with 1000, 1001 or no code.
OK = 0
#: It failed in a way that has no status of its own.
FAILED = 1
#: An argument, or a line of the input, is not allowed.
USAGE = 2
#: There is no connection: no such name, no route, no answer in time, no trust in the certificate, a proxy that refuses.
UNREACHABLE = 3
#: The server answered, but did not accept the opening handshake.
REFUSED = 4
#: The server closed the connection with another code than 1000 and 1001.
CLOSED = 5
#: The connection ended without a closing handshake.
LOST = 6


def of_close(code: int | None) -> int:
    """Return the status for a connection that ended with ``code`` and that it was not meant to end with."""
    return LOST if code in (None, ABNORMAL_CLOSURE) else CLOSED


def of_signal(number: int) -> int:
    """Return the status of a command that a signal has cut short, as shells have it."""
    return 128 + number


#: Whoever read the output has gone; `signal` has no SIGPIPE on Windows.
OUTPUT_CLOSED = of_signal(getattr(signal, "SIGPIPE", 13))
