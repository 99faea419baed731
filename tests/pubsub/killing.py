"""``kill -9`` of a process with 1,000 clients, which resume at another one: ``python -m tests.pubsub.killing``.

Both are at one port, each client gets numbered messages of one of ten rooms, and a publisher goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tornado.httpclient import AsyncHTTPClient

from tests.needs import need
from tests.programs import ROOT, untraced
from tests.pubsub.redis_server import RedisServer
from tests.support import until
from tornado_ws import Resume, Topics, WebSocketClosedError, reconnect

ROOMS = 10


class Client:
    """Reads the numbers of a room until the end of it, over as many connections as that takes."""

    def __init__(self, url: str, room: int) -> None:
        self.numbers: list[int] = []
        self.connections = 0
        #: Whether a second connection has brought something.
        self.is_back = False
        self.resume = Resume()
        self.task = asyncio.ensure_future(self._run(f"{url}/feed/{room}"))

    async def _run(self, url: str) -> None:
        connections: Any = reconnect(url, resume=self.resume)
        # The last connection is closed here, not by a task of the loop's that nobody waits for.
        async with contextlib.aclosing(connections):
            async for conn in connections:
                self.connections += 1
                with contextlib.suppress(WebSocketClosedError):
                    async for message in conn:
                        if message.data == "end":
                            return
                        self.numbers.append(int(message.data))
                        self.is_back = self.is_back or self.connections > 1

    @property
    def is_subscribed(self) -> bool:
        # The server has said where it begins.
        return bool(self.resume.positions)


@contextlib.asynccontextmanager
async def process(url: str, port: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a server, and give it and the address that is its own."""
    command = ["-m", "tests.pubsub.feed_process", url, str(port)]
    environment = {**untraced(), "PYTHONPATH": str(ROOT)}
    program = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, env=environment, stdout=subprocess.PIPE
    )
    try:
        assert program.stdout is not None
        yield program, f"127.0.0.1:{int(await program.stdout.readline())}"
    finally:
        if program.returncode is None:
            program.kill()
        await program.communicate()


@contextlib.contextmanager
def shared_port() -> Iterator[int]:
    """Give a port at which several processes can listen, and that nobody else gets."""
    need(hasattr(socket, "SO_REUSEPORT"), "SO_REUSEPORT")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need(hard == resource.RLIM_INFINITY or hard >= count, f"a limit of {count} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count if soft != resource.RLIM_INFINITY else soft, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def publish(topics: Topics, stop: asyncio.Event) -> int:
    """Publish 0, 1, 2 … to each room until told to stop, and then the end; returns how many numbers that were."""
    number = 0
    while not stop.is_set():
        for room in range(ROOMS):
            topics.publish(str(room), str(number))
        number += 1
        await asyncio.sleep(0.1)
    await asyncio.gather(*(topics.publish(str(room), "end") for room in range(ROOMS)))
    return number


async def asked(address: str) -> int:
    return int((await AsyncHTTPClient(force_instance=True).fetch(f"http://{address}/asked")).body)


def reads(server: RedisServer) -> int:
    """How often older messages were read from a stream."""
    return int(server.ask("INFO", "commandstats").get("cmdstat_xrange", {"calls": 0})["calls"])


class Outcome(NamedTuple):
    """What became of the messages for the clients of the process that was killed."""

    clients: int
    messages: int
    lost: int
    doubled: int
    out_of_order: int
    #: What the other process asked the broker meanwhile: commands of its own, and reads of older messages by anybody.
    questions: int
    reads: int
    #: From the kill until all clients were back.
    seconds: float


async def kill_and_resume(server: RedisServer, count: int = 1000) -> Outcome:
    """Have ``count`` clients at a process, kill it, and see them go on at another one that is up."""
    stop = asyncio.Event()
    with descriptors(2 * count + 1000), shared_port() as port:
        async with Topics(server.url) as topics, process(server.url, port) as (dying, _):
            clients = [Client(f"ws://127.0.0.1:{port}", number % ROOMS) for number in range(count)]
            await until(lambda: all(client.is_subscribed for client in clients))
            async with process(server.url, port) as (_, address):
                # It has read the streams for clients of its own.
                own = [Client(f"ws://{address}", room) for room in range(ROOMS)]
                await until(lambda: all(client.is_subscribed for client in own))
                publishing = asyncio.ensure_future(publish(topics, stop))
                await until(lambda: all(len(client.numbers) > 5 for client in clients))
                questions, older = await asked(address), reads(server)
                dying.kill()
                begun = time.monotonic()
                await until(lambda: all(client.connections == 2 and client.is_back for client in clients))
                seconds = time.monotonic() - begun
                questions, older = await asked(address) - questions, reads(server) - older
                stop.set()
                sent = await publishing
                await asyncio.gather(*(client.task for client in (*clients, *own)))
    return Outcome(
        count,
        sum(len(client.numbers) for client in clients),
        sum(sent - len(set(client.numbers)) for client in clients),
        sum(len(client.numbers) - len(set(client.numbers)) for client in clients),
        sum(client.numbers != sorted(client.numbers) for client in clients),
        questions,
        older,
        seconds,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory))
        server.start()
        try:
            outcome = asyncio.run(kill_and_resume(server))
        finally:
            server.stop()
    for name, value in outcome._asdict().items():
        print(
            f"{name.replace('_', ' '):>12}  {value:,.1f}"
            if isinstance(value, float)
            else f"{name.replace('_', ' '):>12}  {value:,}"
        )


if __name__ == "__main__":
    main()
