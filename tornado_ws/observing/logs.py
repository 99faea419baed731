"""Which connection a line of the log is about.

Lines of our own carry two attributes that a formatter can use: ``websocket_id``, a number that no other connection of
the process has, and ``websocket_peer``, the address of the other end. `ConnectionFilter` gives them to every other line
too.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
from typing import Protocol, TypedDict


class Extra(TypedDict):
    websocket_id: int | str
    websocket_peer: str


_NOBODY: Extra = {"websocket_id": "-", "websocket_peer": "-"}
_current: contextvars.ContextVar[Extra] = contextvars.ContextVar("tornado_ws_connection", default=_NOBODY)

next_id = itertools.count(1).__next__


class Named(Protocol):
    """What a line is about: a connection."""

    @property
    def connection_id(self) -> int: ...

    @property
    def peer_name(self) -> str: ...


def extra_of(connection: Named) -> Extra:
    """Return the ``extra`` of a line about ``connection``."""
    return {"websocket_id": connection.connection_id, "websocket_peer": connection.peer_name}


class ConnectionFilter(logging.Filter):
    """Lets every line pass, and gives it ``websocket_id`` and ``websocket_peer``, "-" where there is no connection.

    Added to a `logging.Handler` it marks whatever is logged by the callbacks of a connection (``open``, ``on_message``
    and the rest, and tasks that they start), by the application or any package::

        handler.addFilter(tornado_ws.ConnectionFilter())
        handler.setFormatter(logging.Formatter("[%(websocket_id)s %(websocket_peer)s] %(message)s"))

    It has to be made before the connections that it is to tell of.
    """

    _is_used = False

    def __init__(self) -> None:
        super().__init__()
        # Until then no connection spends memory on it.
        ConnectionFilter._is_used = True

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _current.get().items():
            # What a line says of itself goes first: a callback of one connection may make another one log.
            vars(record).setdefault(name, value)
        return True


def mark_context(connection: Named) -> None:
    """Have `ConnectionFilter` tell of ``connection`` in the current context, if there is one."""
    if ConnectionFilter._is_used:
        _current.set(extra_of(connection))
