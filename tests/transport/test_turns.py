"""One turn of the loop is bounded by time, however many connections have however much to hand out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import itertools
import time
from typing import Any

import pytest

from tests.conftest import NESTED_POLLERS
from tests.peer import raw_client
from tests.support import Echo, serving, until
from tests.wire import TEXT
from tornado_ws.engine.contract import TURN_TIME
from tornado_ws.transport import poller

uvloop: Any = importlib.import_module("uvloop")

_PATIENCE = 30.0
_CONNECTIONS = 20


async def _hand_out(messages: int, most: int) -> None:
    handled: list[tuple[object, Any]] = []
    before_each_turn = [0]

    class Slow(Echo):
        def on_message(self, message: str | bytes) -> None:
            handled.append((self, message))
            # However busy the machine is, it takes no less.
            time.sleep(TURN_TIME * 1.25)

    async with serving(Slow) as url, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(url)) for _ in range(_CONNECTIONS)]
        loop = asyncio.get_running_loop()

        def begin_turn() -> None:
            before_each_turn.append(len(handled))
            if len(handled) < _CONNECTIONS * messages:
                loop.call_soon(begin_turn)

        for client in clients:
            client.sock.send(b"".join(client.frame(TEXT, b"%d" % number) for number in range(messages)))
        loop.call_soon(begin_turn)
        await until(lambda: len(handled) == _CONNECTIONS * messages, _PATIENCE)
    turns = [later - earlier for earlier, later in itertools.pairwise(before_each_turn)]
    assert max(turns) <= most
    of_each: dict[object, list[Any]] = {}
    for handler, message in handled:
        of_each.setdefault(handler, []).append(message)
    assert list(of_each.values()) == [[f"{number}" for number in range(messages)]] * _CONNECTIONS
    # None waits for all the messages of another.
    assert {handler for handler, _ in handled[: len(handled) // 2]} == set(of_each) or messages == 1


#: Messages of each connection, and how many a turn may hand out.
_LOADS = [
    # The clock is read for every fourth connection.
    (1, 8),
    # And for every fourth message of each. Some are handed out when they come, some that were left over.
    (40, 40),
]


@pytest.mark.gen_test(timeout=_PATIENCE)
@pytest.mark.parametrize(("messages", "most"), _LOADS)
async def test_a_turn_of_the_loop_hands_out_what_it_has_time_for(messages: int, most: int, each_poller: str) -> None:
    await _hand_out(messages, most)


@pytest.mark.parametrize(("messages", "most"), _LOADS)
def test_a_turn_of_uvloop_hands_out_what_it_has_time_for(messages: int, most: int, each_poller: str) -> None:
    uvloop.run(_hand_out(messages, most))


@pytest.mark.gen_test(timeout=_PATIENCE)
@pytest.mark.parametrize("each_poller", NESTED_POLLERS, indirect=True)
@pytest.mark.parametrize(("messages", "most"), _LOADS)
async def test_a_turn_of_a_loop_without_a_descriptor_for_a_poller(
    messages: int, most: int, each_poller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(getattr(poller, each_poller), "_open", fail)
    await _hand_out(messages, most)
