"""A ``redis-server`` of one measurement, and what it was asked."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator

from benchmarks.process import FailedError, running
from benchmarks.servers.common import HOST, LIFETIME
from tests.ports import unused_port

_PATIENCE = 20.0
#: It ends by itself, whatever becomes of whoever started it: an alarm outlives exec.
_RUN = f"import os, signal, sys; signal.alarm({LIFETIME}); os.execvp(sys.argv[1], sys.argv[1:])"
_END = "the-benchmark-has-ended"


@contextlib.contextmanager
def redis_server(program: str, core: int) -> Iterator[str]:
    """Run a server that keeps nothing on disk, and give its URL."""
    port = unused_port()
    with tempfile.TemporaryDirectory(prefix="tornado_ws-redis-") as directory:
        options = ["--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", directory]
        with running([sys.executable, "-c", _RUN, program, *options], core, {}):
            _wait_for(port)
            yield f"redis://{HOST}:{port}/0"


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=_PATIENCE) as client:
            client.sendall(b"PING\r\n")
            if client.recv(64).startswith(b"+PONG"):
                return
        time.sleep(0.01)
    raise FailedError(f"redis-server does not answer at port {port}")


class Commands:
    """What the server was asked while it was watched."""

    def __init__(self) -> None:
        self.all: list[str] = []

    @property
    def reads(self) -> int:
        return reads_among(self.all)


@contextlib.contextmanager
def watched(url: str) -> Iterator[Commands]:
    """Give the commands that the server gets, which are there at the end."""
    import redis

    commands = Commands()
    with redis.Redis.from_url(url) as client, client.monitor() as monitor:
        yield commands
        client.echo(_END)
        for said in monitor.listen():
            if _END in said["command"]:
                return
            commands.all.append(said["command"])


def reads_among(commands: Iterable[str]) -> int:
    """Return how many commands read what is in a stream.

    An XREAD that blocks is none: a process waits with it for what is new, whoever its clients are.
    """
    return sum(bool(_READ.match(command)) and not _WAIT.match(command) for command in commands)


_READ = re.compile(r"(XREAD|XRANGE|XREVRANGE|XREADGROUP) ", re.IGNORECASE)
_WAIT = re.compile(r"XREAD (COUNT \d+ )?BLOCK \d", re.IGNORECASE)
