"""The processes that take part: commands go to their stdin as JSON, one a line, and answers come from their stdout."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import resource
import ssl
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from soak.checks import Failures, held
from soak.plans import Plan, plan_of

#: Loopback addresses of servers: each has ports of its own for connections to it.
HOSTS = [f"127.0.0.{number}" for number in range(1, 9)]

#: Seconds without any progress after which what is to come is taken to be lost.

PATIENCE = 60.0

#: Seconds of a timeout of ours that is not to pass: those that are held wait for the last one to be open.
NEVER = 86400.0

#: What goes over the pipe in one line.
_LINE = 1 << 24

BACKLOG = 4096


class Part:
    """One of the processes. Methods whose names begin with ``do_`` are its commands."""

    def __init__(self, seed: str, certificates: Path) -> None:
        self.seed = seed
        self.certificates = certificates
        self.failures = Failures()
        self.phase = ""
        #: Grows with whatever happens.
        self.progress = 0

    def plan(self, number: int) -> Plan:
        return plan_of(self.seed, self.phase, number)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificates / "server.pem")
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificates / "authority.pem"))

    async def waits_in_vain(self, is_done: Callable[[], bool]) -> bool:
        """Wait until ``is_done``; return whether nothing happened for long before that."""
        loop = asyncio.get_running_loop()
        seen, since = self.progress, loop.time()
        while not is_done():
            await asyncio.sleep(0.01)
            if seen != self.progress:
                seen, since = self.progress, loop.time()
            elif loop.time() - since > PATIENCE:
                return True
        return False

    async def do_held(self) -> dict[str, int]:
        return held()

    async def do_failures(self) -> dict[str, Any]:
        return self.failures.take()

    async def serve_commands(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LINE)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command, arguments = json.loads(line)
            answer = await getattr(self, f"do_{command}")(**arguments)
            print(json.dumps(answer), flush=True)


def run(make: Callable[[str, Path], Part]) -> None:
    """Be the process of the part that ``make`` makes, until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seed")
    parser.add_argument("certificates", type=Path)
    arguments = parser.parse_args()
    raise_limit()

    async def main() -> None:
        part = make(arguments.seed, arguments.certificates)
        logging.getLogger().addHandler(part.failures)
        sys.unraisablehook = part.failures.on_unraisable
        warnings.simplefilter("error", ResourceWarning)
        await part.serve_commands()

    asyncio.run(main())


def raise_limit() -> int:
    """Allow as many descriptors as may be, and return how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Driver(Part):
    """A part that opens connections, or answers those that are opened to it, each by a task."""

    def __init__(self, seed: str, certificates: Path) -> None:
        super().__init__(seed, certificates)
        self.servers: dict[str, list[tuple[str, int]]] = {}
        self._go = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], int] = {}
        self._begun = 0
        self.opened = 0

    def address(self, kind: str, number: int) -> tuple[str, int]:
        addresses = self.servers[kind]
        host, port = addresses[number % len(addresses)]
        return host, port

    def takes_part(self, plan: Plan) -> bool:
        """Return whether this part connects for ``plan``."""
        raise NotImplementedError

    async def drive(self, plan: Plan) -> None:
        """Do what ``plan`` says, and await `hold` when the connection is open."""
        raise NotImplementedError

    async def hold(self) -> None:
        """Wait until the connections of all are open."""
        self.opened += 1
        self.progress += 1
        await self._go.wait()

    async def do_connect_to(self, servers: dict[str, list[tuple[str, int]]]) -> None:
        self.servers.update(servers)

    async def do_begin(self, phase: str, first: int, last: int, at_a_time: int, holding: bool) -> int:
        """Begin with the plans from ``first`` to before ``last``; return how many connections are open and held."""
        self.phase = phase
        self.opened = 0
        if holding:
            self._go.clear()
        else:
            self._go.set()
        self._filling = asyncio.ensure_future(self._fill(range(first, last), at_a_time, holding))
        if holding:
            await self._filling
            if await self.waits_in_vain(lambda: self.opened >= self._begun or not self._tasks):
                self.failures.add(None, f"{self.opened} of {self._begun} connections were opened")
        return self.opened if holding else 0

    async def _fill(self, numbers: range, at_a_time: int, holding: bool) -> None:
        """Begin with each plan when fewer than ``at_a_time`` are on their way to being open, or to their end."""
        self._begun = 0
        for number in numbers:
            plan = self.plan(number)
            if self.takes_part(plan):
                while self._tasks and (self._begun - self.opened if holding else len(self._tasks)) >= at_a_time:
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED, timeout=0.001)
                self.start(plan, self.drive(plan))
                self._begun += 1

    def start(self, plan: Plan, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[task] = plan.number

        def end(task: asyncio.Task[None]) -> None:
            del self._tasks[task]
            self.progress += 1
            if not task.cancelled() and (error := task.exception()) is not None:
                self.failures.add(plan, f"{type(error).__name__}: {error}")

        task.add_done_callback(end)

    async def do_end(self) -> None:
        """Let go, and return when each connection has ended."""
        self._go.set()
        if await self.waits_in_vain(lambda: self._filling.done() and not self._tasks):
            for task, number in list(self._tasks.items()):
                stack = [f"{frame.f_code.co_name}:{frame.f_lineno}" for frame in task.get_stack()]
                self.failures.add(self.plan(number), f"nothing happens any more in {stack}")
                task.cancel()
            self._filling.cancel()
            await asyncio.sleep(0.1)
        await self._filling


class Child:
    """One of the processes, from outside."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, name: str, seed: str, certificates: Path) -> AsyncIterator[Child]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"soak.{name}",
            seed,
            str(certificates),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE,
        )
        try:
            yield cls(name, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), PATIENCE)
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def do(self, command: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} has ended")
        return json.loads(line)
