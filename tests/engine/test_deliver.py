"""Messages handed out as they are parsed: `FrameReader.deliver`, by the contract of `tornado_ws.engine.reader`."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.reading import Peer, future_that
from tests.engine.test_properties import Conversation, any_kind, chunks_of, cuts, quietly
from tests.wire import BINARY, CLOSE, CONTINUATION, MESSAGES, PING, RSV1, TEXT, Frame, each_byte
from tornado_ws.deflate.codec import PerMessageDeflateDecompressor
from tornado_ws.engine.contract import BUDGET_SPENT, CLOCK_SIZE, PENDING, RAISED, SUSPENDED, TURN_TIME, VIOLATION, Event
from tornado_ws.engine.reader import FrameReader
from tornado_ws.errors import ProtocolError

ANY_NUMBER = 1000


class Handler:
    """Keeps what it is given; ``answer`` is called with it and gives what ``on_message`` returns."""

    def __init__(self, answer: Callable[[Any], object] = lambda message: None) -> None:
        self.messages: list[str | bytes] = []
        self.answer = answer

    def on_message(self, message: str | bytes) -> object:
        self.messages.append(message)
        return self.answer(message)


def fed(peer: Peer, *frames: Frame) -> FrameReader:
    reader = peer.reader(inflater=PerMessageDeflateDecompressor(True, None, 0))
    reader.feed(peer.send(*frames))
    return reader


def test_hands_out_messages_until_more_bytes_are_wanted(peer: Peer) -> None:
    handler = Handler()
    sent = [Frame(TEXT, b"one"), Frame(BINARY, b"t", fin=False), Frame(CONTINUATION, b"wo"), Frame(TEXT, b"three")]
    reader = fed(peer, *sent)
    assert reader.deliver(handler, ANY_NUMBER) is None
    assert handler.messages == ["one", b"two", "three"]
    assert reader.deliver(handler, ANY_NUMBER) is None
    for chunk in each_byte(peer.send(Frame(TEXT, b"four"))):
        assert handler.messages == ["one", b"two", "three"]
        reader.feed(chunk)
        assert reader.deliver(handler, ANY_NUMBER) is None
    assert handler.messages == ["one", b"two", "three", "four"]


def test_counts_what_it_handed_out_and_all_that_was_fed(peer: Peer) -> None:
    hello = bytes.fromhex("f248cdc9c90700")
    sent = [Frame(TEXT, "é".encode()), Frame(TEXT, hello, rsv=RSV1), Frame(BINARY, b""), Frame(PING, b"ping")]
    reader = fed(peer)
    assert (reader.messages, reader.message_bytes, reader.wire_bytes) == (0, 0, 0)
    reader.feed(peer.send(*sent))
    size = len(peer.send(*sent))
    assert (reader.messages, reader.message_bytes, reader.wire_bytes) == (0, 0, size)
    assert reader.deliver(Handler(), ANY_NUMBER) == (PING, b"ping", 4)
    assert (reader.messages, reader.message_bytes, reader.wire_bytes) == (3, 2 + 5, size)
    reader.feed(b"")
    reader.feed(peer.send(Frame(TEXT, b"x"))[:1])
    assert reader.deliver(Handler(), ANY_NUMBER) is None
    assert (reader.messages, reader.message_bytes, reader.wire_bytes) == (3, 7, size + 1)


@pytest.mark.parametrize("outcome", ["not done", "raised"])
def test_a_message_counts_before_it_is_handled(peer: Peer, outcome: str) -> None:
    def answer(message: str) -> object:
        assert (reader.messages, reader.message_bytes) == (1, 5)
        if outcome == "raised":
            raise ValueError
        return outcome

    reader = fed(peer, Frame(TEXT, b"Hello"), Frame(TEXT, b"more"))
    ended = reader.deliver(Handler(answer), ANY_NUMBER)
    assert ended is not None
    assert ended[0] == (RAISED if outcome == "raised" else PENDING)
    assert (reader.messages, reader.message_bytes) == (1, 5)


@pytest.mark.parametrize("opcode", [CLOSE, PING])
def test_a_control_frame_ends_it_and_is_told_as_an_event(peer: Peer, opcode: int) -> None:
    handler = Handler()
    begun, rest = Frame(TEXT, b"Hel", fin=False), Frame(CONTINUATION, b"lo")
    reader = fed(peer, Frame(TEXT, b"before"), Frame(opcode, b"1"), begun, Frame(opcode, b"2"), rest)
    assert reader.deliver(handler, ANY_NUMBER) == (opcode, b"1", 1)
    assert handler.messages == ["before"]
    assert reader.deliver(handler, ANY_NUMBER) == (opcode, b"2", 1)
    assert handler.messages == ["before"]
    assert reader.deliver(handler, ANY_NUMBER) is None
    assert handler.messages == ["before", "Hello"]


def test_a_future_that_has_ended_well_is_done_with(peer: Peer) -> None:
    result = future_that("is done")
    handler = Handler(lambda message: result)
    reader = fed(peer, Frame(TEXT, b"a"), Frame(TEXT, b"b"))
    assert reader.deliver(handler, ANY_NUMBER) is None
    assert handler.messages == ["a", "b"]


@pytest.mark.parametrize("state", ["has failed", "was cancelled", "is pending", "is of another class"])
def test_another_future_ends_it(peer: Peer, state: str) -> None:
    result = future_that(state)
    reader = fed(peer, Frame(TEXT, b"a"), Frame(TEXT, b"b"))
    assert reader.deliver(Handler(lambda message: result), ANY_NUMBER) == (PENDING, result, 0)


@pytest.mark.parametrize(
    "result", [object(), False, 0, "", (), asyncio.sleep], ids=lambda result: type(result).__name__
)
def test_a_message_that_is_not_done_with_ends_it(peer: Peer, result: object) -> None:
    handler = Handler(lambda message: result if message == "slow" else None)
    reader = fed(peer, Frame(TEXT, b"quick"), Frame(TEXT, b"slow"), Frame(TEXT, b"next"))
    assert reader.deliver(handler, ANY_NUMBER) == (PENDING, result, 0)
    assert handler.messages == ["quick", "slow"]
    assert reader.deliver(handler, ANY_NUMBER) is None
    assert handler.messages == ["quick", "slow", "next"]


@pytest.mark.parametrize("error", [ValueError("no"), ProtocolError(1002, "no"), asyncio.CancelledError()], ids=repr)
def test_a_handler_that_raises_ends_it(peer: Peer, error: BaseException) -> None:
    def answer(message: str) -> None:
        if message == "bad":
            raise error

    handler = Handler(answer)
    reader = fed(peer, Frame(TEXT, b"good"), Frame(TEXT, b"bad"), Frame(TEXT, b"next"))
    ended = reader.deliver(handler, ANY_NUMBER)
    assert ended is not None
    assert ended == (RAISED, [error], 0)
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "answer"
    assert reader.deliver(handler, ANY_NUMBER) is None
    assert handler.messages == ["good", "bad", "next"]


@pytest.mark.parametrize("steps", [False, True])
def test_a_coroutine_takes_its_first_step_if_asked_for(peer: Peer, steps: bool) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def answer(message: str) -> str:
        assert variable.get(None) is None
        variable.set(message)
        if message == "bad":
            raise ValueError
        if message == "slow":
            await asyncio.sleep(0)
        return message

    begun: list[Coroutine[Any, Any, str]] = []

    def begin(message: str) -> object:
        begun.append(answer(message))
        return begun[-1]

    reader = fed(peer, *(Frame(TEXT, text) for text in (b"quick", b"slow", b"bad", b"next")))
    ended = [reader.deliver(Handler(begin), ANY_NUMBER, False, steps) for _ in range(3 if steps else 5)]
    if not steps:
        assert ended == [(PENDING, coroutine, 0) for coroutine in begun] + [None]
        for coroutine in begun:
            coroutine.close()
        return
    assert ended[2] is None
    assert ended[0] is not None
    kind, (coroutine, context, yielded), size = ended[0]
    assert (kind, coroutine, context[variable], yielded, size) == (SUSPENDED, begun[1], "slow", None, 0)
    with pytest.raises(StopIteration) as stopped:
        context.run(coroutine.send, None)
    assert stopped.value.value == "slow"
    assert ended[1] is not None
    assert (ended[1][0], type(ended[1][1][0]), len(begun)) == (RAISED, ValueError, 4)


def test_an_interrupt_is_nobodys_to_catch(peer: Peer) -> None:
    def answer(message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fed(peer, Frame(TEXT, b"x")).deliver(Handler(answer), ANY_NUMBER)


def test_a_handler_without_on_message_has_raised(peer: Peer) -> None:
    ended = fed(peer, Frame(TEXT, b"x")).deliver(object(), ANY_NUMBER)
    assert ended is not None
    assert (ended[0], type(ended[1][0])) == (RAISED, AttributeError)


@pytest.mark.parametrize(
    ("frame", "close_code"), [(Frame(0x3), 1002), (Frame(TEXT, b"\xff"), 1007), (Frame(TEXT, b"\x07", rsv=RSV1), 1007)]
)
def test_a_violation_ends_it_after_all_that_came_before(peer: Peer, frame: Frame, close_code: int) -> None:
    handler = Handler()
    reader = fed(peer, Frame(TEXT, b"before"), frame, Frame(TEXT, b"after"))
    ended = reader.deliver(handler, ANY_NUMBER)
    assert ended is not None
    kind, error, size = ended
    assert (kind, type(error), error.close_code, size) == (VIOLATION, ProtocolError, close_code, 0)
    assert handler.messages == ["before"]
    reader.feed(peer.send(Frame(TEXT, b"later")))
    assert reader.deliver(handler, ANY_NUMBER) is None
    assert list(reader) == []
    assert handler.messages == ["before"]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_hands_out_no_more_than_it_was_told(peer: Peer, limit: int) -> None:
    handler = Handler()
    reader = fed(peer, *(Frame(TEXT, str(i).encode()) for i in range(7)))
    for round_ in range(1, 7 // limit + 1):
        assert reader.deliver(handler, limit) == (BUDGET_SPENT, None, 0)
        assert handler.messages == [str(i) for i in range(limit * round_)]
    if 7 % limit:
        assert reader.deliver(handler, limit) is None
    assert len(handler.messages) == 7
    assert reader.deliver(handler, limit) is None


def test_control_frames_do_not_count_as_messages(peer: Peer) -> None:
    handler = Handler()
    reader = fed(peer, Frame(PING), Frame(TEXT, b"1"), Frame(PING), Frame(TEXT, b"2"))
    outcomes = [reader.deliver(handler, 2) for _ in range(3)]
    assert outcomes == [(PING, b"", 0), (PING, b"", 0), None]
    assert handler.messages == ["1", "2"]


@pytest.mark.parametrize("limit", [1, ANY_NUMBER])
def test_stop_hands_out_no_more_in_the_call_that_is_under_way(peer: Peer, limit: int) -> None:
    handler = Handler(lambda message: reader.stop())
    reader = fed(peer, Frame(TEXT, b"last"), Frame(TEXT, b"more"), Frame(PING))
    assert reader.deliver(handler, limit) is None
    reader.feed(peer.send(Frame(TEXT, b"later")))
    assert reader.deliver(handler, limit) is None
    assert handler.messages == ["last"]
    assert reader.messages == 1


def test_stop_hands_out_nothing_in_a_later_call(peer: Peer) -> None:
    handler = Handler()
    reader = fed(peer, Frame(TEXT, b"more"), Frame(0x3))
    reader.stop()
    assert reader.deliver(handler, ANY_NUMBER) is None
    assert handler.messages == []


def test_a_message_that_is_not_done_with_is_told_though_it_called_stop(peer: Peer) -> None:
    def answer(message: str) -> object:
        reader.stop()
        return "pending"

    reader = fed(peer, Frame(TEXT, b"last"), Frame(TEXT, b"more"))
    assert reader.deliver(Handler(answer), ANY_NUMBER) == (PENDING, "pending", 0)
    assert reader.deliver(Handler(answer), ANY_NUMBER) is None
    assert reader.messages == 1


def test_on_message_is_looked_up_for_each_message(peer: Peer) -> None:
    seen: list[str] = []

    class Changing:
        def on_message(self, message: str) -> None:
            seen.append(f"first {message}")
            self.on_message = lambda message: seen.append(f"second {message}")  # type: ignore[method-assign]

    fed(peer, Frame(TEXT, b"a"), Frame(TEXT, b"b")).deliver(Changing(), ANY_NUMBER)
    assert seen == ["first a", "second b"]


def test_bytes_that_are_fed_by_the_handler_come_after_those_that_are_there(peer: Peer) -> None:
    def answer(message: str) -> None:
        if message == "1":
            reader.feed(peer.send(Frame(TEXT, b"3"))[:3])
            reader.feed(peer.send(Frame(TEXT, b"3"))[3:])

    handler = Handler(answer)
    reader = fed(peer, Frame(TEXT, b"1"), Frame(TEXT, b"2"))
    assert reader.deliver(handler, ANY_NUMBER) is None
    assert handler.messages == ["1", "2", "3"]


def test_steps_and_handing_out_go_on_from_each_other(peer: Peer) -> None:
    handler = Handler()
    reader = fed(peer, Frame(TEXT, b"1"), Frame(TEXT, b"2"), Frame(TEXT, b"3"), Frame(TEXT, b"4"))
    assert next(iter(reader)) == (TEXT, "1", 1)
    assert reader.deliver(handler, 2) == (BUDGET_SPENT, None, 0)
    assert handler.messages == ["2", "3"]
    assert list(zip(reader, range(2), strict=False)) == [((TEXT, "4", 1), 0), (None, 1)]
    assert reader.messages == 2


def test_is_in_a_message_only_while_one_has_begun(peer: Peer) -> None:
    handler = Handler(lambda message: states.append(reader.in_message))
    states: list[bool] = []
    begun, rest = Frame(TEXT, b"Hel", fin=False), Frame(CONTINUATION, b"lo")
    reader = fed(peer, Frame(TEXT, b"whole"), begun, rest, begun)
    assert reader.deliver(handler, ANY_NUMBER) is None
    assert states == [False, False]
    assert reader.in_message


@quietly
@given(conversation=any_kind, points=cuts, limit=st.integers(1, 5))
def test_hands_out_what_the_steps_would_give(
    peer: Peer, conversation: Conversation, points: list[float], limit: int
) -> None:
    handler = Handler()
    reader = peer.reader(inflater=conversation.inflater())
    controls: list[Event] = []
    for chunk in chunks_of(peer.send(*conversation.frames()), points):
        reader.feed(chunk)
        while (outcome := reader.deliver(handler, limit)) is not None:
            if outcome[0] != BUDGET_SPENT:
                controls.append(outcome)
    events = conversation.events()
    assert handler.messages == [payload for opcode, payload, _ in events if opcode in MESSAGES]
    assert controls == [event for event in events if event[0] not in MESSAGES]
    assert reader.messages == len(handler.messages)
    assert reader.message_bytes == sum(size for opcode, _, size in events if opcode in MESSAGES)


def test_the_time_of_a_turn(peer: Peer) -> None:
    """Only where it is asked for: by number alone the same bytes always give the same."""
    messages = [Frame(TEXT, b"x")] * 20

    def slow(message: object) -> None:
        # However busy the machine is, it takes no less.
        time.sleep(TURN_TIME)

    reader = fed(peer, *messages)
    assert reader.deliver(Handler(slow), ANY_NUMBER, True) == (BUDGET_SPENT, None, 0)
    assert reader.messages <= 8
    while reader.deliver(Handler(slow), ANY_NUMBER, True) is not None:
        pass
    assert reader.messages == 20
    assert fed(peer, *messages).deliver(Handler(slow), ANY_NUMBER) is None


def test_the_clock_is_read_for_each_large_message(peer: Peer) -> None:
    messages = [Frame(BINARY, bytes(CLOCK_SIZE))] * 6

    def slow(message: object) -> None:
        time.sleep(TURN_TIME)

    reader = fed(peer, *messages)
    assert reader.deliver(Handler(slow), ANY_NUMBER, True) == (BUDGET_SPENT, None, 0)
    assert reader.messages == 2
