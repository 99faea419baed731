"""Publishes with python-socketio, as its documentation has it for processes that are no server."""

from __future__ import annotations

from socketio import AsyncRedisManager  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.publishers.common import Options, Publish, parse_options, run


async def begin(options: Options) -> Publish:
    manager = AsyncRedisManager(options.redis, write_only=True)

    async def publish(messages: list[tuple[str, str]]) -> None:
        for topic, message in messages:
            await manager.emit("message", message, room=topic)

    return publish


if __name__ == "__main__":
    run(parse_options(), begin)
