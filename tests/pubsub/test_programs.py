"""Topics in programs of their own: several real processes, a program without Tornado, and one without redis-py."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import zlib

import pytest
import redis

from tests.programs import ROOT, environment, run
from tests.pubsub.redis_server import RedisServer
from tests.support import until
from tornado_ws import Position, Topics

#: Prints what it hears, and publishes numbers of its own meanwhile.
PROGRAM = """
import asyncio, sys
from tornado_ws import Topics

async def main(url, name, count):
    async with Topics(url) as topics:
        async with topics.listen("all") as listener:
            print("ready", flush=True)
            async for message in topics.listen("go"):
                break
            for number in range(count):
                topics.publish("all", f"{name} {number}")
                if number % 50 == 0:
                    await asyncio.sleep(0)
            async for message in listener:
                if message.data == "end":
                    break
                print(message.data, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.gen_test
async def test_processes_have_the_same_order_and_one_that_dies_takes_nothing_with_it(redis_server: RedisServer) -> None:
    count, names = 500, ("a", "b", "c")
    async with Topics(redis_server.url) as topics, topics.listen("all", limit=1_000_000) as listener:
        programs = [await _start(redis_server.url, name, count) for name in names]
        dying = await _start(redis_server.url, "dying", 0)
        # They listen to this by now, or soon.
        heard: list[str] = []

        async def collect() -> None:
            async for message in listener:
                heard.append(str(message.data))
                if message.data == "end":
                    return

        task = asyncio.ensure_future(collect())
        dying.send_signal(signal.SIGKILL)
        await dying.wait()
        while len(heard) < count * len(names):
            await topics.publish("go", "go")
            await asyncio.sleep(0.01)
        await topics.publish("all", "end")
        await task
        outputs = [(await program.communicate())[0].decode().split("\n")[:-1] for program in programs]
        assert heard.pop() == "end"
        assert outputs == [heard] * len(names)
        for name in names:
            assert [text for text in heard if text.split()[0] == name] == [f"{name} {n}" for n in range(count)]
    assert await dying.stdout.read() == b"" if dying.stdout else False


async def _start(url: str, name: str, count: int) -> asyncio.subprocess.Process:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, url, name, str(count), cwd=ROOT, env=environment(), stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    assert await program.stdout.readline() == b"ready\n"
    return program


@pytest.mark.gen_test
async def test_a_shell_publishes(redis_server: RedisServer) -> None:
    async with Topics(redis_server.url) as topics, topics.listen("a") as listener:
        for arguments in (["é"], ["x", "--binary"]):
            command = ["-m", "tornado_ws", "publish", "a", *arguments, "--url", redis_server.url]
            done = await asyncio.get_running_loop().run_in_executor(None, lambda: run(*command))  # noqa: B023
            assert done.stderr == ""
            message = await anext(listener)
            assert message.data == ("é" if arguments == ["é"] else b"x")
            assert Position.parse(done.stdout.strip()) == message.position
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tornado_ws", "publish", "a", "--url", redis_server.url, "--lines",
            cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        await program.communicate(b"one\ntwo\n")
        assert [(await anext(listener)).data for _ in range(2)] == ["one", "two"]


def test_a_shell_is_told_what_is_wrong() -> None:
    command = ["-m", "tornado_ws", "publish", "a", "x", "--publish-timeout", "0.2", "--url", "redis://127.0.0.1:1/0"]
    done = run(*command)
    assert done.returncode == 1
    assert "message was not published: the broker redis://127.0.0.1:1 did not take it" in done.stderr
    assert run("-m", "tornado_ws", "publish", "a*", "x").stderr.startswith("tornado_ws: topic 'a*'")


@pytest.mark.gen_test
async def test_the_command_of_the_documentation_publishes(redis_server: RedisServer) -> None:
    """As a program of any kind does it: by redis-py alone, with what docs/topics.md says about the number."""
    async with Topics(redis_server.url) as topics, topics.listen("room/a") as listener:
        with redis.Redis(port=redis_server.port) as client:
            client.xadd(f"tornado_ws:{{{zlib.crc32(b'room/a') % 16}}}", {"t": "room/a", "m": "text"}, maxlen=10_000)
        assert (await anext(listener)).data == "text"
    text = (ROOT / "docs" / "topics.md").read_text()
    assert f"XADD 'tornado_ws:{{{zlib.crc32(b'room/a') % 16}}}' MAXLEN '~' 10000 '*' t room/a m text" in text


def test_without_redis_py_the_rest_works_and_the_error_names_the_extra() -> None:
    program = """
import sys
sys.modules["redis"] = None
import tornado_ws
assert not any(name.startswith("tornado_ws.pubsub.topics") for name in sys.modules)
tornado_ws.Topics()
try:
    tornado_ws.Topics("redis://localhost")
except ImportError as error:
    print(error)
"""
    done = run("-c", program)
    assert done.stderr == ""
    assert "pip install 'tornado_ws[redis]'" in done.stdout


@pytest.mark.gen_test
async def test_no_task_is_left(redis_server: RedisServer) -> None:
    before = asyncio.all_tasks()
    async with Topics(redis_server.url) as topics, topics.listen("*"):
        await topics.publish("a", "x")
        assert asyncio.all_tasks() > before
    await until(lambda: asyncio.all_tasks() == before)
