"""Topics: messages for whoever is subscribed to a name, in this process or in all that have the same broker."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from tornado.log import gen_log

from tornado_ws.close_codes import SERVICE_RESTART
from tornado_ws.engine.encoding import Sendable
from tornado_ws.envelope import begin, position_in
from tornado_ws.pubsub.broker import Broker, Lag, TopicCounters
from tornado_ws.pubsub.counting import CountedTopics
from tornado_ws.pubsub.fan_out import Connection, protocol_of, send_one, send_shared
from tornado_ws.pubsub.history import History, Rules
from tornado_ws.pubsub.latest import LATEST
from tornado_ws.pubsub.listening import Listener
from tornado_ws.pubsub.local import LocalBroker
from tornado_ws.pubsub.messages import Message, Position, sharable
from tornado_ws.pubsub.names import check_pattern, check_topic, is_prefix
from tornado_ws.pubsub.settings import Settings
from tornado_ws.pubsub.subscriptions import Subscribers, Subscription


class Topics:
    """Topics of this process, or of every process that names the same broker.

    :param url: None for this process alone; ``redis://``, ``rediss://`` or ``unix://`` as redis-py takes them,
        ``redis+sentinel://HOST:PORT/SERVICE`` or ``redis+cluster://HOST:PORT``, for Redis from 6.2 on or Valkey. Raises
        ImportError where redis-py is not installed (``pip install tornado_ws[redis]``).
    :param history: which topics have a history, by name or prefix, as `History` objects; none by default.
    :param counted: names and prefixes of topics that have counters of their own, in `counted`; none by default.
    :param settings: what else can be set, as in `Settings`. Raises TypeError for other names, and ValueError for values
        that are not allowed.

    Use one object for a process and a loop, and close it at the end: ``await topics.close()``, or ``async with``.

    ``counters`` has what it has done so far, as ints, and ``counted`` is a mapping of the names and prefixes that are
    counted to theirs; see ``docs/observing.md``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        history: Mapping[str, History] | None = None,
        counted: Iterable[str] = (),
        **settings: Any,
    ) -> None:
        self.counters = TopicCounters()
        self.counted = CountedTopics(counted)
        self._listeners: list[Listener] = []
        self._is_closed = False
        self._handlers: set[asyncio.Task[Any]] = set()
        rules = Rules(history)
        chosen = Settings.of(settings)
        self._longest = chosen.max_topic_length
        self._subscribers = Subscribers(self._left, self._refused, self.counters, chosen.max_subscriptions)
        if url is None:
            self._broker: Broker = LocalBroker(self, rules)
        else:
            self._broker = _redis_broker(self, url, rules, chosen)

    async def __aenter__(self) -> Topics:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all subscriptions and listeners, and let go of the broker; what was published is sent before."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._broker.close()
        for subscription in self._subscribers.all():
            # Not what waits for slow connections: it was published.
            self._subscribers.remove(subscription)
        for listener in list(self._listeners):
            listener.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("these topics are closed")

    # Publishing

    def publish(self, topic: str, message: Sendable, *, exclude: Connection | None = None) -> asyncio.Future[Position]:
        """Publish a message to all that are subscribed to ``topic``, in every process.

        :param topic: a name of 1 to 512 bytes of UTF-8 (`Settings.max_topic_length`), without ``*``.
        :param message: str or dict (sent as text, a dict as JSON), or bytes (sent as a binary message).
        :param exclude: a connection of this process that does not get it: a handler or client.
        :returns: a Future, which need not be awaited: the `Position` of the message when the broker has it. It fails
            with `PublishError` where the broker is away for too long or refuses; a log line and ``counters.failed`` say
            so too.
        :raises TypeError, ValueError: for a topic or message that is not allowed; for the name of a topic it is
            `TopicNameError`, a ValueError.
        :raises RuntimeError: after `close`, and outside a running loop.
        """
        self._check_open()
        protocol = protocol_of(exclude) if exclude is not None else None
        published = self._broker.publish(check_topic(topic, self._longest), sharable(message), protocol)
        self.counters.published += 1
        if (counters := self.counted.of(topic)) is not None:
            counters.published += 1
        return published

    # Subscribing

    async def subscribe(
        self,
        connection: Connection,
        topic: str,
        *,
        since: Position | str | None = None,
        envelope: bool = False,
        policy: str | None = None,
        on_gap: Callable[[Subscription], Any] | None = None,
        presence: Any = None,
    ) -> Subscription:
        """Send ``connection`` what is published to ``topic``, until `unsubscribe` or its end.

        :param connection: a `WebSocketHandler`, or what `websocket_connect` gives.
        :param topic: a name, or a prefix and ``*``: ``room/*``. A connection that is subscribed to both gets each
            message once.
        :param since: the position of the last message that the client has, to send it what it has missed: a
            `Position`, its text, or the text that `reconnect` sends, which may have those of many topics. Text without
            a position of this topic, such as an empty one, counts as a position that nobody knows: it comes from
            clients. Not for prefixes.
        :param envelope: whether messages carry their topic and position; where ``since`` is given the client is told
            behind what it has missed what became of that. See ``docs/topics.md``.
        :param policy: "latest" keeps only the newest message of each topic while more than ``write_high_watermark``
            bytes wait for the connection, and sends it when there is room: for prices, not for what has to be complete.
            None: all messages are sent, and ``write_limit_policy`` of the connection says what is done at its limit.
        :param on_gap: called with the subscription when messages were lost, a function or a coroutine function. By
            default the connection is closed with 1012, so that the client comes back and recovers.
        :param presence: what `presence` says of this connection, as JSON can; None keeps it out of there.
        :returns: the `Subscription`; one to the same topic that there was before is over.
        :raises TypeError: for what is no connection. :raises ValueError: for ``since``, ``presence`` or ``policy`` that
            is not allowed.
        :raises TopicNameError: for a topic that is not allowed, a ValueError.
        :raises SubscriptionLimitError: for one more than `Settings.max_subscriptions` of a connection, a ValueError.
        :raises WebSocketClosedError: where the connection has ended.
        """
        self._check_open()
        check_pattern(topic, self._longest)
        known = _position(since, topic)
        if policy not in (None, LATEST):
            raise ValueError(f"policy is {policy!r}; allowed are {LATEST!r} and None")
        if is_prefix(topic) and (since is not None or presence is not None):
            raise ValueError(f"{topic!r} is a prefix: since and presence are for one topic")
        self._subscribers.check(connection)
        self._subscribers.check_limit(connection, topic)
        await self._broker.join(topic)
        if known is not None:
            await self._broker.recover(topic, known)
        subscription = self._add(connection, topic, known, envelope, policy, on_gap)
        if presence is not None:
            subscription.member = secrets.token_hex(8)
            await self._broker.enter(topic, subscription.member, presence)
        return subscription

    def _add(
        self,
        connection: Connection,
        topic: str,
        since: Position | None,
        envelope: bool,
        policy: str | None,
        on_gap: Callable[[Subscription], Any] | None,
    ) -> Subscription:
        """Subscribe, in one piece: nothing comes between what was missed and what is new."""
        # While the broker was asked both may have ended, and others may have subscribed.
        self._check_open()
        self._subscribers.check(connection)
        self._subscribers.check_limit(connection, topic)
        before = self._subscribers.get(connection, topic)
        if before is not None and before.envelope == envelope:
            # What waits for it is for the new one.
            self._subscribers.remove(before)
        elif before is not None:
            self._subscribers.end(before)
        position = None if is_prefix(topic) else self._broker.head(topic)
        subscription = Subscription(connection, topic, position, envelope, policy)
        subscription.on_gap = on_gap
        self._subscribers.add(subscription)
        if since is not None:
            self._send_missed(subscription, self._broker.missed(topic, since))
            if envelope:
                self._say_beginning(subscription)
        return subscription

    def _send_missed(self, subscription: Subscription, missed: list[Message] | None) -> None:
        if missed is not None:
            subscription.recovered_messages = len(missed)
        if missed:
            self.counted.mark(missed)
            forms = [subscription.form_of(message) for message in missed]
            self.counters.delivered += send_shared([subscription.protocol], forms, self._subscribers.latest)

    def _say_beginning(self, subscription: Subscription) -> None:
        said = begin(subscription.topic, str(subscription.position), subscription.recovered, subscription.missed)
        # Whatever the policy is: no message takes its place.
        if not send_one(subscription.protocol, sharable(said)) and not subscription.protocol.is_closing():
            self._refused(subscription.protocol)

    def unsubscribe(self, connection: Connection, topic: str) -> bool:
        """End the subscription of ``connection`` to ``topic``; returns whether there was one."""
        subscription = self._subscribers.get(connection, check_pattern(topic, self._longest))
        if subscription is not None:
            self._subscribers.end(subscription)
        return subscription is not None

    def _left(self, subscription: Subscription) -> None:
        if subscription.member is not None:
            self._broker.leave(subscription.topic, subscription.member)

    def count(self, topic: str) -> int:
        """Return how many connections of this process are subscribed to this name, or to this prefix."""
        return self._subscribers.count(check_pattern(topic, self._longest))

    @property
    def is_away(self) -> bool:
        """Whether the broker cannot be reached, or cannot serve now."""
        return self._broker.is_away

    def lag(self) -> Lag:
        """Return how far this process is behind the broker. It asks nobody: it was known a second ago, or less."""
        return self._broker.lag()

    async def presence(self, topic: str) -> list[Any]:
        """Return what was said of each connection that is present, in all processes, in no order.

        Those of a process that died are in it for `Settings.presence_seconds` at most.
        """
        self._check_open()
        return list((await self._broker.presence(check_topic(topic, self._longest))).values())

    def listen(self, topic: str, *, limit: int = 10_000) -> Listener:
        """Return an async iterator over what is published to a topic, or to a prefix, for code that is no connection.

        :param limit: how many messages may wait in it; more are a gap, which it raises as `TopicGapError`.
        """
        self._check_open()
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit is {limit!r}; allowed is an int from 1 on")
        return Listener(check_pattern(topic, self._longest), limit, self._begin_listening, self._end_listening)

    async def _begin_listening(self, listener: Listener) -> None:
        self._check_open()
        await self._broker.join(listener.topic)
        self._listeners.append(listener)

    def _end_listening(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    # What a broker calls

    def deliver(self, messages: Sequence[Message]) -> None:
        self.counters.received += len(messages)
        self.counted.received(messages)
        self.counters.delivered += self._subscribers.deliver(messages)
        for listener in self._listeners:
            listener.take(messages)

    def names(self) -> Iterator[str]:
        yield from self._subscribers.names()
        for listener in self._listeners:
            yield listener.topic

    def gap(self, covers: Callable[[str], bool], why: str) -> None:
        self.counters.gaps += 1
        self.counted.gap(covers)
        gen_log.warning("Topics: messages were lost: %s", why)
        for subscription in self._subscribers.all():
            if covers(subscription.topic):
                self._tell(subscription)
        for listener in self._listeners:
            if covers(listener.topic):
                listener.gap(why)

    def _refused(self, protocol: Any) -> None:
        """The write limit of a connection refuses a message: it has a gap, unless the application wants it dropped."""
        self.counters.refused += 1
        if protocol.params.options.write_limit_policy != "drop":
            for subscription in self._subscribers.of_protocol(protocol):
                self._tell(subscription)

    def _tell(self, subscription: Subscription) -> None:
        if subscription.on_gap is None:
            subscription.connection.close(SERVICE_RESTART, "messages were missed")
            return
        try:
            result = subscription.on_gap(subscription)
            if asyncio.iscoroutine(result):
                task = asyncio.ensure_future(result)
                self._handlers.add(task)
                task.add_done_callback(self._handled)
        except Exception:
            gen_log.exception("Topics: on_gap of %r raised", subscription)

    def _handled(self, task: asyncio.Task[Any]) -> None:
        self._handlers.discard(task)
        if not task.cancelled() and task.exception() is not None:
            gen_log.log(logging.ERROR, "Topics: on_gap raised", exc_info=task.exception())


def _position(since: object, topic: str) -> Position | None:
    if since is None or isinstance(since, Position):
        return since
    if not isinstance(since, str):
        raise TypeError(f"since is of type {type(since).__name__}; allowed are a Position, its text and None")
    try:
        return Position.parse(position_in(since, topic))
    except ValueError:
        # It is a client that says so.
        return Position("", (0, 0))


def _redis_broker(topics: Topics, url: str, rules: Rules, settings: Settings) -> Broker:
    try:
        from tornado_ws.pubsub.redis_streams import RedisBroker
    except ImportError as error:
        text = f"topics over {url.partition(':')[0]} need redis-py: pip install 'tornado_ws[redis]' ({error})"
        raise ImportError(text) from error
    return RedisBroker(topics, url, rules, settings, topics.counters)
