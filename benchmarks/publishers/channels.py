"""Publishes with the layer of Channels that its documentation has for Redis."""

from __future__ import annotations

from channels_redis.core import RedisChannelLayer  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.publishers.common import Options, Publish, parse_options, run


async def begin(options: Options) -> Publish:
    layer = RedisChannelLayer(hosts=[options.redis])

    async def publish(messages: list[tuple[str, str]]) -> None:
        for topic, message in messages:
            await layer.group_send(topic, {"type": "message", "text": message})

    return publish


if __name__ == "__main__":
    run(parse_options(), begin)
