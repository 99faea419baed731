"""What is measured, and what is to be reached: the rows and the targets, as data."""

from __future__ import annotations

from benchmarks.fan_out_rows import FAN_OUT_ROWS
from benchmarks.kinds import BEST_PEER, Row, Target
from benchmarks.peers import AIOHTTP, FAST, FLOOR, OURS, PICOWS, PICOWS_WEBSOCKETS, PURE, TORNADO

_SHAPES = frozenset({"shapes"})
_TLS = frozenset({"tls"})
_DEFLATE = frozenset({"deflate"})
_PURE_TARGET = Target(1 / 3, TORNADO, subject=PURE)


def _shape_rows(
    shape: str, label: str, targets_100: tuple[Target, ...] = (), targets_64: tuple[Target, ...] = ()
) -> tuple[Row, Row]:
    return (
        Row(
            f"{shape}-x100-1",
            f"{label}, 32 B text, 100 connections, 1 in flight",
            "echo",
            connections=100,
            needs=_SHAPES,
            shape=shape,
            targets=targets_100,
        ),
        Row(
            f"{shape}-x1-64",
            f"{label}, 32 B text, 1 connection, 64 in flight",
            "echo",
            depth=64,
            needs=_SHAPES,
            shape=shape,
            targets=targets_64,
        ),
    )


def _burst_row(burst: int, connections: int, *targets: Target) -> Row:
    clients = "1 client" if connections == 1 else f"{connections} clients"
    return Row(
        f"burst-{burst}-x{connections}",
        f"a task writes 32 B text {burst:,} times to {clients}",
        "broadcast",
        connections=connections,
        needs=frozenset({"broadcast", "bursts"}),
        burst=burst,
        targets=targets,
    )


def _churn_rows(row_id: str, label: str, width: int) -> tuple[Row, Row]:
    return (
        Row(
            row_id,
            f"connections opened and closed, {label}",
            "churn",
            connections=width,
            needs=frozenset({"churn"}),
            targets=(Target(0.8, TORNADO),),
        ),
        Row(
            f"{row_id}-http-server",
            f"connections opened and closed, {label}, tornado_ws.HTTPServer",
            "churn",
            connections=width,
            needs=frozenset({"churn", "http-server"}),
            targets=(Target(0.45, TORNADO),),
        ),
    )


ROWS = (
    Row(
        "text-32-x100-1",
        "32 B text, 100 connections, 1 in flight",
        "echo",
        connections=100,
        targets=(Target(0.75, PICOWS), Target(1.25, FLOOR), Target(1 / 7, TORNADO), _PURE_TARGET),
    ),
    Row(
        "text-32-x100-4",
        "32 B text, 100 connections, 4 in flight",
        "echo",
        connections=100,
        depth=4,
        targets=(Target(0.35, PICOWS), Target(1 / 18, TORNADO), _PURE_TARGET),
    ),
    Row(
        "text-32-x1-64",
        "32 B text, 1 connection, 64 in flight",
        "echo",
        depth=64,
        targets=(Target(0.18, PICOWS), Target(1 / 35, TORNADO), _PURE_TARGET),
    ),
    *_shape_rows(
        "awaiting",
        "a coroutine that awaits its write",
        (Target(1.15, OURS, in_row="text-32-x100-1"), Target(0.6, PICOWS_WEBSOCKETS)),
        (Target(2, OURS, in_row="text-32-x1-64"), Target(0.2, PICOWS_WEBSOCKETS), Target(1 / 30, TORNADO)),
    ),
    *(
        Row(
            f"awaiting-{need}-x{connections}-{depth}",
            f"{label}, a coroutine that awaits its write, {text}",
            "echo",
            payload,
            connections=connections,
            depth=depth,
            needs=frozenset({"shapes", need}),
            shape="awaiting",
        )
        for need, label, payload in (("tls", "TLS", "text 32 B"), ("deflate", "deflate", "JSON 93 B"))
        for connections, depth, text in (
            (100, 1, f"{payload}, 100 connections, 1 in flight"),
            (1, 64, f"{payload}, 1 connection, 64 in flight"),
        )
    ),
    *_shape_rows("not-awaiting", "a coroutine that awaits nothing"),
    *_shape_rows(
        "sleeping",
        "a coroutine that sleeps for a turn first",
        (Target(0.6, PICOWS_WEBSOCKETS),),
        (Target(0.6, PICOWS_WEBSOCKETS),),
    ),
    *_shape_rows("gen-coroutine", "gen.coroutine"),
    *_shape_rows("task", "a task for each message", (), (Target(0.5, PICOWS_WEBSOCKETS),)),
    *_shape_rows("call-soon", "call_soon for each message", (), (Target(0.5, PICOWS_WEBSOCKETS),)),
    *_shape_rows("queue", "a queue and a task that answers", (), (Target(0.5, PICOWS_WEBSOCKETS),)),
    *(
        Row(
            f"relay-32-x{connections}-{depth}",
            f"a relay to another server and back, 32 B text, {connections} connection{'s' * (connections > 1)}, "
            f"{depth} in flight",
            "echo",
            connections=connections,
            depth=depth,
            needs=frozenset({"relay"}),
        )
        for connections, depth in ((100, 1), (1, 64))
    ),
    Row("text-32-x1000-1", "32 B text, 1,000 connections, 1 in flight", "echo", connections=1000),
    Row("text-1k-x100-1", "1 KiB text, 100 connections, 1 in flight", "echo", "text 1 KiB", connections=100),
    Row(
        "binary-16k-x20-1",
        "16 KiB binary, 20 connections, 1 in flight",
        "echo",
        "binary 16 KiB",
        connections=20,
        targets=(Target(0.65, PICOWS), Target(1.25, FLOOR)),
    ),
    Row(
        "binary-1m-x4-1",
        "1 MiB binary, 4 connections, 1 in flight",
        "echo",
        "binary 1 MiB",
        connections=4,
        targets=(Target(0.9, BEST_PEER), Target(1.2, FLOOR)),
    ),
    Row(
        "json-93-x100-1",
        "93 B JSON, decoded and encoded anew, 100 connections, 1 in flight",
        "echo",
        "JSON 93 B",
        connections=100,
        needs=frozenset({"json"}),
    ),
    Row(
        "tls-32-x100-1",
        "TLS, 32 B text, 100 connections, 1 in flight",
        "echo",
        connections=100,
        needs=_TLS,
        targets=(Target(0.9, PICOWS),),
    ),
    Row(
        "tls-16k-x20-1",
        "TLS, 16 KiB binary, 20 connections, 1 in flight",
        "echo",
        "binary 16 KiB",
        connections=20,
        needs=_TLS,
        targets=(Target(0.9, PICOWS),),
    ),
    Row(
        "deflate-93-x1-16",
        "deflate, 93 B JSON, 1 connection, 16 in flight",
        "echo",
        "JSON 93 B",
        depth=16,
        needs=_DEFLATE,
        targets=(
            Target(0.6, PICOWS_WEBSOCKETS, wire_of=PICOWS_WEBSOCKETS),
            Target(0.4, BEST_PEER, subject=FAST, wire_of=AIOHTTP),
        ),
    ),
    Row(
        "deflate-14k-x1-16",
        "deflate, 14 KiB JSON, 1 connection, 16 in flight",
        "echo",
        "JSON 14 KiB",
        depth=16,
        needs=_DEFLATE,
        targets=(
            Target(1, PICOWS_WEBSOCKETS, wire_of=PICOWS_WEBSOCKETS),
            Target(0.4, BEST_PEER, subject=FAST, wire_of=AIOHTTP),
        ),
    ),
    Row(
        "uvloop-32-x100-1",
        "uvloop, 32 B text, 100 connections, 1 in flight",
        "echo",
        connections=100,
        needs=frozenset({"uvloop"}),
    ),
    Row(
        "uvloop-32-x1-64",
        "uvloop, 32 B text, 1 connection, 64 in flight",
        "echo",
        depth=64,
        needs=frozenset({"uvloop"}),
    ),
    Row(
        "broadcast-93",
        "broadcast of 93 B JSON to 1,000 clients",
        "broadcast",
        "JSON 93 B",
        connections=1000,
        needs=frozenset({"broadcast"}),
        targets=(Target(0.5, BEST_PEER),),
    ),
    Row(
        "broadcast-deflate-93",
        "broadcast of 93 B JSON to 1,000 clients, deflate",
        "broadcast",
        "JSON 93 B",
        connections=1000,
        needs=frozenset({"broadcast", "deflate"}),
    ),
    *(
        _burst_row(burst, connections, *([Target(0.15, BEST_PEER)] if burst == 100 else []))
        for connections in (1, 100)
        for burst in (10, 100, 1000)
    ),
    *FAN_OUT_ROWS,
    Row(
        "idle-800",
        "idle memory, 800 connections",
        "idle",
        connections=800,
        needs=frozenset({"idle"}),
        targets=(Target(8, None),),
    ),
    Row(
        "idle-800-pings",
        "idle memory, 800 connections, a ping every 30 s",
        "idle",
        connections=800,
        needs=frozenset({"idle", "pings"}),
        targets=(Target(8.2, None),),
    ),
    Row(
        "idle-800-deflate",
        "idle memory, 800 connections, deflate negotiated and not used",
        "idle",
        connections=800,
        needs=frozenset({"idle", "deflate"}),
        targets=(Target(9, None),),
    ),
    Row(
        "idle-800-deflate-used",
        "idle memory, 800 connections, deflate, after one message each way",
        "idle",
        "JSON 93 B",
        connections=800,
        needs=frozenset({"idle", "deflate"}),
        exchange=True,
        targets=(Target(40, None),),
    ),
    Row("idle-1000", "idle memory, 1,000 connections", "idle", connections=1000, needs=frozenset({"idle"})),
    Row("idle-10000", "idle memory, 10,000 connections", "idle", connections=10_000, needs=frozenset({"idle"})),
    *_churn_rows("churn", "32 at a time", 32),
    *_churn_rows("churn-1", "one after the other", 1),
    Row("import", "import of what a server's program needs", "importing", targets=(Target(1, TORNADO),)),
    Row(
        "client-32-await",
        "client, 32 B text, one question at a time, awaited",
        "client",
        style="await",
        targets=(Target(0.8, PICOWS_WEBSOCKETS),),
    ),
    Row(
        "client-32-callback",
        "client, 32 B text, one question at a time, callback",
        "client",
        style="callback",
        targets=(Target(0.95, PICOWS),),
    ),
    Row(
        "client-16k-await",
        "client, 16 KiB binary, one question at a time, awaited",
        "client",
        "binary 16 KiB",
        style="await",
    ),
)
