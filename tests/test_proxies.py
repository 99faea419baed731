"""Connections of ours through nginx and HAProxy, with the settings of ``examples/cluster``."""

from __future__ import annotations

import asyncio
import contextlib
import re
import runpy
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tornado.netutil import bind_unix_socket
from tornado.web import Application

import tornado_ws
from tests.needs import need
from tests.ports import unused_port
from tests.programs import ROOT
from tests.support import FOREVER, disconnect, until
from tornado_ws import WebSocketClientConnection, WebSocketHandler, close_all, websocket_connect

EXAMPLE = ROOT / "examples" / "cluster"
CLUSTER = runpy.run_path(str(EXAMPLE / "cluster.py"))
SETTINGS = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}


class Member(WebSocketHandler):
    """Echoes, and closes as it is asked to."""

    def initialize(self, name: str, ends: list[Any], go_on: asyncio.Event) -> None:
        self.name = name
        self.ends = ends
        self.go_on = go_on

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    async def on_message(self, message: str | bytes) -> None:
        if message == "wait":
            self.ends.append("waits")
            await self.go_on.wait()
        elif message == "who":
            self.write_message(f"{self.name} {self.request.remote_ip} {self.request.protocol}")
        elif str(message).startswith("close "):
            _, code, reason = str(message).split(" ", 2)
            self.close(int(code), reason)
        else:
            self.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        self.ends.append((self.close_code, self.close_reason))


class Site:
    """Two servers behind a proxy, as `examples/cluster/cluster.py` starts it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = ""
        self.ends: list[Any] = []
        self.go_on = asyncio.Event()
        self.applications: dict[str, Application] = {}
        self.servers: dict[str, tornado_ws.HTTPServer] = {}

    def serve(self, name: str) -> None:
        application = Application([("/", Member, {"name": name, "ends": self.ends, "go_on": self.go_on})])
        server = tornado_ws.HTTPServer(application, xheaders=True)
        server.add_socket(bind_unix_socket(str(self.directory / f"{name}.sock")))
        self.applications[name], self.servers[name] = application, server

    async def stop(self, name: str) -> None:
        self.servers[name].stop()
        await self.servers[name].close_all_connections()

    async def who(self) -> str:
        """Return the name of the server that a new connection has got to."""
        async with websocket_connect(self.url) as conn:
            await conn.write_message("who")
            return str(await conn.read_message()).split()[0]


@contextlib.asynccontextmanager
async def proxied(proxy: str, **changes: str) -> AsyncIterator[Site]:
    """Run two servers and ``proxy``, with ``changes`` in its settings."""
    programs = {"nginx": CLUSTER["nginx"], "haproxy": CLUSTER["haproxy"]}
    try:
        (program,) = CLUSTER["find"](proxy)
    except SystemExit:
        need(False, proxy)
    with tempfile.TemporaryDirectory(prefix="proxy-") as name, pytest.MonkeyPatch.context() as patches:
        site = Site(Path(name))
        for server in ("a", "b"):
            site.serve(server)
        settings = (EXAMPLE / SETTINGS[proxy]).read_text()
        for before, after in changes.items():
            assert before in settings
            settings = settings.replace(before, after)
        (site.directory / SETTINGS[proxy]).write_text(settings)
        patches.setitem(programs[proxy].__globals__, "HERE", site.directory)
        port = unused_port()
        command = programs[proxy](program, site.directory, port)
        running = CLUSTER["Program"](proxy, command, site.directory, ("127.0.0.1", port))
        await running.start()
        site.url = f"ws://127.0.0.1:{port}/"
        try:
            yield site
        finally:
            await running.stop()
            for server in site.servers:
                await site.stop(server)


each_proxy = pytest.mark.parametrize("proxy", SETTINGS)


@pytest.mark.gen_test
@each_proxy
async def test_messages_of_all_kinds_pass(proxy: str) -> None:
    async with proxied(proxy) as site, websocket_connect(site.url, compression_options={}) as conn:
        for message in ("", "text é", b"\x00\xff", "x" * 125, "x" * 126, b"y" * 70_000, bytes(range(256)) * 8000):
            await conn.write_message(message, binary=isinstance(message, bytes))
            assert await conn.read_message() == message
        await conn.write_message("who")
        assert str(await conn.read_message()).split()[1:] == ["127.0.0.1", "http"]
        assert conn.protocol is not None
        conn.ping(b"x")
        await until(lambda: conn.latency.last is not None)


@pytest.mark.gen_test
@each_proxy
@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000])
async def test_a_close_by_the_server_reaches_the_client_and_back(proxy: str, code: int) -> None:
    async with proxied(proxy) as site:
        conn = await websocket_connect(site.url)
        await conn.write_message(f"close {code} why not")
        assert await conn.read_message() is None
        assert (conn.close_code, conn.close_reason) == (code, "why not")
        await until(lambda: site.ends)
        conn = await websocket_connect(site.url)
        conn.close(code, "bye")
        await conn.wait_closed()
        await until(lambda: len(site.ends) == 2)
        # What the server sees of its own close is the answer to it.
        assert site.ends == [(code, None), (code, "bye")]


@pytest.mark.gen_test
@each_proxy
async def test_connections_go_where_few_are(proxy: str) -> None:
    async with proxied(proxy) as site:
        conns: list[WebSocketClientConnection] = [await websocket_connect(site.url) for _ in range(10)]
        counts = [len(tornado_ws.connection.registry.connections_of(each).open) for each in site.applications.values()]
        assert counts == [5, 5]
        for conn in conns:
            await disconnect(conn)


@pytest.mark.gen_test
@each_proxy
async def test_handshakes_pass_over_a_server_that_is_dead_or_stopping(proxy: str) -> None:
    async with proxied(proxy) as site:
        busy = [await websocket_connect(site.url) for _ in range(2)]
        for conn in busy:
            await conn.write_message("wait")
        await until(lambda: len(site.ends) == 2)
        # Its handshakes are answered 503 until the last connection is closed.
        stopping = asyncio.ensure_future(close_all(site.applications["a"], timeout=FOREVER))
        assert {await site.who() for _ in range(4)} == {"b"}
        assert not stopping.done()
        site.go_on.set()
        await stopping
        await site.stop("a")
        assert {await site.who() for _ in range(4)} == {"b"}
        for conn in busy:
            conn.close()
            await conn.wait_closed()


@pytest.mark.gen_test
@each_proxy
async def test_a_server_that_is_back_is_used(proxy: str) -> None:
    async with proxied(proxy) as site:
        await site.stop("a")
        assert {await site.who() for _ in range(4)} == {"b"}
        site.serve("a")
        while await site.who() == "b":
            await asyncio.sleep(0.01)


@pytest.mark.gen_test
@each_proxy
async def test_silence_ends_a_connection_and_pings_keep_it(proxy: str) -> None:
    async with proxied(proxy, **{"90s": "1s"}) as site:
        kept = await websocket_connect(site.url, ping_interval=0.2)
        silent = await websocket_connect(site.url)
        assert await silent.read_message() is None
        await kept.write_message("x")
        assert await kept.read_message() == "x"
        await disconnect(kept)
        await silent.wait_closed()


@pytest.mark.gen_test
async def test_haproxy_does_not_end_a_tunnel_by_the_timeouts_of_http() -> None:
    changes = {"timeout client 30s": "timeout client 200ms", "timeout server 30s": "timeout server 200ms"}
    async with proxied("haproxy", **{"90s": "2s", **changes}) as site:
        begun = asyncio.get_running_loop().time()
        conn = await websocket_connect(site.url)
        assert await conn.read_message() is None
        assert asyncio.get_running_loop().time() - begun > 1
        await conn.wait_closed()


def test_pings_of_the_example_come_before_any_timeout() -> None:
    program = (EXAMPLE / "process.py").read_text()
    (interval,) = re.findall(r"websocket_ping_interval=(\d+)", program)
    for name, directives in (("nginx", ("proxy_read_timeout", "proxy_send_timeout")), ("haproxy", ("timeout tunnel",))):
        settings = (EXAMPLE / SETTINGS[name]).read_text()
        for directive in directives:
            (seconds,) = re.findall(rf"^ *{directive} (\d+)s", settings, re.MULTILINE)
            assert int(interval) * 2 < int(seconds)


@each_proxy
def test_the_documentation_shows_what_is_run(proxy: str) -> None:
    text = (ROOT / "docs" / "many-machines.md").read_text()
    (block,) = re.findall(rf"```{proxy}\n(.*?)```", text, re.DOTALL)
    run = {line.strip() for line in (EXAMPLE / SETTINGS[proxy]).read_text().splitlines()}
    # Servers are machines there, and Unix sockets here.
    shown = [re.sub(r"10\.0\.0\.\d:8888", "ADDRESS", line.strip()) for line in block.splitlines()]
    run = {re.sub(r"unix[:@]\w\.sock", "ADDRESS", line) for line in run}
    assert [line for line in shown if line not in run] == []
