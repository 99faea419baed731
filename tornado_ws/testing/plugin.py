"""A pytest plugin: servers and clients that end with the test, in whatever runs its ``async def``.

Turned on by ``pytest_plugins = ["tornado_ws.testing.plugin"]`` in the topmost ``conftest.py``, or by
``-p tornado_ws.testing.plugin``. Nothing is registered for every run of pytest in an environment that has tornado_ws:
names of fixtures may be taken, and importing costs time.

A test is run by pytest-asyncio, anyio (on asyncio) or pytest-tornado if they take it, by their marks or modes, else by
`asyncio.run`. Whoever it is, what the fixtures have opened is closed in the test's own coroutine, when it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import pytest

from tornado_ws import WebSocketClientConnection
from tornado_ws import engine as engine_of_this_process
from tornado_ws.testing import other_engine
from tornado_ws.testing.pair import Pair, connected_pair
from tornado_ws.testing.serving import Server, connected, end, serve

#: What the fixtures give: functions with the arguments of `serve`, `connected` and `connected_pair`.
ServerFactory: TypeAlias = Callable[..., Awaitable[Server]]
Connector: TypeAlias = Callable[..., Awaitable[WebSocketClientConnection]]
PairFactory: TypeAlias = Callable[..., Awaitable[Pair]]

#: The fixture that each of the others is made with.
_OPENED = "_ws_opened"


@pytest.fixture
def ws_server(_ws_opened: contextlib.AsyncExitStack) -> ServerFactory:
    """Start servers: ``server = await ws_server(Handler)``, with the arguments of `serve`."""

    async def start(served: Any, **arguments: Any) -> Server:
        return await _ws_opened.enter_async_context(serve(served, **arguments))

    return start


@pytest.fixture
def ws_connect(_ws_opened: contextlib.AsyncExitStack) -> Connector:
    """Connect clients: ``conn = await ws_connect(server, "/path")``, with the arguments of `connected`."""

    async def connect(target: Any, path: str = "", **arguments: Any) -> WebSocketClientConnection:
        return await _ws_opened.enter_async_context(connected(target, path, **arguments))

    return connect


@pytest.fixture
def ws_pair(_ws_opened: contextlib.AsyncExitStack) -> PairFactory:
    """Connect without sockets: ``client, handler = await ws_pair(Handler)``, with the arguments of `connected_pair`."""

    async def connect(served: Any, path: str = "/", **arguments: Any) -> Pair:
        pair = await connected_pair(served, path, **arguments)
        _ws_opened.push_async_callback(end, pair.client)
        return pair

    return connect


@pytest.fixture(params=other_engine.NAMES)
def ws_engine(request: pytest.FixtureRequest) -> str:
    """Have the test run once with each engine; the value is "native" or "python".

    A process has one engine. The test of the other one is run in a pytest of its own.
    """
    name: str = request.param
    return name


@pytest.fixture
def _ws_opened(request: pytest.FixtureRequest) -> Iterator[contextlib.AsyncExitStack]:
    item = request.node
    test = item.obj
    if not inspect.iscoroutinefunction(test):
        pytest.fail(f"{item.name} is no `async def`; fixtures of tornado_ws.testing are for those", pytrace=False)
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend_name")
        if backend != "asyncio":
            text = f"{item.name} runs on {backend}; Tornado needs asyncio: have the fixture anyio_backend return it"
            pytest.fail(text, pytrace=False)
    opened = contextlib.AsyncExitStack()

    @functools.wraps(test)
    async def test_and_close(*args: Any, **kwargs: Any) -> None:
        async with opened:
            await test(*args, **kwargs)

    item.obj = test_and_close
    try:
        yield opened
    finally:
        item.obj = test


# Behind those of other plugins, and before pytest's own, which fails.
@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an ``async def`` that uses one of the fixtures and that nobody else takes."""
    if _OPENED not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have the test of the other engine run elsewhere."""
    callspec = getattr(item, "callspec", None)
    name = callspec.params.get("ws_engine") if callspec is not None else None
    if name not in (None, engine_of_this_process.name):
        other_engine.run_in_child(item, name)
