"""Real proxies for tests: Debian's tinyproxy, microsocks and dante-server, each on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tests.needs import need
from tests.ports import unused_port
from tests.support import PATIENCE, until

#: Where Debian has daemons, which is not in the path of every user.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
Timeout 600
MaxClients 50
LogLevel Warning
"""

DANTE = """
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
socksmethod: none
clientmethod: none
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
{rules}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
"""


@contextlib.contextmanager
def _running(directory: Path, port: int, *command: str) -> Iterator[None]:
    program = shutil.which(command[0], path=_PATH)
    need(program, command[0])
    assert program is not None
    log = directory / f"{command[0]}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [program, *command[1:]], cwd=directory, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_for(port, process, log)
        yield
    finally:
        # Dante has children.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        else:
            return


@contextlib.contextmanager
def tinyproxy(directory: Path, *settings: str) -> Iterator[int]:
    """Run an HTTP proxy, and give its port."""
    port = unused_port()
    config = directory / "tinyproxy.conf"
    config.write_text(TINYPROXY.format(port=port) + "\n".join(settings) + "\n")
    with _running(directory, port, "tinyproxy", "-d", "-c", str(config)):
        yield port


@contextlib.contextmanager
def microsocks(directory: Path, *options: str) -> Iterator[int]:
    """Run a SOCKS5 proxy, and give its port."""
    port = unused_port()
    with _running(directory, port, "microsocks", "-i", "127.0.0.1", "-p", str(port), *options):
        yield port


@contextlib.contextmanager
def dante(directory: Path, blocked_port: int | None = None) -> Iterator[int]:
    """Run a proxy for SOCKS4 and SOCKS5, and give its port."""
    port = unused_port()
    config = directory / "danted.conf"
    rules = "" if blocked_port is None else f"socks block {{ from: 0.0.0.0/0 to: 0.0.0.0/0 port = {blocked_port} }}"
    config.write_text(DANTE.format(port=port, rules=rules))
    with _running(directory, port, "danted", "-f", str(config), "-p", str(directory / "danted.pid")):
        yield port


class TlsFront:
    """Takes TLS connections, and carries what is in them to a port and back: it makes a proxy an https one."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self.port = 0
        #: Connections that were taken, and what was said in each first, at most a line.
        self.first_lines: list[bytes] = []
        self._open = 0

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        try:
            line = await reader.readline()
            self.first_lines.append(line)
            behind_writer.write(line)
            await asyncio.gather(_pump(reader, behind_writer), _pump(behind_reader, writer))
        finally:
            for one in (behind_writer, writer):
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()
            self._open -= 1

    async def wait_closed(self) -> None:
        """Wait until all connections have ended."""
        await until(lambda: not self._open)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    # The end of one direction ends both.
    writer.close()


@contextlib.asynccontextmanager
async def tls_front(port: int, context: ssl.SSLContext) -> AsyncIterator[TlsFront]:
    front = TlsFront(port)
    server = await asyncio.start_server(front._carry, "127.0.0.1", 0, ssl=context)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
        await server.wait_closed()
        await front.wait_closed()
