"""What the servers share: their options, how they say their port, and how they end."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import json
import os
import platform
import signal
import ssl
from collections.abc import Coroutine
from typing import Any, NamedTuple

HOST = "127.0.0.1"
BACKLOG = 4096
#: How an application answers a message: in a plain function; in a coroutine that awaits the write, or does not, or
#: sleeps first for a turn of the loop; in a generator of Tornado's; in a task, or a callback of the loop's, of each
#: message; in one task that takes messages from a queue. Where a library has no such thing its server does the nearest.
SHAPES = ("plain", "awaiting", "not-awaiting", "sleeping", "gen-coroutine", "task", "call-soon", "queue")
#: A server ends by itself, whatever becomes of whoever started it.
LIFETIME = 900


class Options(NamedTuple):
    """What a row asks of a server. All else stays at the server's own defaults."""

    tls: ssl.SSLContext | None
    #: The files that `tls` was made of.
    certificate: tuple[str, str] | None
    compression: dict[str, Any] | None
    max_size: int
    json: bool
    broadcast: bool
    #: How often a task sends each message to all clients, instead of a callback that does it once; 0 for the latter.
    burst: int
    #: Whether ours does that with `tornado_ws.Topics`, not `tornado_ws.broadcast`.
    topics: bool
    #: Where an echo server is, to which each message goes and from which each answer comes; None for an own answer.
    relay: str | None
    uvloop: bool
    shape: str
    #: Seconds between the pings of a server; None sends none.
    ping_interval: float | None
    #: Whether ours has `tornado_ws.HTTPServer` in the place of Tornado's.
    fast_http: bool
    #: Where Redis is, for servers whose clients get what others publish there; None for all other servers.
    redis: str | None
    #: How many messages ours has published before it says its port, for clients that have missed them.
    missed: int


def parse_options() -> Options:
    """Read the command line, which all servers share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    parser.add_argument("--compression", type=json.loads, help="turn permessage-deflate on, with options in JSON")
    parser.add_argument("--max-size", type=int, default=16 * 1024 * 1024)
    parser.add_argument("--json", action="store_true", help="decode each message and send it encoded anew")
    parser.add_argument("--broadcast", action="store_true", help="send each message to all clients")
    parser.add_argument("--burst", type=int, default=0, help="with --broadcast: send it so often, in a task")
    parser.add_argument("--topics", action="store_true", help="with --broadcast: by a topic, which ours alone has")
    parser.add_argument("--relay", metavar="PORT", help="have the echo server at this port answer")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--ping-interval", type=float)
    parser.add_argument("--fast-http", action="store_true", help="the HTTP server of tornado_ws, which ours alone has")
    parser.add_argument("--redis", metavar="URL", help="send clients what is published to their topic there")
    parser.add_argument("--missed", type=int, default=0, help="publish so many messages first, which clients ask for")
    parser.add_argument("--shape", choices=SHAPES, default="plain", help="how the application answers a message")
    arguments = parser.parse_args()
    tls = None
    if arguments.tls:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*arguments.tls)
    return Options(
        tls,
        tuple(arguments.tls) if arguments.tls else None,
        arguments.compression,
        arguments.max_size,
        arguments.json,
        arguments.broadcast,
        arguments.burst,
        arguments.topics,
        f"ws://{HOST}:{arguments.relay}/" if arguments.relay else None,
        arguments.uvloop,
        arguments.shape,
        arguments.ping_interval,
        arguments.fast_http,
        arguments.redis,
        arguments.missed,
    )


_tasks: set[asyncio.Task[Any]] = set()


def begin_task(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run ``coroutine`` in a task, and keep that: the loop does not."""
    task = asyncio.create_task(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def announce(port: int, *packages: str, **more: str) -> None:
    """Print one line of JSON: where the server is, and the versions of what it runs on."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(
        json.dumps({"port": port, "versions": {"CPython": platform.python_version(), **versions}, **more}), flush=True
    )


def run(serve: Coroutine[Any, Any, object], options: Options) -> None:
    """Run ``serve`` until standard input ends: the runner holds the other end."""
    signal.alarm(LIFETIME)
    if options.uvloop:
        importlib.import_module("uvloop").run(_run(serve))
    else:
        asyncio.run(_run(serve))


async def _run(serve: Coroutine[Any, Any, object]) -> None:
    def watch_standard_input() -> None:
        if not os.read(0, 4096):
            # At once: taking leave of thousands of connections is not what is measured.
            os._exit(0)

    asyncio.get_running_loop().add_reader(0, watch_standard_input)
    await serve
