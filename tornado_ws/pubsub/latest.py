"""The policy "latest": of what waits for a slow connection only the newest message of each topic is kept.

A message that waits here is not encoded and not compressed, and any newer one of its topic takes its place. What has
been given to the connection is sent as it is: its beginning may be with the kernel, and the peer's window has it.
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from tornado_ws.connection.writing import SharedMessage
from tornado_ws.engine.contract import MESSAGES_PER_TURN
from tornado_ws.pubsub.broker import TopicCounters
from tornado_ws.pubsub.fan_out import send_one

#: What a subscription, or ``write_limit_policy``, has to say for it.
LATEST = "latest"


class Decides(Protocol):
    """What is asked about a subscription."""

    #: "latest", or None where the connection's ``write_limit_policy`` holds.
    policy: str | None


class LatestMessages:
    """What waits for the slow ones among the connections of one `Topics` object.

    :param decides: returns the subscription for which a connection gets the messages of a topic, None for none.
    :param refused: called with the protocol of a connection whose write limit refuses a message.
    """

    def __init__(
        self,
        decides: Callable[[Any, str], Decides | None],
        refused: Callable[[Any], object],
        counters: TopicCounters,
    ) -> None:
        self._decides = decides
        self._refused = refused
        self._counters = counters
        #: How many subscriptions there are with the policy.
        self._subscriptions = 0
        #: By connection and topic, in the order in which topics began to wait. A connection stays in it until there is
        #: room, for what comes meanwhile has to wait too.
        self.waiting: dict[Any, OrderedDict[str, SharedMessage]] = {}

    @property
    def is_used(self) -> bool:
        """Whether there is a subscription with the policy, or what waits for one that there was."""
        return self._subscriptions > 0 or bool(self.waiting)

    def added(self, protocol: Any, subscription: Decides) -> None:
        """Note that there is another subscription."""
        if _is_latest(protocol, subscription):
            self._subscriptions += 1

    def removed(self, protocol: Any, subscription: Decides) -> None:
        """Note that a subscription is over."""
        if _is_latest(protocol, subscription):
            self._subscriptions -= 1

    def keep(self, protocol: Any, message: SharedMessage) -> bool:
        """Let ``message`` wait, if it has to; return whether it does."""
        topic = message.topic
        assert topic is not None
        waiting = self.waiting.get(protocol)
        subscription = self._decides(protocol, topic)
        if subscription is None or not _is_latest(protocol, subscription):
            if waiting is not None and topic in waiting:
                # It was kept for a subscription that is over. This one is newer, and goes at once.
                del waiting[topic]
                self._count_dropped(protocol, 1)
            return False
        if waiting is None:
            if not protocol.is_behind(at_limit=subscription.policy is None):
                return False
            waiting = self.waiting[protocol] = OrderedDict()
            self._send_when_there_is_room(protocol)
        elif topic in waiting:
            self._count_dropped(protocol, 1)
        waiting[topic] = message
        return True

    def refused(self, protocol: Any) -> None:
        """The write limit of a connection has refused a message."""
        self._refused(protocol)

    def prune(self, protocol: Any) -> None:
        """Let go of what waits for a connection and that it is not subscribed to any more."""
        waiting = self.waiting.get(protocol) or OrderedDict()
        for topic in [topic for topic in waiting if self._decides(protocol, topic) is None]:
            del waiting[topic]
            self._count_dropped(protocol, 1)

    def forget(self, protocol: Any) -> None:
        """Let go of a connection, which has ended, and of all that waits for it."""
        waiting = self.waiting.pop(protocol, None)
        if waiting:
            self._count_dropped(protocol, len(waiting))

    def _count_dropped(self, protocol: Any, messages: int) -> None:
        self._counters.dropped += messages
        protocol.count_dropped(messages)

    def _send_when_there_is_room(self, protocol: Any) -> None:
        protocol.room().add_done_callback(functools.partial(self._send, protocol))

    def _send(self, protocol: Any, _: object = None) -> None:
        """Send what waits for a connection, for as long as there is room."""
        waiting = self.waiting.get(protocol)
        if waiting is None:
            return
        try:
            for _ in range(MESSAGES_PER_TURN):
                if not waiting or protocol.is_closing():
                    self.forget(protocol)
                    return
                if protocol.is_behind():
                    self._send_when_there_is_room(protocol)
                    return
                _, message = waiting.popitem(last=False)
                if send_one(protocol, message):
                    self._counters.delivered += 1
                elif not protocol.is_closing():
                    self._refused(protocol)
            asyncio.get_running_loop().call_soon(self._send, protocol)
        except Exception as error:
            self.forget(protocol)
            protocol.handling_failed(error)


def _is_latest(protocol: Any, subscription: Decides) -> bool:
    return subscription.policy == LATEST or protocol.params.options.write_limit_policy == LATEST
