"""The benchmarks: what is measured of whom, and what a target says of it. Nothing here is timed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import redis

from benchmarks.__main__ import parse_arguments, peers_of
from benchmarks.fan_out_rows import FAN_OUT_ROWS
from benchmarks.kinds import BEST_PEER, FIGURES, OTHER_FIGURES, Row, Target
from benchmarks.peers import CLIENTS, IMPORTS, OURS, SERVERS, SOCKETIFY, Server
from benchmarks.publishers.common import Messages, Options, stamped
from benchmarks.redis_server import reads_among, redis_server, watched
from benchmarks.report import say_verdict
from benchmarks.results import Results
from benchmarks.rows import ROWS
from benchmarks.targets import Verdict, judge
from benchmarks.tools import Tools
from tests.programs import one_core
from tests.pubsub.redis_server import needed

TOOLS = Tools(Path(), None, None, Path(), "redis-server", ())
ROW = {row.id: row for row in ROWS}


def verdicts(measured: dict[Row, dict[str, dict[str, float]]]) -> list[Verdict]:
    """Return what is said of rows in which peers had these figures."""
    results = Results({})
    for row, figures in measured.items():
        results.begin_row(row, {"rounds": 1, "seconds": 1, "when": "", "commit": ""})
        for peer, figure in figures.items():
            results.add(row, peer, figure, {})
    return judge(results)


def test_each_row_has_a_name_of_its_own_and_a_figure() -> None:
    assert len(ROW) == len(ROWS)
    assert {row.kind for row in ROWS} == set(FIGURES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_whoever_a_target_names_takes_part_in_the_row(row: Row) -> None:
    tools = dataclasses.replace(TOOLS, load_tls=Path())
    # Whether a package is installed here is not the question.
    servers = {server.name for server in SERVERS if row.needs <= server.can}
    clients = {client.name for client in CLIENTS if client.style == row.style}
    there = {"importing": set(IMPORTS), "client": clients}.get(row.kind, servers)
    for target in row.targets:
        named = {target.subject, target.against, target.wire_of} - {None, BEST_PEER}
        assert named <= there
        assert target.figure in {"", *OTHER_FIGURES}
        assert target.in_row in {"", *ROW}
    assert all(not isinstance(peer, Server) or peer.name in there for peer in peers_of(row, tools, ""))


@pytest.mark.parametrize("row", [row for row in FAN_OUT_ROWS if row.over_broker], ids=lambda row: row.id)
def test_a_row_over_redis_is_of_servers_that_have_clients_there(row: Row) -> None:
    peers = [server for server in SERVERS if row.needs <= server.can]
    assert OURS in [peer.name for peer in peers]
    assert all(peer.over_broker is not None for peer in peers)
    over = row.over_broker
    assert over is not None
    assert row.connections % (over.processes * over.topics) == 0
    assert bool(over.batch) + bool(over.rate) + bool(row.missed) == 1


def test_no_row_is_over_redis_where_there_is_no_server() -> None:
    tools = dataclasses.replace(TOOLS, redis_server=None)
    assert [row.id for row in FAN_OUT_ROWS if not peers_of(row, tools, OURS)] == [
        row.id for row in FAN_OUT_ROWS if row.over_broker
    ]


def test_a_peer_without_one_of_its_modules_is_left_out_and_the_module_is_named() -> None:
    peer = Server("a peer", None, needs_all=("json", "no_such_module"))
    assert TOOLS.lacks(peer) == "the module no_such_module (pip install '.[bench]')"
    assert TOOLS.lacks(Server("a peer", None, needs_all=("json",))) is None


def test_rows_are_chosen_by_a_part_of_their_id() -> None:
    chosen = parse_arguments(["--rows", "all-to-all", "--rounds", "2", "--seconds", "0.5", "--servers", "tornado_ws"])
    assert [row.id for row in ROWS if chosen.rows in row.id or chosen.rows in row.label] == ["all-to-all"]


def test_a_target_of_iterations_is_judged_by_the_time_of_one() -> None:
    # The CPU time of a delivery says the opposite, and is not asked.
    figures = {
        OURS: {"cpu_us": 9.0, "iteration_ms": 4.0},
        SOCKETIFY: {"cpu_us": 1.0, "iteration_ms": 10.0},
    }
    each, ratio = verdicts({ROW["all-to-all"]: figures})
    assert (each.met, each.measured) == (True, 4.0)
    assert (ratio.met, ratio.measured) == (False, 0.4)
    assert (
        say_verdict(each) == "tornado_ws, at most 200 iterations a second (5 ms an iteration): 4.00, met, 20% to spare"
    )
    assert say_verdict(ratio) == (
        "tornado_ws, at most 3 x socketify's iterations a second (1/3 x socketify): 0.400, missed by 20%"
    )


def test_a_target_of_none_at_all_is_met_by_none_at_all() -> None:
    (met,) = verdicts({ROW["resume"]: {OURS: {"cpu_us": 1.0, "broker_reads": 0.0}}})
    (missed,) = verdicts({ROW["resume"]: {OURS: {"cpu_us": 1.0, "broker_reads": 1.0}}})
    (unknown,) = verdicts({ROW["resume"]: {OURS: {"cpu_us": 1.0}}})
    assert [verdict.met for verdict in (met, missed, unknown)] == [True, False, False]
    words = "tornado_ws, at most 0 reads of the broker on a process that is up (0 reads of the broker)"
    assert say_verdict(met) == f"{words}: 0.00, met"
    assert say_verdict(missed) == f"{words}: 1.00, missed"
    assert say_verdict(unknown) == f"{words}: -, not judged: not measured"


def test_a_ratio_to_whom_nobody_measured_is_not_judged() -> None:
    _, ratio = verdicts({ROW["all-to-all"]: {OURS: {"cpu_us": 1.0, "iteration_ms": 1.0}}})
    assert not ratio.met
    assert ratio.note == "not measured"
    assert ratio.target == Target(1 / 3, SOCKETIFY, figure="iteration_ms", words="3 x socketify's iterations a second")


def test_a_row_may_be_judged_by_what_another_one_takes() -> None:
    plain, awaiting = ROW["text-32-x1-64"], ROW["awaiting-x1-64"]
    alone, *_ = verdicts({awaiting: {OURS: {"cpu_us": 3.0}}})
    beside, *_ = [
        each
        for each in verdicts({plain: {OURS: {"cpu_us": 2.0}}, awaiting: {OURS: {"cpu_us": 3.0}}})
        if each.row is awaiting
    ]
    assert alone.note == "not measured"
    assert (beside.met, beside.measured) == (True, 1.5)
    words = 'tornado_ws, at most 2 x tornado_ws in "32 B text, 1 connection, 64 in flight"'
    assert say_verdict(beside) == f"{words}: 1.500, met, 25% to spare"


@pytest.mark.parametrize(
    ("command", "is_read"),
    [
        ("XRANGE tornado_ws:{0} - + COUNT 500", True),
        ("xrevrange tornado_ws:{0} + -", True),
        ("XREAD COUNT 500 STREAMS tornado_ws:{0} 0-0", True),
        ("XREAD STREAMS tornado_ws:{0} 0-0", True),
        ("XREAD COUNT 500 BLOCK 2000 STREAMS tornado_ws:{0} 1-0", False),
        ("XREAD BLOCK 2000 STREAMS tornado_ws:{0} 1-0", False),
        ("XINFO STREAM tornado_ws:{0}", False),
        ("GET tornado_ws:{0}:epoch", False),
        # A topic may have any name.
        ("XADD tornado_ws:{0} * t XRANGE m x", False),
        ("XREAD COUNT 1 STREAMS BLOCK:{0} 0-0", True),
    ],
)
def test_what_reads_a_stream_is_a_read_unless_it_waits_for_what_is_new(command: str, is_read: bool) -> None:
    assert reads_among([command]) == is_read


def test_reads_of_others_are_seen_while_a_server_is_watched() -> None:
    with redis_server(needed("redis"), one_core()) as url, redis.Redis.from_url(url) as client:
        client.xrange("before")
        with watched(url) as commands:
            client.xrange("stream")
            client.xread({"stream": "0"}, block=1)
            client.xread({"stream": "0"})
        client.xrange("after")
    # What connections begin with is among them.
    assert [command for command in commands.all if "before" in command or "after" in command] == []
    assert [command.split()[0] for command in commands.all if command[0] == "X"] == ["XRANGE", "XREAD", "XREAD"]
    assert commands.reads == 2


def test_messages_have_their_size_the_time_and_topics_in_turn() -> None:
    messages = Messages(Options("", topics=2, batch=3, rate=0, payload="text 256 B"))
    made = messages.make(3)
    assert [topic for topic, _ in made] == ["t0", "t1", "t0"]
    assert [topic for topic, _ in messages.make(1)] == ["t1"]
    stamps = [int(message[1:20]) for _, message in made]
    assert stamps == sorted(stamps)
    assert {(message[0], len(message)) for _, message in made} == {("@", 256)}
    assert stamped("x" * 32)[20:] == " " + "x" * 11
