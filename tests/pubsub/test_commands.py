"""``python -m tornado_ws publish`` and ``subscribe``, over a broker."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from tests.cli.commands import command, ended, line_of, started
from tests.pubsub.redis_server import RedisServer
from tests.support import PATIENCE
from tornado_ws import Position, Topics


@pytest.mark.gen_test
async def test_lines_go_from_one_to_the_other(redis_server: RedisServer) -> None:
    broker = ["--redis", redis_server.url]
    async with started("subscribe", "a", "--count", "3", *broker) as subscriber:
        assert await line_of(subscriber.stderr) == "tornado_ws: subscribed to a"
        published = await command("publish", "a", "--lines", *broker, text=b"one\n\x1b[2J\n")
        assert (published.status, published.err) == (0, "")
        assert [Position.parse(line) for line in published.out.splitlines()] != []
        assert (await command("publish", "b", "other", *broker)).status == 0
        assert (await command("publish", "a", "--binary", *broker, text=b"\x00\xff")).status == 0
        assert await ended(subscriber) == (0, "one\n\x1b[2J\n00ff\n", "")


@pytest.mark.gen_test
async def test_topics_are_named_where_there_are_several(redis_server: RedisServer) -> None:
    arguments = ["room/*", "room/a", "other", "--redis", redis_server.url]
    async with started("subscribe", *arguments) as plain, started("subscribe", "--json", *arguments) as as_json:
        for process in (plain, as_json):
            said = {await line_of(process.stderr) for _ in range(2)}
            assert said == {"tornado_ws: subscribed to room/*", "tornado_ws: subscribed to other"}
        async with Topics(redis_server.url) as topics:
            position = await topics.publish("room/a", "in\ttwo\nlines")
            assert [await line_of(plain.stdout) for _ in range(2)] == ["room/a\tin\ttwo", "lines"]
            await topics.publish("other", b"\xff")
            assert await line_of(plain.stdout) == "other\tff"
            assert json.loads(await line_of(as_json.stdout)) == {
                "topic": "room/a",
                "position": str(position),
                "text": "in\ttwo\nlines",
            }
            assert json.loads(await line_of(as_json.stdout))["binary"] == "ff"
        for process, number in ((plain, signal.SIGINT), (as_json, signal.SIGTERM)):
            process.send_signal(number)
            assert await ended(process) == (0, "", "")


@pytest.mark.gen_test
async def test_lost_messages_are_told(redis_server: RedisServer) -> None:
    async with started("subscribe", "a", "--redis", redis_server.url) as subscriber:
        await line_of(subscriber.stderr)
        redis_server.ask("FLUSHALL")
        async with Topics(redis_server.url) as topics:
            said = asyncio.ensure_future(line_of(subscriber.stderr))
            while not said.done():
                await topics.publish("a", "text")
                await asyncio.sleep(0.05)
        while "tornado_ws: messages of a were lost: " not in said.result():
            said = asyncio.ensure_future(line_of(subscriber.stderr))
            await said
        # It goes on.
        subscriber.send_signal(signal.SIGINT)
        assert (await ended(subscriber)).status == 0


@pytest.mark.gen_test
async def test_what_is_wrong_is_told(redis_server: RedisServer) -> None:
    broker = ["--redis", redis_server.url]
    for arguments, text, status, said in (
        (["publish", "a*", "text", *broker], b"", 2, "topic 'a*' has a '*'"),
        (["publish", "a", *broker], b"\xff", 2, r"the message is b'\xff'; it has to be UTF-8, or --binary"),
        (["publish", "a", "text", "--publish-timeout", "0.2", "--url", "redis://127.0.0.1:1"], b"", 1, ""),
        (["publish", "a", "text", "--streams", "0", *broker], b"", 2, "streams is 0; allowed is"),
        (["subscribe", "a*b", *broker], b"", 2, "topic 'a*b' has a '*'"),
        (["subscribe", *broker], b"", 2, "required: TOPIC"),
        (["subscribe", "a", "--count", "0", *broker], b"", 2, "'0'; it has to be a whole number from 1"),
        (["subscribe", "a", "--url", "http://127.0.0.1"], b"", 2, ""),
    ):
        result = await asyncio.wait_for(command(*arguments, text=text), PATIENCE)
        assert (result.status, result.out) == (status, ""), result
        assert said in result.err
        assert "Traceback" not in result.err
        assert "tornado_ws" in result.err
