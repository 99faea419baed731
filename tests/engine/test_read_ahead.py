"""Messages that wait while the application is busy: both engines' `ReadAhead`, with the reader of the same engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.engine.reading import Engine, Peer, future_that
from tests.wire import BINARY, CLOSE, PING, TEXT, Frame
from tornado_ws.engine.contract import (
    BUDGET_SPENT,
    DEFERRED,
    MESSAGES_PER_TURN,
    PENDING,
    RAISED,
    SUSPENDED,
    Outcome,
)
from tornado_ws.engine.read_ahead import ReadAhead
from tornado_ws.engine.reader import FrameReader
from tornado_ws.errors import ProtocolError


class Asked:
    """Returns from ``on_message`` what it was told to."""

    def __init__(self, returned: Any = None) -> None:
        self.messages: list[Any] = []
        self._returned = returned

    def on_message(self, message: Any) -> Any:
        self.messages.append(message)
        if isinstance(self._returned, BaseException):
            raise self._returned
        return self._returned


def texts(peer: Peer, *payloads: str) -> bytes:
    return peer.send(*(Frame(TEXT, payload.encode()) for payload in payloads))


def begin(peer: Peer, data: bytes, messages: int = 64, size: int = 1 << 20) -> tuple[FrameReader, ReadAhead]:
    reader = peer.reader()
    reader.feed(data)
    return reader, peer.engine.ReadAhead(messages, size)


def outcome_of(engine: Engine, returned: Any, steps: bool = True) -> Outcome | None:
    client = Peer(engine, is_client=True)
    reader, waiting = begin(client, texts(client, "a"))
    waiting.fill(reader, MESSAGES_PER_TURN)
    return waiting.deliver(reader, Asked(returned), steps)


def test_what_waits_is_delivered_in_order(client: Peer) -> None:
    reader, waiting = begin(client, texts(client, "a", "b") + client.send(Frame(BINARY, b"c")))
    assert waiting.fill(reader, MESSAGES_PER_TURN) is None
    assert len(waiting) == 3
    assert reader.messages == 0
    asked = Asked()
    assert [waiting.deliver(reader, asked, True) for _ in range(3)] == [None] * 3
    assert asked.messages == ["a", "b", b"c"]
    assert (reader.messages, reader.message_bytes, len(waiting)) == (3, 3, 0)


def test_a_control_frame_is_returned_at_once(client: Peer) -> None:
    reader, waiting = begin(client, texts(client, "a") + client.send(Frame(PING, b"p")) + texts(client, "b"))
    assert waiting.fill(reader, MESSAGES_PER_TURN) == (PING, b"p", 1)
    assert len(waiting) == 1
    assert waiting.fill(reader, MESSAGES_PER_TURN) is None
    assert len(waiting) == 2


@pytest.mark.parametrize(("messages", "size"), [(3, 1 << 20), (64, 30)])
def test_a_full_one_takes_no_more(client: Peer, messages: int, size: int) -> None:
    reader, waiting = begin(client, texts(client, *["x" * 10] * 5), messages, size)
    assert waiting.fill(reader, MESSAGES_PER_TURN) is None
    assert waiting.is_full()
    assert len(waiting) == 3
    assert waiting.deliver(reader, Asked(), True) is None
    assert waiting.fill(reader, MESSAGES_PER_TURN) is None
    assert len(waiting) == 3


def test_the_loop_has_its_turn_at_the_limit(client: Peer) -> None:
    reader, waiting = begin(client, texts(client, "a", "b", "c"))
    assert waiting.fill(reader, 2) == (BUDGET_SPENT, None, 0)
    assert len(waiting) == 2


def test_messages_before_a_violation_wait(client: Peer) -> None:
    reader, waiting = begin(client, texts(client, "a") + client.send(Frame(0x3)))
    with pytest.raises(ProtocolError):
        waiting.fill(reader, MESSAGES_PER_TURN)
    assert len(waiting) == 1
    assert waiting.fill(reader, MESSAGES_PER_TURN) is None


def test_what_an_event_of_close_has_behind_it_is_not_parsed(client: Peer) -> None:
    reader, waiting = begin(client, client.send(Frame(CLOSE, b"\x03\xe8")) + texts(client, "a"))
    assert waiting.fill(reader, MESSAGES_PER_TURN) == (CLOSE, b"\x03\xe8", 2)
    assert len(waiting) == 0


def test_a_message_to_be_inflated_is_handed_on(engine: Engine) -> None:
    client = Peer(engine, is_client=True)
    reader, waiting = begin(client, b"")
    event = (DEFERRED | TEXT, object(), 5)
    waiting.put(event)
    asked = Asked()
    assert waiting.deliver(reader, asked, True) == event
    assert asked.messages == []
    assert reader.messages == 0


def test_what_on_message_returns_is_handed_on(engine: Engine) -> None:
    future = object()
    assert outcome_of(engine, future) == (PENDING, future, 0)


def test_a_future_that_has_ended_well_is_done_with(engine: Engine) -> None:
    assert outcome_of(engine, future_that("is done")) is None


@pytest.mark.parametrize("state", ["has failed", "was cancelled", "is pending", "is of another class"])
def test_another_future_is_handed_on(engine: Engine, state: str) -> None:
    future = future_that(state)
    assert outcome_of(engine, future) == (PENDING, future, 0)


def test_a_coroutine_that_does_not_wait_is_done(engine: Engine) -> None:
    ran = []

    async def at_once() -> None:
        ran.append(1)

    assert outcome_of(engine, at_once()) is None
    assert ran == [1]


def test_a_coroutine_that_waits_is_suspended(engine: Engine) -> None:
    outcome = outcome_of(engine, coroutine := asyncio.sleep(0))
    assert outcome is not None
    assert outcome[0] == SUSPENDED
    assert outcome[1][0] is coroutine
    coroutine.close()


def test_without_steps_a_coroutine_is_left_alone(engine: Engine) -> None:
    coroutine = asyncio.sleep(0)
    assert outcome_of(engine, coroutine, steps=False) == (PENDING, coroutine, 0)
    coroutine.close()


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError()])
def test_what_on_message_raises_is_an_outcome(engine: Engine, error: BaseException) -> None:
    outcome = outcome_of(engine, error)
    assert outcome is not None
    assert outcome == (RAISED, [error], 0)


def test_what_ends_the_loop_is_raised(engine: Engine) -> None:
    with pytest.raises(KeyboardInterrupt):
        outcome_of(engine, KeyboardInterrupt())
