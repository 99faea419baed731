"""Programs that are pinned to a core, bounded in time, and gone afterwards with all that they started."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_START_TIMEOUT = 20.0


class FailedError(Exception):
    """A program did not do what it was started for; the message is one line for a person."""


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of ours."""
    return [sys.executable, "-m", module, *arguments]


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **extra}
    # Whether modules come from their caches must not depend on who measures.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _start(command: Sequence[str], core: int, environment: Mapping[str, str], stderr: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=_environment(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
        # Before it runs, because threads inherit it. We have no threads of our own, with which this would be unsafe.
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    process.wait()


def _last_line(log: Any) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


@contextlib.contextmanager
def running(
    command: Sequence[str], core: int, environment: Mapping[str, str], timeout: float = _START_TIMEOUT
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a program that prints one line when it is ready, and give that line; end it at the end."""
    with tempfile.TemporaryFile() as log:
        process = _start(command, core, environment, log)
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], timeout)
            line = process.stdout.readline().decode() if ready else ""
            if not line:
                raise FailedError(f"{_name(command)} did not start: {_last_line(log)}")
            yield process, line
        except FailedError as error:
            # A load that fails is as a rule the server's doing.
            if process.poll() is not None:
                raise FailedError(f"{error}; {_name(command)} ended: {_last_line(log)}") from None
            raise
        finally:
            _end(process)


def run(command: Sequence[str], core: int, timeout: float, environment: Mapping[str, str] | None = None) -> Any:
    """Run a program to its end and return what it printed, from JSON."""
    with tempfile.TemporaryFile() as log:
        process = _start(command, core, environment or {}, log)
        try:
            out, _ = process.communicate(timeout=timeout)
            if process.returncode != 0:
                raise FailedError(f"{_name(command)} failed: {_last_line(log)}")
            return json.loads(out)
        except subprocess.TimeoutExpired:
            raise FailedError(f"{_name(command)} took more than {timeout:.0f} s") from None
        finally:
            _end(process)


def _name(command: Sequence[str]) -> str:
    return command[2] if command[1:2] == ["-m"] else Path(command[0]).name


class Usage(NamedTuple):
    """CPU seconds of a process: its own, and the kernel's on its behalf."""

    user: float
    system: float


def usage_of(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return Usage(int(fields[11]) / ticks, int(fields[12]) / ticks)


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise FailedError(f"process {pid} is gone")
