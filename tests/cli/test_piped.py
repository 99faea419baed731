"""``connect`` between two pipes: lines in, lines out, and a status that tells how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tornado.netutil import bind_sockets
from tornado.testing import bind_unused_port

from tests.cli.commands import PROGRAM, abort, command, ended, line_of, started
from tests.client.proxies import tinyproxy
from tests.conftest import Tls
from tests.peer import raw_server
from tests.programs import ROOT, environment
from tests.support import FOREVER, Echo, serving, until
from tornado_ws import WebSocketHandler

HOSTILE = "\x1b]0;owned\x07\u202e"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"a\n\xc3\xa9\r\n\nlast", "a\né\n\nlast\n"),
        (b"", ""),
        (HOSTILE.encode(), HOSTILE + "\n"),
        (b"x" * 200_000 + b"\ny", "x" * 200_000 + "\ny\n"),
    ],
    ids=["lines", "nothing", "hostile", "long"],
)
async def test_each_line_is_a_message_and_each_message_a_line(text: bytes, lines: str) -> None:
    async with serving(Echo) as url:
        assert await command("connect", url, text=text) == (0, lines, "")


@pytest.mark.gen_test
async def test_a_file_is_piped_too(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\nb\n")
    async with serving(Echo) as url:
        with (tmp_path / "in").open() as given, (tmp_path / "out").open("w") as taken:
            process = await asyncio.create_subprocess_exec(
                *PROGRAM, "connect", url, stdin=given, stdout=taken, cwd=ROOT, env=environment()
            )
            assert await process.wait() == 0
    assert (tmp_path / "out").read_text() == "a\nb\n"


@pytest.mark.gen_test
async def test_binary_messages_are_hexadecimal() -> None:
    async with serving(Echo) as url:
        assert await command("connect", url, "--binary", text=b"00ff\n41 42") == (0, "00ff\n4142\n", "")


@pytest.mark.gen_test
async def test_json_is_always_one_value_a_line() -> None:
    class Says(Echo):
        async def on_message(self, message: str | bytes) -> None:
            for said in ('{"a":\n [1.50, 1e400]}', "no\njson", b"\x00\xff", "[" * 100_000):
                await self.write_message(said, binary=isinstance(said, bytes))

    async with serving(Says) as url:
        status, out, err = await command("connect", url, "--json", text=b"go")
    assert (status, err) == (0, "")
    assert out.splitlines()[:3] == ['{"a":[1.50,1e400]}', '"no\\njson"', '{"binary":"00ff"}']
    assert json.loads(out.splitlines()[3]) == "[" * 100_000


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        ([], b"ok\n\xff\n", r"line 2 of the input is b'\xff'; it has to be UTF-8"),
        (["--binary"], b"0", "line 1 of the input: '0' is not hexadecimal; it has to be two digits 0-9, a-f"),
    ],
)
async def test_a_wrong_line_ends_it(arguments: list[str], text: bytes, said: str) -> None:
    async with serving(Echo) as url:
        status, out, err = await command("connect", url, *arguments, text=text)
    assert status == 2
    assert said in err
    assert out in ("", "ok\n")
    assert "Traceback" not in err


class Closes(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        if message == "vanish":
            abort(self)
        else:
            self.close(int(message), HOSTILE)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (b"1000\n", 0, ""),
        (b"1001\n", 0, ""),
        (b"1011\n", 5, "tornado_ws: connection closed with 1011: \\x1b]0;owned\\x07\\u202e\n"),
        (b"vanish\n", 6, "tornado_ws: connection closed with 1006\n"),
    ],
)
async def test_the_status_tells_how_it_ended(text: bytes, status: int, said: str) -> None:
    async with serving(Closes) as url:
        assert await command("connect", url, "--wait", "inf", text=text) == (status, "", said)


@pytest.mark.gen_test
async def test_there_is_no_connection() -> None:
    sock, port = bind_unused_port()
    sock.close()
    for url in (f"ws://127.0.0.1:{port}/?secret", "ws://no-such-host.invalid/"):
        status, out, err = await command("connect", url)
        assert (status, out) == (3, "")
        assert err.startswith(f"tornado_ws: no connection to {url.partition('?')[0]}: ")
        assert "secret" not in err


@pytest.mark.gen_test
async def test_the_server_refuses() -> None:
    class Refuses(WebSocketHandler):
        def prepare(self) -> None:
            self.set_status(403, "no " + HOSTILE.encode("unicode_escape").decode())
            self.finish()

    async with serving(Refuses) as url:
        status, out, err = await command("connect", url)
    assert (status, out) == (4, "")
    assert "HTTP 403" in err


@pytest.mark.gen_test
async def test_a_server_that_says_nothing_is_waited_for_so_long() -> None:
    async with raw_server() as server:
        status, out, err = await command("connect", server.url, "--timeout", "0.2")
    assert (status, out) == (3, "")
    assert "Timeout" in err


@pytest.mark.gen_test
async def test_headers_subprotocols_and_compression() -> None:
    seen: list[Any] = []

    class Sees(Echo):
        def select_subprotocol(self, subprotocols: list[str]) -> str | None:
            seen.append(subprotocols)
            return subprotocols[1]

        def get_compression_options(self) -> dict[str, Any]:
            return {}

        def open(self) -> None:
            seen.extend(self.request.headers.get_list("X-Name"))

    arguments = ["--header", "X-Name: a: b", "--header", "x-name:c", "--subprotocol", "one", "--subprotocol", "two"]
    async with serving(Sees) as url:
        status, out, err = await command("connect", url, *arguments, "--compress", "--verbose", text=b"a")
    assert (status, out) == (0, "a\n")
    assert seen == [["one", "two"], "a: b", "c"]
    assert "tornado_ws: connected, subprotocol two\n" in err
    assert "tornado_ws: Sec-Websocket-Extensions: permessage-deflate" in err
    assert "tornado_ws: closed with 1000\n" in err


@pytest.mark.gen_test
async def test_certificates(tls: Tls, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with serving(Echo, ssl_options=context) as plain:
        url = plain.replace("ws://127.0.0.1", "wss://localhost")
        assert await command("connect", url, "--insecure", text=b"a") == (0, "a\n", "")
        assert await command("connect", url, "--cafile", str(tmp_path / "ca.pem"), text=b"a") == (0, "a\n", "")
        status, _, err = await command("connect", url)
        assert (status, "certificate" in err.lower()) == (3, True)
    status, _, err = await command("connect", "wss://localhost", "--cafile", str(tmp_path / "missing"))
    assert (status, "missing': No such file" in err) == (2, True)


@pytest.mark.gen_test
async def test_proxies(tmp_path: Path) -> None:
    with tinyproxy(tmp_path) as port:
        proxy = f"http://127.0.0.1:{port}"
        async with serving(Echo) as url:
            assert await command("connect", url, "--proxy", proxy, text=b"a") == (0, "a\n", "")
    # It is gone.
    async with serving(Echo) as url:
        environ: Any = {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": ""}
        for arguments in (["--proxy", proxy], []):
            status, _, err = await command("connect", url, *arguments, **environ)
            assert (status, f"proxy {proxy}" in err) == (3, True)
        assert await command("connect", url, "--no-proxy", text=b"a", **environ) == (0, "a\n", "")


@pytest.mark.gen_test
async def test_it_connects_again() -> None:
    sock, port = bind_unused_port()
    url = f"ws://127.0.0.1:{port}"
    handlers: list[WebSocketHandler] = []

    class Opens(Echo):
        def open(self) -> None:
            handlers.append(self)

    async with started("connect", url, "--reconnect", "-v") as process:
        assert process.stdin is not None
        async with serving(Opens, sockets=[sock], alone=False):
            process.stdin.write(b"one\n")
            assert await line_of(process.stdout) == "one"
        handlers[0].close(1012)
        while "attempt 2 failed" not in await line_of(process.stderr):
            pass
        # It waits for the next connection.
        process.stdin.write(b"two\n")
        async with serving(Echo, sockets=bind_sockets(port, "127.0.0.1"), alone=False):
            assert await line_of(process.stdout) == "two"
            status, out, err = await ended(process)
    assert (status, out) == (0, "")
    assert err.endswith("tornado_ws: closed with 1000\n")


@pytest.mark.gen_test
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_closes_with_a_closing_handshake(number: signal.Signals) -> None:
    codes: list[int | None] = []

    class Notes(Echo):
        def on_close(self) -> None:
            codes.append(self.close_code)

    async with serving(Notes) as url, started("connect", url) as process:
        assert process.stdin is not None
        process.stdin.write(b"a\n")
        assert await line_of(process.stdout) == "a"
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 60) == 128 + number
        await until(lambda: codes)
        assert codes == [1000]
        assert process.stderr is not None
        assert await process.stderr.read() == b""


@pytest.mark.gen_test
async def test_a_signal_while_connecting() -> None:
    async with raw_server() as server, started("connect", server.url) as process:
        await server.accept_tcp()
        process.send_signal(signal.SIGINT)
        assert (await ended(process)) == (130, "", "")


@pytest.mark.gen_test
async def test_standard_descriptors_that_are_closed_are_nobodys() -> None:
    async with serving(Echo) as url:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", 'exec "$@" <&- >&-', "sh", *PROGRAM, "connect", url, cwd=ROOT, env=environment()
        )
        assert await process.wait() == 0


@pytest.mark.gen_test
async def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    async with serving(Echo) as url:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, "connect", url, stdin=descriptor, stderr=asyncio.subprocess.PIPE, cwd=ROOT, env=environment()
        )
        os.close(descriptor)
        _, err = await process.communicate()
    assert (process.returncode, err) == (2, b"tornado_ws: the input cannot be read: Bad file descriptor\n")


@contextlib.asynccontextmanager
async def into_head(url: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the program with a pipe that whoever reads it closes."""
    reader, writer = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *arguments,
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    os.close(writer)
    try:
        assert process.stdin is not None
        process.stdin.write(b"a\n")
        assert await asyncio.to_thread(os.read, reader, 100) == b"a\n"
        os.close(reader)
        process.stdin.write(b"b\n")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.gen_test
async def test_it_ends_quietly_when_nobody_reads_it() -> None:
    async with serving(Echo) as url, into_head(url, "connect", "--wait", "inf") as process:
        # Its input goes on.
        assert await asyncio.wait_for(process.wait(), 60) == 141
        assert process.stderr is not None
        assert await process.stderr.read() == b""


@pytest.mark.gen_test
async def test_a_slow_reader_slows_the_server_and_stops_no_ping() -> None:
    class Floods(Echo):
        async def on_message(self, message: str | bytes) -> None:
            for number in range(int(message)):
                await self.write_message(f"{number:06d}" + "x" * 50_000)

        def on_pong(self, data: bytes) -> None:
            pongs.append(data)

    pongs: list[bytes] = []
    settings: Any = {"websocket_ping_interval": 0.1, "websocket_keepalive_timeout": FOREVER}
    async with serving(Floods, **settings) as url, started("connect", url) as process:
        assert process.stdin is not None
        # More than waits for who reads, and less than what is read ahead.
        process.stdin.write(b"30\n")
        await until(lambda: len(pongs) > 5)
        process.stdin.write(b"100\n")
        for number in (*range(30), *range(100)):
            assert int((await line_of(process.stdout))[:6]) == number
        assert await ended(process) == (0, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "tornado_ws", "serve", "--port", "0"],
            cwd=ROOT, env=environment(), stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, text=True,
        )  # fmt: skip
    assert (result.returncode, result.stderr) == (1, "tornado_ws: cannot write the output: No space left on device\n")
