"""Channels with the layer that its documentation has for Redis: a client is in the group that its URL names."""

from __future__ import annotations

from typing import Any

from django.conf import settings  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.servers.asgi import serve, topic_of
from benchmarks.servers.common import parse_options, run


def application(redis: str) -> Any:
    # Before Channels is imported, which asks for them.
    # Clients that come at once need more connections to Redis than the 100 that redis-py 8 allows by itself.
    hosts = [{"address": redis, "max_connections": 10_000}]
    layer = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": hosts}}
    settings.configure(CHANNEL_LAYERS={"default": layer})
    from channels.generic.websocket import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        AsyncWebsocketConsumer,
    )

    class Subscriber(AsyncWebsocketConsumer):  # type: ignore[misc,unused-ignore]
        async def connect(self) -> None:
            self.topic = topic_of(self.scope["query_string"].decode())
            await self.channel_layer.group_add(self.topic, self.channel_name)
            await self.accept()
            await self.send(text_data="ready")

        async def disconnect(self, code: int) -> None:
            await self.channel_layer.group_discard(self.topic, self.channel_name)

        async def message(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["text"])

    return Subscriber.as_asgi()


if __name__ == "__main__":
    options = parse_options()
    assert options.redis is not None
    run(serve(application(options.redis), "channels", "channels-redis", "Django"), options)
