"""The open connections of an application."""

from __future__ import annotations

from typing import Protocol

from tornado.iostream import IOStream
from tornado.web import Application


class Registered(Protocol):
    """What the registry gives out of a connection."""

    stream: IOStream

    @property
    def was_clean(self) -> bool:
        """Whether the peer has sent a close frame."""

    @property
    def has_ended(self) -> bool:
        """Whether ``on_close`` has been called."""

    def close_when_handled(self, code: int | None, reason: str | None) -> None:
        """Close when all that has been received is handled."""

    def abort_with(self, code: int | None, reason: str | None) -> None:
        """Send a close frame, and abort without waiting for the answer."""


class Listener(Protocol):
    """Who is told of connections that open and end."""

    def added(self, connection: Registered) -> None:
        """``open`` of ``connection`` is about to be called."""

    def removed(self, connection: Registered) -> None:
        """``on_close`` of ``connection`` has returned."""


class Connections:
    """The open connections of one application: from ``open`` until ``on_close`` has returned."""

    __slots__ = ("are_settings_checked", "asked_at", "handshakes", "listeners", "open")

    def __init__(self) -> None:
        # A dict has 50 to 100 bytes for each, a set up to twice that.
        self.open: dict[Registered, None] = {}
        #: While there is one, no opening handshake is accepted.
        self.listeners: list[Listener] = []
        #: Opening handshakes that count for the rate, and when they were counted: they wear off with time.
        self.handshakes = 0.0
        self.asked_at = 0.0
        #: Whether the log has what is wrong with the application's settings.
        self.are_settings_checked = False

    def add(self, connection: Registered) -> None:
        self.open[connection] = None
        for listener in self.listeners:
            listener.added(connection)

    def remove(self, connection: Registered) -> None:
        self.open.pop(connection, None)
        for listener in self.listeners:
            listener.removed(connection)


def connections_of(application: Application) -> Connections:
    """Return the connections of ``application``, kept on it so that they go with it."""
    connections: Connections | None = vars(application).get("_ws_connections")
    if connections is None:
        connections = vars(application)["_ws_connections"] = Connections()
    return connections
