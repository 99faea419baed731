"""``bench URL``: how fast an echo server answers."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tornado_ws.cli import statuses
from tornado_ws.cli.connecting import CONNECT_ERRORS, connect_arguments, status_of, words
from tornado_ws.cli.display import warn
from tornado_ws.cli.interrupts import run_to_end
from tornado_ws.cli.lines import writing
from tornado_ws.client.connect import websocket_connect
from tornado_ws.client.connection import WebSocketClientConnection
from tornado_ws.errors import WebSocketClosedError
from tornado_ws.escaping import shown, without_password

#: Opening handshakes that are under way at once: more would fill the backlog of most servers.
_CONNECTING = 100

#: Seconds after which a message is taken to have no echo.
_PATIENCE = 10.0

#: Seconds between two steps of the progress bar.
_STEP = 0.1


class _NoEchoError(Exception):
    """The peer is no echo server: the text says what it did."""


class Figures(NamedTuple):
    """What was measured; the names are those of ``--json``."""

    url: str
    connections: int
    size: int
    messages: int
    seconds: float
    messages_per_second: float
    connections_per_second: float
    round_trip_p50_ms: float
    round_trip_p99_ms: float

    def text(self) -> str:
        return (
            f"connections: {self.connections}, {self.connections_per_second:.0f} opened a second\n"
            f"messages: {self.messages} of {self.size} bytes in {self.seconds:.2f} s, "
            f"{self.messages_per_second:.0f} a second\n"
            f"round trip: p50 {self.round_trip_p50_ms:.3f} ms, p99 {self.round_trip_p99_ms:.3f} ms\n"
        )


def main(options: argparse.Namespace) -> int:
    """Measure, and print the figures; returns the exit status."""
    return asyncio.run(run_to_end(_bench(options)))


async def _bench(options: argparse.Namespace) -> int:
    arguments = connect_arguments(options)
    run = _Run(options)
    try:
        figures = await run.measure(arguments)
    except CONNECT_ERRORS as error:
        warn(words(options.url, error))
        return status_of(error)
    except WebSocketClosedError as error:
        warn(str(error))
        return statuses.of_close(error.close_code)
    except _NoEchoError as error:
        warn(f"bench needs a server that sends every message back; {error}")
        return statuses.FAILED
    async with writing(1) as out:
        out.put((json.dumps(figures._asdict()) + "\n" if options.json else figures.text()).encode())
    return statuses.OK


class _Run:
    """Each connection has one message under way: sends it, and waits for it to come back."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._times = array("d")

    async def measure(self, arguments: dict[str, Any]) -> Figures:
        options = self._options
        async with contextlib.AsyncExitStack() as stack:
            began = time.perf_counter()
            connections = await self._connect(arguments, stack)
            connecting = time.perf_counter() - began
            with _progress(options, lambda: len(self._times)):
                began = time.perf_counter()
                until = began + options.seconds if options.seconds is not None else math.inf
                await _together(self._exchange(conn, number, until) for number, conn in enumerate(connections))
                seconds = time.perf_counter() - began
        times = sorted(self._times)
        if not times:
            raise _NoEchoError("nothing came back in that time")
        return Figures(
            without_password(options.url),
            len(connections),
            options.size,
            len(times),
            round(seconds, 6),
            round(len(times) / seconds, 1),
            round(len(connections) / connecting, 1),
            round(_percentile(times, 50) * 1000, 4),
            round(_percentile(times, 99) * 1000, 4),
        )

    async def _connect(
        self, arguments: dict[str, Any], stack: contextlib.AsyncExitStack
    ) -> list[WebSocketClientConnection]:
        connections = []
        numbers = iter(range(self._options.connections))

        async def connect() -> None:
            for _ in numbers:
                conn = await websocket_connect(**arguments)
                connections.append(await stack.enter_async_context(conn))

        await _together(connect() for _ in range(min(_CONNECTING, self._options.connections)))
        return connections

    async def _exchange(self, conn: WebSocketClientConnection, number: int, until: float) -> None:
        size = self._options.size
        for count in itertools.count() if until < math.inf else range(self._options.messages):
            # No two are the same, as far as the size allows.
            message = f"{count}.{number}.".ljust(size, "x")[:size]
            sent = time.perf_counter()
            if sent >= until:
                break
            await conn.write_message(message)
            echo = await _next(conn)
            now = time.perf_counter()
            if echo != message:
                raise _NoEchoError(f"it got {shown(message, 40)} and sent {shown(echo, 40)}")
            self._times.append(now - sent)


async def _next(conn: WebSocketClientConnection) -> str | bytes:
    is_late = False

    def give_up() -> None:
        nonlocal is_late
        is_late = True
        conn.close()

    timer = asyncio.get_running_loop().call_later(_PATIENCE, give_up)
    try:
        return await anext(conn)
    except (StopAsyncIteration, WebSocketClosedError) as error:
        if is_late:
            raise _NoEchoError(f"it sent nothing for {_PATIENCE:g} seconds") from error
        if isinstance(error, StopAsyncIteration):
            raise _NoEchoError("it closed the connection") from error
        raise
    finally:
        timer.cancel()


async def _together(works: Iterator[Any]) -> None:
    """Do all ``works`` at once. The first that raises ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _percentile(times: list[float], percent: int) -> float:
    """Return the time that ``percent`` of ``times``, which are in order, do not exceed."""
    return times[max(0, math.ceil(len(times) * percent / 100) - 1)]


@contextlib.contextmanager
def _progress(options: argparse.Namespace, done: Callable[[], int]) -> Iterator[None]:
    """Show a progress bar on standard error, where that is a terminal and rich is installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    except ImportError:
        yield
        return
    if not sys.stderr.isatty():
        yield
        return
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    total = options.seconds or options.messages * options.connections
    # Drawn by this thread, or the one that measures would be measured with another one beside it.
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        bar = progress.add_task("messages", total=total)

        timer: asyncio.TimerHandle | None = None

        def step() -> None:
            nonlocal timer
            passed = time.perf_counter() - began if options.seconds else done()
            progress.update(bar, completed=passed, description=f"{done()} messages", refresh=True)
            timer = loop.call_later(_STEP, step)

        step()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
