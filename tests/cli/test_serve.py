"""``serve``: an echo and files, for this machine alone unless it is told otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.testing import bind_unused_port

from tests.cli.commands import command, hiding, line_of, started
from tests.support import PATIENCE
from tornado_ws import HandshakeRejectedError, websocket_connect

ELSEWHERE = {"Origin": "http://elsewhere.example"}


@contextlib.asynccontextmanager
async def served(*arguments: str, addresses: int = 1) -> AsyncIterator[list[str]]:
    """Serve, give the URLs that are printed, and end it with a signal."""
    async with started("serve", "--port", "0", *arguments) as process:
        yield [(await line_of(process.stdout)).partition(": ")[2] for _ in range(addresses)]
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        assert process.stderr is not None
        assert b"Traceback" not in await process.stderr.read()


@pytest.mark.gen_test
async def test_an_echo_on_loopback() -> None:
    async with served("--compress") as (url,):
        assert url.startswith("ws://127.0.0.1:")
        async with websocket_connect(url + "any/path", compression_options={}) as conn:
            for message in ("text", b"\x00\xff"):
                await conn.write_message(message, binary=isinstance(message, bytes))
                assert await conn.read_message() == message
            assert conn.headers is not None
            assert "permessage-deflate" in conn.headers["Sec-WebSocket-Extensions"]
        with pytest.raises(HandshakeRejectedError, match="403"):
            await websocket_connect(url, headers=ELSEWHERE)
    async with served("--any-origin") as (url,), websocket_connect(url, headers=ELSEWHERE):
        pass


@pytest.mark.gen_test
async def test_connections_are_closed_at_the_end() -> None:
    async with started("serve", "--port", "0") as process:
        url = (await line_of(process.stdout)).partition(": ")[2]
        async with websocket_connect(url) as conn:
            process.send_signal(signal.SIGTERM)
            assert await conn.read_message() is None
            assert conn.close_code == 1001
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


@pytest.mark.gen_test
async def test_a_directory(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / ".git").mkdir()
    for name in ("index.html", "sub/page.txt", ".secret", ".git/config", "../outside"):
        (root / name).write_text(f"this is {name}")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "in").symlink_to(root / ".secret")
    (root / "alias").symlink_to(root / "sub" / "page.txt")
    client = AsyncHTTPClient(force_instance=True)

    async def get(path: str) -> str | int:
        try:
            return (await client.fetch(files + path)).body.decode()
        except HTTPClientError as error:
            return error.code

    async with served(str(root), addresses=2) as (echo, files):
        assert (await get(""), await get("sub/page.txt"), await get("alias")) == (
            "this is index.html",
            "this is sub/page.txt",
            "this is sub/page.txt",
        )
        for hidden in (".secret", ".git/config", "sub/../.secret", "%2esecret", "in", "out", "missing", "..%2foutside"):
            assert await get(hidden) in (403, 404), hidden
        assert await get("sub/") in (403, 404)
        assert echo.endswith("/ws")
        async with websocket_connect(echo) as conn:
            await conn.write_message("a")
            assert await conn.read_message() == "a"
    client.close()


@pytest.mark.gen_test
async def test_the_path_of_the_echo() -> None:
    async with served("--echo", "/a.b") as (url,):
        assert url.endswith("/a.b")
        async with websocket_connect(url):
            pass
        with pytest.raises(HandshakeRejectedError, match="404"):
            await websocket_connect(url.replace("a.b", "axb"))


@pytest.mark.gen_test
async def test_a_certificate_of_its_own(tmp_path: Path) -> None:
    file = str(tmp_path / "ca.pem")
    async with served("--tls-self-signed", "--save-ca", file) as (url,):
        assert url.startswith("wss://127.0.0.1:")
        async with websocket_connect(url, ssl_options=ssl.create_default_context(cafile=file)) as conn:
            await conn.write_message("a")
            assert await conn.read_message() == "a"
        assert await command("connect", url, "--cafile", file, text=b"a") == (0, "a\n", "")
        assert (await command("connect", url, text=b"a")).status == 3


@pytest.mark.gen_test
async def test_what_it_cannot_do_is_told(tmp_path: Path) -> None:
    sock, port = bind_unused_port()
    with contextlib.closing(sock):
        for arguments, status, said in (
            (["--port", str(port)], 1, f"cannot listen on 127.0.0.1:{port}: Address already in use; --port 0 takes"),
            (["--host", "192.0.2.1"], 1, "cannot listen on 192.0.2.1:8000: Cannot assign requested address"),
            ([str(tmp_path / "missing")], 2, "missing'; it has to be a directory"),
            (["--port", "70000"], 2, "'70000'; it has to be a whole number from 0 to 65535"),
            (["--echo", "ws"], 2, "'ws'; it has to be a path that begins with /"),
            (["--save-ca", "file"], 2, "--save-ca is given without --tls-self-signed"),
            (["--tls-self-signed", "--save-ca", str(tmp_path)], 2, "Is a directory"),
        ):
            result = await command("serve", *arguments)
            assert (result.status, result.out) == (status, "")
            assert said in result.err
    missing = await command("serve", "--tls-self-signed", PYTHONPATH=hiding(tmp_path, "trustme"))
    assert (missing.status, "pip install 'tornado_ws[cli]'" in missing.err) == (1, True)
