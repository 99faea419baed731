"""Flow control, threads and errors: what `docs/flow-control.md` says, against Tornado."""

from __future__ import annotations

import pytest

from tests.against_tornado import run_both


def test_a_flooding_connection_does_not_starve_another() -> None:
    both = run_both("flood", "50")
    for side in both:
        assert side["messages of the flood between two others, median"] > 0
    # An answer takes a few turns of the loop, of 256 messages each.
    assert both.ours["messages of the flood between two others, most"] <= 2048


def test_a_slow_handler_does_not_hold_up_control_frames() -> None:
    both = run_both("slow_handler")
    assert both.tornado["messages answered"] == []
    assert both.ours["messages answered"] == ["1", "2"]
    assert both.ours["answers before the pong"] == 0


def test_a_write_from_another_thread_is_refused_in_words_and_sends_nothing() -> None:
    both = run_both("threads")
    assert "from the wrong thread" in both.tornado["messages sent"]
    assert both.ours["messages sent"] == ["from the right thread"]
    assert "write_message_threadsafe()" in both.ours["error"]


@pytest.mark.parametrize("limit", ["4", "stall"])
def test_a_stalled_peer_costs_the_limit_and_not_what_was_written(limit: str) -> None:
    both = run_both("stalled_peer", limit)
    assert both.tornado["MiB held"] > 90
    assert both.ours["MiB held"] < (5 if limit == "4" else 90)
    assert both.ours["closed with"] == 1013


@pytest.mark.parametrize("compression", ["plain", "deflate"])
def test_a_dead_peer_with_many_writes_is_one_line_and_no_traceback(compression: str) -> None:
    both = run_both("dead_peer", compression)
    assert both.tornado["tracebacks"] > 1000
    assert (both.ours["lines"], both.ours["tracebacks"]) == (1, 0)
    assert both.tornado["awaited"] == both.ours["awaited"] == ["WebSocketClosedError"]
