"""Who is subscribed to what, and which connections get which messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tornado_ws.connection.protocol13 import WebSocketProtocol13
from tornado_ws.connection.writing import SharedMessage
from tornado_ws.errors import SubscriptionLimitError, WebSocketClosedError
from tornado_ws.pubsub.broker import TopicCounters
from tornado_ws.pubsub.fan_out import protocol_of, send_shared
from tornado_ws.pubsub.latest import LatestMessages
from tornado_ws.pubsub.messages import Message, Position
from tornado_ws.pubsub.names import is_prefix, matches


class Subscription:
    """One connection's subscription to a topic, or to a prefix of topics.

    ``connection`` is the handler or client, and ``topic`` what it is subscribed to. ``position`` (a `Position`) is
    where it began: every message behind it is sent. It is None for a prefix, whose topics have no order among them.

    ``recovered`` tells whether all that was missed since ``since`` has been sent; if not, nothing of it was. ``missed``
    (int) is how many messages that were.
    """

    __slots__ = (
        "connection",
        "envelope",
        "member",
        "on_gap",
        "policy",
        "position",
        "protocol",
        "recovered_messages",
        "topic",
    )

    def __init__(
        self, connection: Any, topic: str, position: Position | None, envelope: bool, policy: str | None = None
    ) -> None:
        self.connection = connection
        self.protocol: Any = protocol_of(connection)
        self.topic = topic
        self.position = position
        #: How many messages that were missed have been sent; None where it is not known which those are.
        self.recovered_messages: int | None = None
        self.envelope = envelope
        #: "latest", or None where the connection's ``write_limit_policy`` holds.
        self.policy = policy
        #: Called with the subscription after messages were lost; None closes the connection.
        self.on_gap: Callable[[Subscription], Any] | None = None
        #: The key of its entry among those who are present.
        self.member: str | None = None

    @property
    def recovered(self) -> bool:
        return self.recovered_messages is not None

    @property
    def missed(self) -> int:
        return self.recovered_messages or 0

    def form_of(self, message: Message) -> SharedMessage:
        """Return ``message`` as this subscription gets it."""
        return message.enveloped() if self.envelope else message.shared

    def __repr__(self) -> str:
        return f"Subscription({self.topic!r}, position={str(self.position) if self.position else None!r})"


class _Receivers:
    """The subscriptions to one name or prefix, where it has several."""

    __slots__ = ("of_protocol", "plain")

    def __init__(self, first: Subscription) -> None:
        self.of_protocol: dict[Any, Subscription] = {first.protocol: first}
        #: The protocols that get what the topic has and nothing else, and the rest; None when that is to be found out.
        self.plain: tuple[list[Any], list[Subscription]] | None = None


class _Index:
    """Subscriptions by name. Most names of an application with a topic for each user have one: that needs no dict."""

    __slots__ = ("_of_name",)

    def __init__(self) -> None:
        self._of_name: dict[str, Subscription | _Receivers] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._of_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._of_name)

    def get(self, name: str) -> Subscription | _Receivers | None:
        return self._of_name.get(name)

    def add(self, name: str, subscription: Subscription) -> None:
        found = self._of_name.get(name)
        if found is None:
            self._of_name[name] = subscription
        elif isinstance(found, _Receivers):
            found.of_protocol[subscription.protocol] = subscription
            found.plain = None
        else:
            receivers = self._of_name[name] = _Receivers(found)
            receivers.of_protocol[subscription.protocol] = subscription

    def remove(self, name: str, subscription: Subscription) -> None:
        found = self._of_name.get(name)
        if isinstance(found, _Receivers):
            found.of_protocol.pop(subscription.protocol, None)
            found.plain = None
        if found is subscription or (isinstance(found, _Receivers) and not found.of_protocol):
            del self._of_name[name]

    def changed(self, name: str) -> None:
        """A connection that ``name`` has gets something of other names now, or nothing any more."""
        found = self._of_name.get(name)
        if isinstance(found, _Receivers):
            found.plain = None

    def count(self, name: str) -> int:
        found = self._of_name.get(name)
        return 0 if found is None else len(found.of_protocol) if isinstance(found, _Receivers) else 1

    def all_of(self, name: str) -> Iterable[Subscription]:
        found = self._of_name.get(name)
        if found is None:
            return ()
        return list(found.of_protocol.values()) if isinstance(found, _Receivers) else (found,)


class Subscribers:
    """All subscriptions of one `Topics` object.

    :param left: called with each subscription that has ended.
    :param refused: called with the protocol of a connection whose write limit refuses a message.
    :param limit: how many subscriptions a connection may have; None for any number.
    """

    def __init__(
        self,
        left: Callable[[Subscription], object],
        refused: Callable[[Any], object],
        counters: TopicCounters,
        limit: int | None = None,
    ) -> None:
        self._exact = _Index()
        self._prefixes = _Index()
        #: How long the prefixes are.
        self._lengths: dict[int, int] = {}
        #: The only subscription of a connection, or all of them.
        self._of_protocol: dict[Any, Subscription | dict[str, Subscription]] = {}
        self._left = left
        #: One object for all connections.
        self._end_callback = self._connection_ended
        self._limit = limit
        #: What waits for slow connections.
        self.latest = LatestMessages(self.deciding, refused, counters)

    def __len__(self) -> int:
        return sum(1 if isinstance(each, Subscription) else len(each) for each in self._of_protocol.values())

    # Who is subscribed

    def check(self, connection: Any) -> None:
        """Raise TypeError for what is no connection, and `WebSocketClosedError` for one that has ended."""
        try:
            protocol = protocol_of(connection)
        except AttributeError:
            text = f"{type(connection).__name__} is no connection: a WebSocketHandler, or what websocket_connect gives"
            raise TypeError(text) from None
        if protocol is None or (isinstance(protocol, WebSocketProtocol13) and protocol.is_closing()):
            raise WebSocketClosedError("the connection has ended: it cannot subscribe")
        if not isinstance(protocol, WebSocketProtocol13):
            raise TypeError(f"{type(protocol).__name__} is no WebSocketProtocol13: it does not say when it ends")

    def get(self, connection: Any, name: str) -> Subscription | None:
        mine = self._of_protocol.get(protocol_of(connection))
        if isinstance(mine, Subscription):
            return mine if mine.topic == name else None
        return mine.get(name) if mine is not None else None

    def check_limit(self, connection: Any, name: str) -> None:
        """Raise `SubscriptionLimitError` where a subscription to ``name`` would be one too many for ``connection``."""
        if self._limit is None:
            return
        mine = self.of_protocol(protocol_of(connection))
        if len(mine) >= self._limit and all(subscription.topic != name for subscription in mine):
            raise SubscriptionLimitError(len(mine), self._limit)

    def deciding(self, protocol: Any, topic: str) -> Subscription | None:
        """Return the subscription for which a connection gets the messages of ``topic``; None where it has none."""
        mine = self._of_protocol.get(protocol)
        if mine is None:
            return None
        if isinstance(mine, Subscription):
            return mine if matches(mine.topic, topic) else None
        found = mine.get(topic)
        for length in self._lengths:
            if found is None and length <= len(topic):
                found = mine.get(topic[:length] + "*")
        return found

    def add(self, subscription: Subscription) -> None:
        """Add a subscription of a connection that has none to that name."""
        protocol, name = subscription.protocol, subscription.topic
        mine = self._of_protocol.get(protocol)
        if mine is None:
            self._of_protocol[protocol] = subscription
            protocol.when_ended(self._end_callback)
        elif isinstance(mine, Subscription):
            self._of_protocol[protocol] = {mine.topic: mine, name: subscription}
            self._index_of(mine.topic).changed(mine.topic)
        else:
            mine[name] = subscription
        if is_prefix(name) and name not in self._prefixes:
            self._lengths[len(name) - 1] = self._lengths.get(len(name) - 1, 0) + 1
        self._index_of(name).add(name, subscription)
        self.latest.added(protocol, subscription)

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription that there is."""
        mine = self._of_protocol[subscription.protocol]
        if isinstance(mine, Subscription):
            del self._of_protocol[subscription.protocol]
        else:
            del mine[subscription.topic]
            if len(mine) == 1:
                (last,) = mine.values()
                self._of_protocol[subscription.protocol] = last
                self._index_of(last.topic).changed(last.topic)
        self._forget(subscription)

    def end(self, subscription: Subscription) -> None:
        """Remove a subscription that there is, and what waits for nothing but it."""
        self.remove(subscription)
        self.latest.prune(subscription.protocol)

    def _forget(self, subscription: Subscription) -> None:
        name = subscription.topic
        self._index_of(name).remove(name, subscription)
        if is_prefix(name) and name not in self._prefixes:
            self._lengths[len(name) - 1] -= 1
            if not self._lengths[len(name) - 1]:
                del self._lengths[len(name) - 1]
        self.latest.removed(subscription.protocol, subscription)
        self._left(subscription)

    def _connection_ended(self, protocol: Any) -> None:
        self.latest.forget(protocol)
        mine = self._of_protocol.pop(protocol, None)
        if mine is not None:
            for subscription in (mine,) if isinstance(mine, Subscription) else tuple(mine.values()):
                self._forget(subscription)

    def _index_of(self, name: str) -> _Index:
        return self._prefixes if is_prefix(name) else self._exact

    def names(self) -> Iterator[str]:
        """Return the names and prefixes that somebody is subscribed to."""
        yield from self._exact
        yield from self._prefixes

    def count(self, name: str) -> int:
        """Return how many are subscribed to that name, or to that prefix."""
        return self._index_of(name).count(name)

    def of_protocol(self, protocol: Any) -> list[Subscription]:
        mine = self._of_protocol.get(protocol, {})
        return [mine] if isinstance(mine, Subscription) else list(mine.values())

    def all(self) -> list[Subscription]:
        return [each for name in list(self.names()) for each in self._index_of(name).all_of(name)]

    # Who gets what

    def deliver(self, messages: Sequence[Message]) -> int:
        """Send ``messages`` to who is subscribed; returns how many went to how many connections, as one sum.

        Each connection gets those of its topics in their order and in one write, and each one once.
        """
        of_topic: dict[str, list[Message]] = {}
        for message in messages:
            of_topic.setdefault(message.topic, []).append(message)
        single: dict[Any, dict[int, SharedMessage]] = {}
        sent = 0
        for topic, own in of_topic.items():
            receivers = [found for found in self._receivers_of(topic) if found is not None]
            excluded = {message.exclude for message in own if message.exclude is not None}
            for found in receivers:
                rest: Iterable[Subscription]
                if isinstance(found, _Receivers):
                    plain, rest = found.plain or self._divide(found)
                    if excluded:
                        rest = [*rest, *(found.of_protocol[each] for each in excluded if each in found.of_protocol)]
                        plain = [each for each in plain if each not in excluded]
                    if plain:
                        sent += send_shared(plain, [message.shared for message in own], self.latest)
                else:
                    rest = (found,)
                for subscription in rest:
                    wanted = single.setdefault(subscription.protocol, {})
                    for message in own:
                        if message.exclude is not subscription.protocol:
                            wanted.setdefault(id(message), subscription.form_of(message))
        return sent + self._send_single(single, {id(message): number for number, message in enumerate(messages)})

    def _receivers_of(self, topic: str) -> Iterator[Subscription | _Receivers | None]:
        yield self._exact.get(topic)
        for length in self._lengths:
            if length <= len(topic):
                yield self._prefixes.get(topic[:length] + "*")

    def _divide(self, receivers: _Receivers) -> tuple[list[Any], list[Subscription]]:
        """Set apart the connections that get the same as all others of the topic and nothing else."""
        plain: list[Any] = []
        rest: list[Subscription] = []
        for protocol, subscription in receivers.of_protocol.items():
            if not subscription.envelope and isinstance(self._of_protocol.get(protocol), Subscription):
                plain.append(protocol)
            else:
                rest.append(subscription)
        receivers.plain = plain, rest
        return receivers.plain

    def _send_single(self, single: dict[Any, dict[int, SharedMessage]], order: dict[int, int]) -> int:
        """Send to connections that do not get what all others get; those with the same messages share the bytes."""
        groups: dict[tuple[int, ...], tuple[list[SharedMessage], list[Any]]] = {}
        for protocol, wanted in single.items():
            if not wanted:
                continue
            forms = [wanted[key] for key in sorted(wanted, key=order.__getitem__)]
            groups.setdefault(tuple(map(id, forms)), (forms, []))[1].append(protocol)
        return sum(send_shared(protocols, forms, self.latest) for forms, protocols in groups.values())
