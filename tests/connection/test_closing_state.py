"""The state of a connection: every state with every event, without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_ws.close_codes import ABNORMAL_CLOSURE, NORMAL_CLOSURE, PROTOCOL_ERROR
from tornado_ws.connection.closing import Closing, End, Event, PendingEnd, State

#: Each state; what it becomes by CLOSE, END_READ, PEER_END, GIVE_UP and FINISH; and what a call of close has to do.
TABLE = """
    OPEN            CLOSING         ENDING          PEER_ENDED  GIVEN_UP  ENDED  SEND|AWAIT
    ENDING          CLOSING_ENDING  ENDING          PEER_ENDED  GIVEN_UP  ENDED  SEND|AWAIT
    CLOSING         CLOSING         CLOSING_ENDING  CLOSED      ABORTED   ENDED  AWAIT
    CLOSING_ENDING  CLOSING_ENDING  CLOSING_ENDING  CLOSED      ABORTED   ENDED  AWAIT
    PEER_ENDED      CLOSED          PEER_ENDED      PEER_ENDED  GIVEN_UP  ENDED  SEND|CLOSE
    GIVEN_UP        ABORTED         GIVEN_UP        GIVEN_UP    GIVEN_UP  ENDED  SEND|CLOSE
    CLOSED          CLOSED          CLOSED          CLOSED      ABORTED   ENDED  CLOSE
    ABORTED         ABORTED         ABORTED         ABORTED     ABORTED   ENDED  CLOSE
    ENDED           ENDED           ENDED           ENDED       ENDED     ENDED  CLOSE
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]
#: Whether a close frame is sent, and whether the socket is closed.
ACTIONS = {
    "SEND|AWAIT": (True, False),
    "AWAIT": (False, False),
    "SEND|CLOSE": (True, True),
    "CLOSE": (False, True),
}

#: Each state, with Tornado's two flags (client_terminated, server_terminated) and what goes on all the same.
MEANINGS = {
    State.OPEN: (False, False, "receives delivers"),
    State.ENDING: (False, False, "delivers"),
    State.CLOSING: (False, True, "receives delivers"),
    State.CLOSING_ENDING: (False, True, "delivers"),
    State.PEER_ENDED: (True, False, "delivers"),
    State.GIVEN_UP: (True, False, ""),
    State.CLOSED: (True, True, "delivers"),
    State.ABORTED: (True, True, ""),
    State.ENDED: (True, True, ""),
}


def in_state(state: State) -> Closing:
    closing = Closing()
    closing.state = state
    return closing


def test_the_table_has_every_state_and_every_event() -> None:
    assert [row[0] for row in ROWS] == [state.name for state in State]
    assert {len(row) for row in ROWS} == {len(Event) + 2}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_events(row: list[str]) -> None:
    before = State[row[0]]
    for event, after in zip(Event, row[1:], strict=False):
        closing = in_state(before)
        closing.on(event)
        assert closing.state is State[after], event


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_a_call_of_close_has_to_do(row: list[str]) -> None:
    closing = in_state(State[row[0]])
    before = closing.close()
    assert (before.sends, before.peer_ended) == ACTIONS[row[-1]]
    assert closing.state is State[row[1]]


@pytest.mark.parametrize("state", State)
def test_what_a_state_means(state: State) -> None:
    client_terminated, server_terminated, goes_on = MEANINGS[state]
    assert state.peer_ended is client_terminated
    assert state.sends is not server_terminated
    assert state.is_closing is (client_terminated or server_terminated)
    assert state.receives is ("receives" in goes_on)
    assert state.delivers is ("delivers" in goes_on)


@given(st.lists(st.sampled_from(Event)))
def test_nothing_begins_again(events: list[Event]) -> None:
    closing = Closing()
    for event in events:
        before = closing.state
        closing.on(event)
        after = closing.state
        assert before.sends or not after.sends
        assert before.receives or not after.receives
        assert before.delivers or not after.delivers
        assert after.peer_ended or not before.peer_ended


@given(st.lists(st.sampled_from([*Event, None])))
def test_one_close_frame_is_sent_at_most(events: list[Event | None]) -> None:
    closing = Closing()
    sent = 0
    for event in events:
        if event is None:
            sent += closing.close().sends
        elif event is not Event.CLOSE:
            closing.on(event)
    assert sent <= 1


@pytest.mark.parametrize("first", [End.CLOSE_FRAME, End.VIOLATION, End.EOF])
@pytest.mark.parametrize("second", [End.CLOSE_FRAME, End.VIOLATION, End.EOF])
def test_the_first_end_of_the_peer_counts(first: End, second: End) -> None:
    closing = Closing()
    closing.end_read(first, "first")
    closing.end_read(second, "second")
    assert closing.state is State.ENDING
    assert closing.next_end() == PendingEnd(first, "first")
    assert not closing.pending


@pytest.mark.parametrize("end", [End.CLOSE_FRAME, End.VIOLATION, End.EOF])
@pytest.mark.parametrize("socket_first", [False, True])
def test_the_end_of_the_socket_comes_last(end: End, socket_first: bool) -> None:
    closing = Closing()
    for each in (End.SOCKET_CLOSED, end) if socket_first else (end, End.SOCKET_CLOSED):
        closing.end_read(each)
    waiting = []
    while closing.pending:
        waiting.append((closing.peer_end_waits, closing.next_end().end))
    assert waiting == [(True, end), (False, End.SOCKET_CLOSED)]


def test_a_timeout_aborts_with_1006() -> None:
    closing = in_state(State.CLOSING)
    assert closing.time_out()
    assert closing.for_on_close() == (ABNORMAL_CLOSURE, "closing handshake timed out")


def test_a_timeout_changes_nothing_when_the_peer_has_answered() -> None:
    closing = in_state(State.CLOSING)
    closing.end_read(End.CLOSE_FRAME, b"")
    assert not closing.time_out()
    assert closing.for_on_close() == (None, None)


def test_a_timeout_leaves_the_code_of_a_violation() -> None:
    closing = in_state(State.CLOSED)
    closing.code, closing.reason = PROTOCOL_ERROR, "RSV1"
    closing.end_read(End.SOCKET_CLOSED)
    assert closing.time_out()
    assert closing.for_on_close() == (PROTOCOL_ERROR, "RSV1")


def test_what_we_decided_is_reported_whatever_the_peer_says() -> None:
    closing = Closing()
    closing.reported = ABNORMAL_CLOSURE, "ping timed out"
    closing.code = NORMAL_CLOSURE
    assert closing.for_on_close() == (ABNORMAL_CLOSURE, "ping timed out")
