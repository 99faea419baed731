"""What keepalive, cancelling and stopping come to, on Tornado and here."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import tornado

from tests.against_tornado import Both, run_both

pytestmark = pytest.mark.xdist_group("against_lifetime")

# What Tornado does is that of the version the documentation speaks of.
is_6_6 = tornado.version_info >= (6, 6)


def compare(both: Both, expected: Mapping[str, tuple[object, object]]) -> None:
    for figure, (theirs, ours) in expected.items():
        assert both.ours[figure] == ours
        if is_6_6:
            assert both.tornado[figure] == theirs


@pytest.fixture(scope="module")
def keepalive() -> Both:
    return run_both("keepalive")


def test_a_dead_peer_is_found_in_time_and_told(keepalive: Both) -> None:
    figures = {"a dead peer: close_code": (None, 1006), "a dead peer: close_reason": (None, "ping timed out")}
    compare(keepalive, figures)
    # Tornado waits for an answer to its close frame.
    figure = "a dead peer: seconds until on_close"
    assert keepalive.ours[figure] < keepalive.tornado[figure] - 3


def test_the_timeout_may_be_longer_than_the_interval(keepalive: Both) -> None:
    compare(keepalive, {"a peer whose pongs take 0.8 s is kept": (False, True)})


def test_any_traffic_is_life(keepalive: Both) -> None:
    compare(keepalive, {"a peer that sends messages and no pongs is kept": (False, True)})


def test_cancelling_leaves_and_loses_nothing() -> None:
    figures = {
        "sockets left of 20 cancelled connects": (20, 0),
        "messages lost to 20 cancelled reads": (20, 0),
        "the second read after the end": ("hangs", "None"),
    }
    both = run_both("cancelling")
    compare(both, figures)
    assert both.ours["stderr"] == ""


def test_what_was_handled_is_answered_when_a_server_stops() -> None:
    both = run_both("stopping")
    compare(both, {"of 10 clients, told 1001": (10, 10), "connections open at the end": (0, 0)})
    assert both.ours["messages handled and not answered"] == 0
    assert both.tornado["messages handled and not answered"] > 0
    assert both.ours["stderr"] == ""
