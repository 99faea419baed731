"""A coroutine that goes on in the task of a connection: the `Handling` of both engines."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
from typing import Any

import pytest

from tests.engine.reading import Engine
from tornado_ws.engine import handling


@pytest.mark.gen_test
async def test_an_end_before_anybody_has_asked_for_it_is_told(engine: Engine) -> None:
    async def wait() -> None:
        await asyncio.sleep(0)

    module: Any = handling if engine.name.endswith("pure") else importlib.import_module(engine.name)
    coroutine = wait()
    coroutine.send(None)
    ended = module.Handling(coroutine, contextvars.copy_context(), None)
    assert not ended.step(MemoryError())
    ended.end()
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    ended.add_done_callback(told.set_result)
    assert await told is ended
    with pytest.raises(MemoryError):
        ended.result()
