"""What a row and a target are, and what is measured of each kind of row."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers import OURS

#: Stands for the cheapest server that is neither ours nor a mere reference.
BEST_PEER = "the best peer"


@dataclass(frozen=True)
class Target:
    """``subject`` may have at most ``factor`` times the figure of ``against``; with None, ``factor`` of its unit."""

    factor: float
    against: str | None
    subject: str = OURS
    #: Names a server whose messages ours may not be larger than on the wire.
    wire_of: str | None = None
    #: One of `OTHER_FIGURES`; "" for the figure that counts in the row.
    figure: str = ""
    #: The id of the row in which ``against`` has its figure; "" for the target's own row.
    in_row: str = ""
    #: The target as whoever set it said it, where that differs from the figure: "200 iterations a second".
    words: str = ""


@dataclass(frozen=True)
class OverBroker:
    """How messages go over a broker: a process publishes, Redis hands them on, clients of the servers get them."""

    #: Server processes, each with the same number of clients.
    processes: int = 2
    #: Between which clients and messages are divided, in turn.
    topics: int = 1
    #: Messages that are published when all clients have those before; 0 with a ``rate``.
    batch: int = 0
    #: Messages a second, whatever clients have; 0 with a ``batch``.
    rate: int = 0


@dataclass(frozen=True)
class Row:
    """One line of the tables. ``kind`` names the function in `benchmarks.measure`."""

    id: str
    label: str
    kind: str
    payload: str = "text 32 B"
    connections: int = 1
    depth: int = 1
    needs: frozenset[str] = frozenset({"echo"})
    style: str = ""
    exchange: bool = False
    #: One of `benchmarks.servers.common.SHAPES`.
    shape: str = "plain"
    #: How often a task sends each message to all clients; 0 for a callback that does it once.
    burst: int = 0
    over_broker: OverBroker | None = None
    #: Messages that each client has missed, in rows of kind "resume".
    missed: int = 0
    targets: tuple[Target, ...] = ()


#: By kind of row: the figure that counts, and its unit. Less is better in all of them.
FIGURES = {
    "echo": ("cpu_us", "µs of server CPU a message"),
    "broadcast": ("cpu_us", "µs of server CPU a delivered message"),
    "all-to-all": ("cpu_us", "µs of server CPU a delivered message"),
    "churn": ("cpu_us", "µs of server CPU a connection"),
    "idle": ("kib", "KiB a connection"),
    "client": ("cpu_us", "µs of client CPU a round trip"),
    "importing": ("cpu_ms", "ms of CPU"),
    "cluster": ("cpu_us", "µs of server CPU a delivered message"),
    "receive": ("cpu_us", "µs of server CPU an entry"),
    "resume": ("cpu_us", "µs of server CPU a client"),
}

#: Of what a target may be too, with the unit.
OTHER_FIGURES = {
    "iteration_ms": "ms an iteration",
    "p99_us": "µs, 99 of 100 messages",
    "broker_reads": "reads of the broker",
}
