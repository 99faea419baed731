"""How many subscriptions a connection may have, how long a name may be, and what a handler is told beyond that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.pubsub.room import room
from tests.support import connected, serving
from tornado_ws import SubscriptionLimitError, TopicNameError, Topics, WebSocketError, WebSocketHandler


@pytest.mark.gen_test
async def test_one_subscription_too_many_is_an_error_and_changes_nothing() -> None:
    async with Topics(max_subscriptions=3) as topics, room(topics) as members:
        client, other = await members.join("a"), await members.join("a")
        handler = members.handlers[0]
        await topics.subscribe(handler, "b")
        await topics.subscribe(handler, "c/*")
        with pytest.raises(SubscriptionLimitError, match=r"^connection has 3 subscriptions; allowed are 3$") as caught:
            await topics.subscribe(handler, "d")
        assert (caught.value.subscriptions, caught.value.limit) == (3, 3)
        assert topics.count("d") == 0
        # To what it is subscribed to it may subscribe anew; another connection has its own.
        await topics.subscribe(handler, "b")
        await topics.subscribe(members.handlers[1], "d")
        topics.unsubscribe(handler, "b")
        await topics.subscribe(handler, "d")
        topics.publish("d", "x")
        topics.publish("room/a", "y")
        assert [await client.read_message() for _ in range(2)] == ["x", "y"]
        assert [await other.read_message() for _ in range(2)] == ["x", "y"]


@pytest.mark.gen_test
async def test_subscribing_many_times_at_once_does_not_pass_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Topics(max_subscriptions=3) as topics, room(topics) as members:
        await members.join("a")

        async def join(name: str) -> None:
            await asyncio.sleep(0)

        # A broker takes its time.
        monkeypatch.setattr(topics._broker, "join", join)
        subscribing = [topics.subscribe(members.handlers[0], f"t/{number}") for number in range(10)]
        results = await asyncio.gather(*subscribing, return_exceptions=True)
        assert sum(isinstance(result, SubscriptionLimitError) for result in results) == 8
        assert len(list(topics.names())) == 3


@pytest.mark.gen_test
async def test_a_handler_can_tell_what_its_client_asked_for_from_other_errors() -> None:
    class Handler(WebSocketHandler):
        async def on_message(self, message: str | bytes) -> None:
            try:
                await topics.subscribe(self, str(message))
            except (TopicNameError, SubscriptionLimitError) as error:
                await self.write_message({"error": str(error)})
            else:
                await self.write_message({"subscribed": message})

    async with (
        Topics(max_subscriptions=1, max_topic_length=8) as topics,
        serving(Handler) as url,
        connected(url) as client,
    ):
        for name, answer in (
            ("123456789", '{"error": "topic has 9 characters; allowed are 1 to 8 bytes of UTF-8"}'),
            ("ééééé", '{"error": "topic has 5 characters; allowed are 1 to 8 bytes of UTF-8"}'),
            ("", '{"error": "topic has 0 characters; allowed are 1 to 8 bytes of UTF-8"}'),
            ("*a\n", r"'*a\\n' has a '*'"),
            ("12345678", '{"subscribed": "12345678"}'),
            ("12345678*", "connection has 1 subscriptions; allowed are 1"),
        ):
            await client.write_message(name)
            assert answer in str(await client.read_message())


@pytest.mark.gen_test
@pytest.mark.parametrize("length", [1, 512, 513, 65535])
async def test_a_name_may_be_as_long_as_is_set(length: int) -> None:
    async with Topics(max_topic_length=length) as topics:
        name = "é" * (length // 2) + "x" * (length % 2)
        await topics.publish(name, "x")
        for use in (topics.publish, topics.count, topics.listen):
            arguments = (name + "x", "x") if use == topics.publish else (name + "x",)
            with pytest.raises(TopicNameError, match=f"allowed are 1 to {length} bytes of UTF-8"):
                use(*arguments)
        with pytest.raises(TopicNameError):
            topics.unsubscribe(None, name + "x")  # type: ignore[arg-type]
        with pytest.raises(TopicNameError):
            await topics.presence(name + "x")


def test_errors_of_names_are_value_errors_and_ours() -> None:
    topics = Topics()
    with pytest.raises(TopicNameError, match="surrogate"):
        topics.count("\ud800")
    assert issubclass(TopicNameError, ValueError)
    assert issubclass(TopicNameError, WebSocketError)
    assert issubclass(SubscriptionLimitError, ValueError)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_subscriptions", 0, "an int from 1 on, or None"),
        ("max_subscriptions", True, "an int from 1 on, or None"),
        ("max_subscriptions", 1.5, "an int from 1 on, or None"),
        ("max_topic_length", 0, "an int from 1 to 65535"),
        ("max_topic_length", 65536, "an int from 1 to 65535"),
        ("max_topic_length", None, "an int from 1 to 65535"),
    ],
)
def test_limits_that_are_not_allowed(name: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value!r}; allowed is {words}$"):
        Topics(**{name: value})
