"""Messages to many connections, in one write for each: the way of `broadcast` and of topics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeGuard

from tornado.iostream import StreamBufferFullError

from tornado_ws.connection.interfaces import WebSocketProtocol
from tornado_ws.connection.protocol13 import WebSocketProtocol13
from tornado_ws.connection.writing import SharedMessage, SharedMessages
from tornado_ws.engine import Sender, send_to_all
from tornado_ws.engine.contract import CORK_SIZE
from tornado_ws.errors import WebSocketClosedError, WriteLimitError
from tornado_ws.server.handler import WebSocketHandler


class Client(Protocol):
    """What messages are sent to, of a client."""

    @property
    def protocol(self) -> WebSocketProtocol | None:
        """Its protocol, None where it is closed."""


#: A connection as the application has it.
Connection: TypeAlias = WebSocketHandler | Client


def protocol_of(connection: Connection) -> Any:
    """Return the protocol of a handler or client; None where it is closed."""
    return connection.ws_connection if isinstance(connection, WebSocketHandler) else connection.protocol


class Slow(Protocol):
    """What becomes of messages that a connection has no room for."""

    @property
    def waiting(self) -> Mapping[Any, object]:
        """The protocols for which messages wait already."""

    @property
    def is_used(self) -> bool:
        """Whether `keep` is to be asked."""

    def keep(self, protocol: Any, message: SharedMessage) -> bool:
        """Let ``message`` wait, if it has to; return whether it does."""

    def refused(self, protocol: Any) -> None:
        """The write limit of a connection has refused a message."""


def send_shared(protocols: Sequence[Any], messages: Sequence[SharedMessage], slow: Slow | None = None) -> int:
    """Send ``messages`` to each of ``protocols``; those that are closed or closing are left out.

    ``slow`` is told of each message that a write limit refuses. Returns how many messages went to how many connections,
    as one sum.
    """
    sent = 0
    keep = slow.keep if slow is not None and slow.is_used else None
    for some in _in_writes(messages):
        direct = protocols
        behind: Sequence[Any] = ()
        if slow is not None and slow.waiting:
            direct = [protocol for protocol in protocols if protocol not in slow.waiting]
            behind = [protocol for protocol in protocols if protocol in slow.waiting]
        shared = SharedMessages(some)
        count, others = send_to_all(direct, shared.plain_frames(), shared.size, shared.count)
        rest = [protocol for protocol in others if not _send_together(protocol, shared)]
        count += len(others) - len(rest)
        sent += count * shared.count
        for message in some:
            if message.counter is not None:
                message.counter.delivered += count
        for protocol in (*behind, *rest):
            for message in some:
                if keep is not None and protocol is not None and keep(protocol, message):
                    continue
                if send_one(protocol, message):
                    sent += 1
                elif slow is not None and protocol is not None and not protocol.is_closing():
                    slow.refused(protocol)
    return sent


def _in_writes(messages: Sequence[SharedMessage]) -> Iterator[Sequence[SharedMessage]]:
    """Cut ``messages`` where their frames would be more than one write takes, for write limits count between those."""
    if len(messages) == 1:
        yield messages
        return
    begin = size = 0
    for index, message in enumerate(messages):
        size += len(message.payload)
        if size > CORK_SIZE and index > begin:
            yield messages[begin:index]
            begin, size = index, len(message.payload)
    if begin < len(messages):
        yield messages[begin:]


def _send_together(protocol: Any, shared: SharedMessages) -> bool:
    """Send messages in one piece to a connection that compresses; return False where they go one by one."""
    if not _is_ours(protocol):
        return False
    try:
        return protocol.write_together(shared)
    except WebSocketClosedError:
        return False


def _is_ours(protocol: Any) -> TypeGuard[WebSocketProtocol13]:
    """Whether nobody has put anything in the place of writing a message to it."""
    return isinstance(protocol, WebSocketProtocol13) and type(protocol).write_message is Sender.write_message


def send_one(protocol: Any, message: SharedMessage) -> bool:
    """Send ``message`` to one connection; return whether it was given to it."""
    if protocol is None or protocol.is_closing():
        return False
    try:
        if not _is_ours(protocol):
            protocol.write_message(message.message, binary=message.binary)
        elif not protocol.write_shared(message):
            return False
    except (WebSocketClosedError, WriteLimitError, StreamBufferFullError):
        return False
    if message.counter is not None:
        message.counter.delivered += 1
    return True
