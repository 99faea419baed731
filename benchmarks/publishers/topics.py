"""Publishes with `tornado_ws.Topics`."""

from __future__ import annotations

from benchmarks.publishers.common import Options, Publish, parse_options, run
from tornado_ws import Topics


async def begin(options: Options) -> Publish:
    topics = Topics(options.redis)

    async def publish(messages: list[tuple[str, str]]) -> None:
        for topic, message in messages:
            topics.publish(topic, message)

    return publish


if __name__ == "__main__":
    run(parse_options(), begin)
