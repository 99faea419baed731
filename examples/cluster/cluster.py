"""A chat over two processes, with Redis between them and nginx in front: ``make cluster``.

It prints the address, and starts again what died. Ctrl-C ends all of it; SIGUSR1 starts the processes anew, one after
the other. Needs ``nginx`` (or ``haproxy``) and ``redis-server``, and ``pip install tornado_ws[redis]``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import grp
import logging
import os
import pwd
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

log = logging.getLogger("cluster")

HERE = Path(__file__).parent
NAMES = ("a", "b")
#: Seconds for a program to begin, and for one to end before it is killed.
PATIENCE = 15.0
#: Seconds after which the proxy takes a process that is back for alive, and the next one may be started again.
UNTIL_USED = 1.0


class Program:
    """A program that is started again when it ends, until it is stopped."""

    def __init__(self, name: str, command: list[str], directory: Path, address: str | tuple[str, int]) -> None:
        self._name = name
        self._command = command
        self._directory = directory
        self._address = address
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        await self._start()
        self._watching = asyncio.create_task(self._watch())

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._directory,
            stdout=asyncio.subprocess.DEVNULL,
            # A Ctrl-C in the terminal is for this program alone, which ends the others in their order.
            start_new_session=True,
        )
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not await self._answers():
            if self._process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise OSError(f"{self._name} does not begin: {' '.join(self._command)}")
            await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        try:
            if isinstance(self._address, str):
                _, writer = await asyncio.open_unix_connection(self._directory / self._address)
            else:
                _, writer = await asyncio.open_connection(*self._address)
        except OSError:
            return False
        writer.close()
        return True

    async def _watch(self) -> None:
        while True:
            assert self._process is not None
            status = await self._process.wait()
            if status:
                log.warning("%s ended with %d, and is started again", self._name, status)
            try:
                await self._start()
            except OSError as error:
                log.error("%s", error)
                await asyncio.sleep(1)

    async def restart(self) -> None:
        """End it as `stop` does; it is started again, and this waits until it is there."""
        process = self._process
        self._send(signal.SIGTERM)
        while self._process is process or not await self._answers():
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """End it: with SIGTERM, and if that takes too long by force."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            self._send(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), PATIENCE)
            except asyncio.TimeoutError:
                self._process.kill()
                await self._process.wait()

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None:
                self._process.send_signal(number)


def find(*names: str) -> list[str]:
    """Return where programs are, or end with a line that says what is missing."""
    # Debian keeps them where only root looks.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = [shutil.which(name, path=path) for name in names]
    missing = [name for name, where in zip(names, found, strict=True) if where is None]
    if missing:
        packages = {"nginx": "nginx-light"}
        install = " ".join(packages.get(name, name) for name in missing)
        raise SystemExit(f"This needs {' and '.join(missing)} in the path; on Debian: apt-get install {install}")
    return [where for where in found if where is not None]


def nginx(program: str, directory: Path, port: int) -> list[str]:
    settings = (HERE / "nginx.conf").read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    (directory / "nginx.conf").write_text(settings)
    command = [program, "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
    if os.geteuid() == 0:
        # Else its workers are nobody, who may not enter our directory.
        command += ["-g", f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"]
    return command


def haproxy(program: str, directory: Path, port: int) -> list[str]:
    os.environ["PORT"] = str(port)
    return [program, "-db", "-f", str(HERE / "haproxy.cfg")]


async def run(proxy: str, port: int) -> None:
    redis_program, proxy_program = find("redis-server", proxy)
    port = checked_port(port)
    stop, restart = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    # SIGHUP comes when the terminal is closed.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, restart.set)

    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        directory = Path(name)
        redis = [redis_program, "--port", "0", "--unixsocket", "redis.sock", "--save", "", "--loglevel", "warning"]
        url = f"unix://{directory}/redis.sock"
        servers = [
            Program(
                f"process {name}",
                [sys.executable, str(HERE / "process.py"), name, "--redis", url, "--socket", f"{name}.sock"],
                directory,
                f"{name}.sock",
            )
            for name in NAMES
        ]
        front = {"nginx": nginx, "haproxy": haproxy}[proxy](proxy_program, directory, port)
        programs = [
            Program("redis-server", redis, directory, "redis.sock"),
            *servers,
            Program(proxy, front, directory, ("127.0.0.1", port)),
        ]
        try:
            for program in programs:
                await program.start()
            print(f"http://127.0.0.1:{port}/", flush=True)
            await until_stopped(stop, restart, servers)
        finally:
            # The broker last: what the processes have still to publish goes there.
            for program in reversed(programs):
                await program.stop()


async def until_stopped(stop: asyncio.Event, restart: asyncio.Event, servers: list[Program]) -> None:
    stopped = asyncio.ensure_future(stop.wait())
    while not stopped.done():
        restarted = asyncio.ensure_future(restart.wait())
        await asyncio.wait([stopped, restarted], return_when=asyncio.FIRST_COMPLETED)
        restarted.cancel()
        if restart.is_set() and not stop.is_set():
            restart.clear()
            for server in servers:
                await server.restart()
                await asyncio.sleep(UNTIL_USED)
            log.warning("all processes are new")


def checked_port(port: int) -> int:
    """Return ``port``, or a free one for 0. Raises OSError where somebody has it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            raise OSError(f"Cannot listen on port {port}: {error.strerror}. --port 0 takes any that is free.") from None
        return int(sock.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0 for any that is free (default: %(default)s)")
    parser.add_argument("--proxy", choices=["nginx", "haproxy"], default="nginx", help="default: %(default)s")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s cluster: %(message)s")
    try:
        asyncio.run(run(arguments.proxy, arguments.port))
    except OSError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
