"""``examples/client/feed.py``: a real program, a real proxy, and a server that wants a cookie."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from tornado.web import RequestHandler

from tests.client.proxies import tinyproxy
from tests.ports import unused_port
from tests.programs import environment
from tests.support import PATIENCE, serving
from tornado_ws import WebSocketHandler

FEED = Path(__file__).parent.parent / "examples" / "client" / "feed.py"


class Feed(WebSocketHandler):
    """Sends whoever has no session to get one."""

    def prepare(self) -> None:
        if not self.get_cookie("session"):
            self.redirect("/login", status=307)

    def open(self) -> None:
        for number in range(3):
            self.write_message(f"{self.get_cookie('session')} {number}")
        self.close()


class Login(RequestHandler):
    def initialize(self, logins: list[Any]) -> None:
        self.logins = logins

    def get(self) -> None:
        self.logins.append(self.request.remote_ip)
        self.set_cookie("session", str(len(self.logins)))
        self.redirect("/feed")


async def run(tmp_path: Path, url: str, *options: str, **variables: str) -> tuple[int | None, str, str]:
    arguments = [str(FEED), url, "--cookies", str(tmp_path / "cookies.txt"), *options]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=environment(**{"ALL_PROXY": "", "HTTPS_PROXY": "", "HTTP_PROXY": "", "NO_PROXY": "", **variables}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.gen_test
async def test_the_feed_comes_by_the_proxy_and_the_session_is_kept(tmp_path: Path) -> None:
    logins: list[Any] = []
    with tinyproxy(tmp_path) as port:
        proxy = f"http://127.0.0.1:{port}"
        async with serving([("/feed", Feed), ("/login", Login, {"logins": logins})]) as url:
            for options, variables in (([], {"ALL_PROXY": proxy}), (["--proxy", proxy], {})):
                ended = await run(tmp_path, f"{url}/feed", *options, **variables)
                assert ended == (0, "1 0\n1 1\n1 2\n", "")
    assert len(logins) == 1


@pytest.mark.gen_test
async def test_who_refused_is_said_in_one_line(tmp_path: Path) -> None:
    with tinyproxy(tmp_path, "ConnectPort 1") as port:
        proxy = f"http://127.0.0.1:{port}"
        code, out, err = await run(tmp_path, "wss://127.0.0.1:9/feed", HTTPS_PROXY=proxy)
    said = "refused to connect to 127.0.0.1:9: HTTP 403 Access violation"
    assert (code, out, err) == (1, "", f"the way out is closed: proxy {proxy} {said}\n")
    async with serving([("/login", Login, {"logins": []})]) as url:
        code, out, err = await run(tmp_path, f"{url}/feed")
    assert (code, out, err) == (1, "", "the server refused: HTTP 404: Not Found\n")
    code, _, err = await run(tmp_path, f"ws://127.0.0.1:{unused_port()}/")
    assert code == 1
    assert "Connection refused" in err
    assert err.count("\n") == 1
