"""One message to many connections: the rows of one process, and those of several over a broker."""

from __future__ import annotations

from benchmarks.kinds import OverBroker, Row, Target
from benchmarks.peers import FLOOR, SOCKETIFY

#: How many messages come in one piece and are published, and what ours may cost then.
_PUBLISHED = {
    1: (Target(1.05, FLOOR, words="1.05 x a loop of send in C"),),
    8: (),
    32: (Target(0.5, None, words="0.5 µs a delivery"),),
}


def _publish_row(count: int, deflate: bool) -> Row:
    messages = "1 message" if count == 1 else f"{count} messages"
    needs = {"publish", "deflate"} if deflate else {"publish"}
    return Row(
        f"publish-{count}{'-deflate' if deflate else ''}",
        f"{messages} of 93 B JSON a turn published to 1,000 clients{', deflate' if deflate else ''}",
        "broadcast",
        "JSON 93 B",
        connections=1000,
        depth=count,
        needs=frozenset(needs),
        targets=() if deflate else _PUBLISHED[count],
    )


def _rate_row(rate: int, *targets: Target) -> Row:
    return Row(
        f"cluster-{rate}",
        f"two processes over Redis, {rate:,} messages a second, 100 topics, one client of each topic at each process",
        "cluster",
        "text 256 B",
        connections=200,
        needs=frozenset({"redis"}),
        over_broker=OverBroker(topics=100, rate=rate),
        targets=targets,
    )


FAN_OUT_ROWS = (
    Row(
        "all-to-all",
        "100 clients, each sends 32 B text to all: 10,000 deliveries an iteration",
        "all-to-all",
        connections=100,
        needs=frozenset({"publish"}),
        targets=(
            Target(5, None, figure="iteration_ms", words="200 iterations a second"),
            Target(1 / 3, SOCKETIFY, figure="iteration_ms", words="3 x socketify's iterations a second"),
        ),
    ),
    *(_publish_row(count, deflate) for deflate in (False, True) for count in _PUBLISHED),
    Row(
        "cluster",
        "two processes over Redis, 100 clients each, 50 messages to all at a time",
        "cluster",
        "text 256 B",
        connections=200,
        needs=frozenset({"redis"}),
        over_broker=OverBroker(batch=50),
    ),
    _rate_row(10_000, Target(5000, None, figure="p99_us", words="p99 5 ms from publisher to client")),
    *(_rate_row(rate) for rate in (1000, 100)),
    Row(
        "receive",
        "entries of 256 B read from Redis, for nobody, lookup included",
        "receive",
        "text 256 B",
        needs=frozenset({"topics"}),
        over_broker=OverBroker(processes=1, batch=5000),
        targets=(Target(4, None, words="4 µs an entry"),),
    ),
    Row(
        "resume",
        "1,000 clients come back at once, each has missed 20 messages of 256 B",
        "resume",
        "text 256 B",
        connections=1000,
        needs=frozenset({"topics"}),
        over_broker=OverBroker(processes=1),
        missed=20,
        targets=(Target(0, None, figure="broker_reads", words="0 reads of the broker on a process that is up"),),
    ),
)
