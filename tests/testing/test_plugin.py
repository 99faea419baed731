"""The plugin in projects of others: under pytest-asyncio, anyio and neither, with tests that fail, and both engines."""

from __future__ import annotations

import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.needs import need_native_engine
from tests.programs import run

ASYNCIO = ["-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"]
ANYIO = ["-p", "anyio.pytest_plugin"]

#: What runs coroutines in a project, as arguments of pytest and the mark of its tests.
RUNNERS = {
    "none": ([], ""),
    "asyncio, strict": ([*ASYNCIO, "-o", "asyncio_mode=strict"], "pytest.mark.asyncio"),
    "asyncio, strict, without a mark": ([*ASYNCIO, "-o", "asyncio_mode=strict"], ""),
    "asyncio, auto": ([*ASYNCIO, "-o", "asyncio_mode=auto"], ""),
    "anyio": (ANYIO, "pytest.mark.anyio"),
    "both": ([*ASYNCIO, *ANYIO], "pytest.mark.anyio"),
}

CONFTEST = """
import pytest

pytest_plugins = ["tornado_ws.testing.plugin"]


@pytest.fixture
def anyio_backend():
    return "asyncio"
"""

#: The second test of each pair sees what the first has left.
PROJECT = """
import os

import pytest

from tornado_ws import WebSocketHandler, websocket_connect
from tornado_ws.testing import expect, expect_close

pytestmark = [MARK]

opened = []


class Echo(WebSocketHandler):
    def on_message(self, message):
        self.write_message(message)

    def on_close(self):
        opened.append(self.close_code)


def sockets():
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return {name for name in names if name.startswith("socket:")}


BEFORE = set()


async def test_echo(ws_server, ws_connect):
    server = await ws_server(Echo)
    conn = await ws_connect(server, "/path")
    await conn.write_message("x")
    await expect(conn, "x")
    assert [handler.request.path for handler in server.connections] == ["/path"]


async def test_that_fails(ws_server, ws_connect):
    server = await ws_server(Echo)
    await ws_connect(server)
    # Nobody closes this one.
    opened.append(await websocket_connect(server.url))
    assert False, "of the test itself"


async def test_after_it(ws_pair):
    left = opened.pop(1)
    # The client's connection is closed before the server; what is left open is closed with 1001.
    assert opened == [None, None, 1001], opened
    assert left.close_code == 1001
    left.close()
    client, handler = await ws_pair(Echo)
    handler.close(4000, "bye")
    await expect_close(client, 4000, "bye")


class TestMethods:
    @pytest.mark.parametrize("size", [1, 2])
    async def test_of_a_class(self, ws_pair, size):
        client, _ = await ws_pair(Echo)
        await client.write_message("x" * size)
        await expect(client, "x" * size)


async def test_nothing_is_left(ws_pair):
    import gc

    gc.collect()
    # The loop of a runner may live as long as its module: it has a pair of sockets, and is no inet socket.
    with open("/proc/self/net/tcp") as lines:
        inodes = {line.split()[9] for line in list(lines)[1:]}
    assert not {name for name in sockets() if name[8:-1] in inodes}
"""


def run_project(path: Path, tests: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``tests`` as a project of their own, with nothing of what pytest finds installed."""
    (path / "conftest.py").write_text(CONFTEST)
    (path / "pytest.ini").write_text("[pytest]\n")
    (path / "test_project.py").write_text(dedent(tests))
    autoload = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", **environment}
    return run("-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *arguments, cwd=path, **autoload)


@pytest.mark.parametrize("runner", RUNNERS)
def test_fixtures_work_whoever_runs_the_test(tmp_path: Path, runner: str) -> None:
    arguments, mark = RUNNERS[runner]
    outcome = run_project(tmp_path, PROJECT.replace("[MARK]", f"[{mark}]"), *arguments)
    assert "1 failed, 5 passed" in outcome.stdout, outcome.stdout + outcome.stderr
    assert "of the test itself" in outcome.stdout
    assert "warning" not in outcome.stdout, outcome.stdout


def test_a_test_that_is_cancelled_closes_too(tmp_path: Path) -> None:
    outcome = run_project(
        tmp_path,
        """
        import asyncio
        from tornado_ws import WebSocketHandler

        closed = []

        class Handler(WebSocketHandler):
            def on_close(self):
                closed.append(self.close_code)

        async def test_cancelled(ws_pair):
            await ws_pair(Handler)
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

        def test_after_it():
            assert closed == [None]
        """,
    )
    assert "CancelledError" in outcome.stdout, outcome.stdout
    assert "1 failed, 1 passed" in outcome.stdout, outcome.stdout


def test_asynchronous_fixtures_can_use_the_fixtures(tmp_path: Path) -> None:
    outcome = run_project(
        tmp_path,
        """
        import pytest_asyncio
        from tornado_ws.testing import expect

        @pytest_asyncio.fixture
        async def client(ws_server, ws_connect):
            server = await ws_server(lambda conn, message: conn.write_message(message[::-1]))
            return await ws_connect(server)

        async def test_client(client):
            await client.write_message("abc")
            await expect(client, "cba")
        """,
        *RUNNERS["asyncio, auto"][0],
    )
    assert "1 passed" in outcome.stdout, outcome.stdout


def test_what_is_open_when_another_fixture_fails_is_closed(tmp_path: Path) -> None:
    outcome = run_project(
        tmp_path,
        """
        import pytest
        import pytest_asyncio
        from tornado_ws import WebSocketHandler

        closed = []

        class Handler(WebSocketHandler):
            def on_close(self):
                closed.append("closed")

        @pytest_asyncio.fixture
        async def client(ws_server, ws_connect):
            return await ws_connect(await ws_server(Handler))

        @pytest.fixture
        def failing(client):
            raise OSError("of the fixture")

        async def test_not_run(failing): pass

        def test_after_it():
            assert closed == ["closed"]
        """,
        *ASYNCIO,
        *("-o", "asyncio_mode=auto"),
    )
    assert "1 passed, 1 error" in outcome.stdout, outcome.stdout
    assert "of the fixture" in outcome.stdout


@pytest.mark.parametrize(
    ("test", "arguments", "says"),
    [
        ("def test(ws_server): pass", [], "test is no `async def`; fixtures of tornado_ws.testing are for those"),
        (
            """
            import pytest

            @pytest.fixture
            def anyio_backend():
                return "trio"

            @pytest.mark.anyio
            async def test(ws_connect): pass
            """,
            ANYIO,
            "test runs on trio; Tornado needs asyncio: have the fixture anyio_backend return it",
        ),
        ("async def test(): pass", [], "async def functions are not natively supported"),
    ],
)
def test_what_cannot_be_run_is_said(tmp_path: Path, test: str, arguments: list[str], says: str) -> None:
    outcome = run_project(tmp_path, test, *arguments)
    assert says in outcome.stdout, outcome.stdout
    assert outcome.returncode == 1


WITH_BOTH_ENGINES = """
from tornado_ws import engine
from tornado_ws.testing import expect

async def test_engine(ws_engine, ws_pair):
    assert engine.name == ws_engine
    client, _ = await ws_pair(lambda conn, message: conn.write_message(message))
    await client.write_message("x")
    await expect(client, "x")

def test_that_fails(ws_engine):
    assert engine.name == "neither"

def test_once():
    pass
"""


@pytest.mark.parametrize("name", ["native", "python"])
def test_a_test_runs_with_both_engines(tmp_path: Path, name: str) -> None:
    need_native_engine()
    environment = {"TORNADO_WS_ENGINE": "python" if name == "python" else ""}
    outcome = run_project(tmp_path, WITH_BOTH_ENGINES, **environment)
    assert "2 failed, 3 passed" in outcome.stdout, outcome.stdout
    for passed in ("test_engine[native]", "test_engine[python]", "test_once"):
        assert f"PASSED test_project.py::{passed}" in outcome.stdout
    other = "native" if name == "python" else "python"
    assert f"with the engine '{other}':" in outcome.stdout
    assert f"assert '{other}' == 'neither'" in outcome.stdout


def test_an_engine_that_is_not_built_is_skipped(tmp_path: Path) -> None:
    hide = "import importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    outcome = run_project(tmp_path, hide + WITH_BOTH_ENGINES, TORNADO_WS_ENGINE="python")
    assert "the native engine is not built here" in outcome.stdout, outcome.stdout
    assert "1 failed, 2 passed, 2 skipped" in outcome.stdout


def test_the_other_engine_is_asked_under_xdist_and_coverage(tmp_path: Path) -> None:
    need_native_engine()
    outcome = run_project(
        tmp_path,
        WITH_BOTH_ENGINES,
        *("-p", "xdist.plugin", "-p", "pytest_cov.plugin", "-n1", "--cov=test_project", "--cov-report="),
        COVERAGE_FILE=str(tmp_path / ".coverage"),
        COVERAGE_PROCESS_CONFIG="",
        COVERAGE_PROCESS_START="",
    )
    assert "2 failed, 3 passed" in outcome.stdout, outcome.stdout + outcome.stderr


def test_nothing_but_the_plugin_needs_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; import tornado_ws.testing"
    assert run("-c", program).returncode == 0
    program = "import sys, tornado_ws; assert not [name for name in sys.modules if 'testing' in name]"
    assert run("-c", program).returncode == 0
