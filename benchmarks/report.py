"""results.md, from the results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from benchmarks.kinds import FIGURES, Row
from benchmarks.peers import FLOOR, OURS, SERVERS
from benchmarks.results import Figure, PeerResult, Results
from benchmarks.targets import Verdict, judge

_METHOD = """\
Each program under test runs in a fresh process on a core of its own. What keeps it busy has the other core, is written
in C, and polls without sleeping: *load busy* is its CPU time over the time measured, *load working* the part of the
time in which it found something to do (near 100 % it would be measuring itself). The measure is the CPU time, user and
system, that the operating system counted for the process while messages went back and forth. Rounds are interleaved:
every peer once, then every peer again. Figures are medians of the rounds, with the lowest and the highest in brackets.
Less is better, but for messages a second. The replies are checked: the first round trip of each connection byte by
byte, the others by their length. *in kernel* is the part of the CPU time that the kernel spent in the program's system
calls. *wire* is the bytes that one message takes from the server to the client.

Where messages go to all clients a round is what one piece of them brings, or one message of each client (an
*iteration*). The next round begins when all have all. Whole rounds are measured, if they take longer than the time too.

Rows over Redis are measured in another way. The servers share the core that is measured, and their CPU times are added.
Redis, a process that publishes and a program in C that is all clients share the other core, and sleep where nothing is
ready. Each message has the time at which it was published: *p50* and *p99* are from there to the client. *a second a
core* is what one core would deliver that did nothing else. python-socketio and Channels run on uvicorn.
"""

_COLUMNS = {
    "iterations": ("iterations a second", "{:,.1f}", 1),
    "rate": ("a second", "{:,.0f}", 1),
    "a_core": ("a second a core", "{:,.0f}", 1),
    "all_ms": ("ms until all have all", "{:,.0f}", 1),
    "broker_reads": ("reads of the broker", "{:,.0f}", 1),
    "p50_us": ("p50 µs", "{:,.0f}", 1),
    "p99_us": ("p99 µs", "{:,.0f}", 1),
    "busy_share": ("busy", "{:.0f} %", 100),
    "system_share": ("in kernel", "{:.0f} %", 100),
    "load_cpu_share": ("load busy", "{:.0f} %", 100),
    "load_work_share": ("load working", "{:.0f} %", 100),
    "wire_bytes_out": ("wire", "{:,.1f}", 1),
}


def render(results: Results, charts: Sequence[str]) -> str:
    """Return the Markdown text; ``charts`` are the names of the pictures beside it."""
    parts = ["# Benchmark results", "Made by `make bench`; the figures of the last run are in `results.json`.", _METHOD]
    parts += [f"![{chart.removesuffix('.png').replace('_', ' ')}]({chart})" for chart in charts]
    parts += ["## Targets", _targets(judge(results))]
    parts += ["## All rows at a glance", _overview(results)]
    parts += ["## Row by row"]
    for row in results.rows():
        parts += [f"### {row.label}", _row_table(results, row), *_notes(results, row)]
    parts += ["## Machine and versions", _machine(results)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _targets(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "No row with a target was measured."
    met = sum(verdict.met for verdict in verdicts)
    lines = [_target_line(verdict) for verdict in verdicts]
    header = ("row", "who", "at most", "measured", "verdict")
    return f"{met} of {len(verdicts)} met.\n\n{_table(header, lines)}"


def say_verdict(verdict: Verdict) -> str:
    """Return a verdict as one line for a terminal."""
    _, subject, bound, measured, sentence = _target_line(verdict)
    return f"{subject}, at most {bound}: {measured}, {sentence.replace('**', '')}"


def _target_line(verdict: Verdict) -> Sequence[str]:
    target = verdict.target
    bound = f"{target.factor:g} {verdict.against}" if target.against is None else _ratio(target.factor, verdict.against)
    if target.words:
        bound = f"{target.words} ({bound})"
    if verdict.measured is None:
        return verdict.row.label, target.subject, bound, "-", f"**not judged**: {verdict.note}"
    sentence = "met" if verdict.met else "**missed**"
    if target.factor:
        off = verdict.measured / target.factor - 1
        sentence = f"met, {-off:.0%} to spare" if verdict.met else f"**missed by {off:.0%}**"
    if verdict.note:
        sentence = f"**missed**: {verdict.note}"
    measured = f"{verdict.measured:.3f}" if target.against else _number(verdict.measured)
    return verdict.row.label, target.subject, bound, measured, sentence


def _ratio(factor: float, against: str) -> str:
    fraction = Fraction(factor).limit_denominator(100)
    text = str(fraction) if fraction.numerator == 1 and fraction.denominator > 2 else f"{factor:g}"
    return f"{text} x {against}"


def _overview(results: Results) -> str:
    names = [server.name for server in SERVERS if any(server.name in results.peers(row) for row in results.rows())]
    lines = []
    for row in results.rows():
        costs = {name: results.cost(row, name) for name in names}
        best = min((cost for name, cost in costs.items() if cost is not None and name != FLOOR), default=None)
        cells = []
        for cost in costs.values():
            text = "" if cost is None else _number(cost)
            cells.append(f"**{text}**" if cost is not None and cost == best else text)
        lines.append((f"{row.label} ({FIGURES[row.kind][1]})", *cells))
    return _table(("row", *names), lines)


def _row_table(results: Results, row: Row) -> str:
    peers = results.peers(row)
    cost_name, unit = FIGURES[row.kind]
    ours = results.cost(row, OURS)
    columns = [name for name in _COLUMNS if any(name in peer.figures for peer in peers.values())]
    if "deflate" not in row.needs:
        columns = [name for name in columns if name != "wire_bytes_out"]
    lines = []
    for name, peer in sorted(peers.items(), key=lambda item: item[1].get(cost_name) or float("inf")):
        label = f"**{name}**" if name.startswith(OURS) else name
        if peer.error:
            lines.append((label, f"failed: {peer.error}", *[""] * (len(columns) + 1)))
            continue
        cost = peer.figures[cost_name]
        ratio = f"{cost.median / ours:.2f}" if ours else ""
        lines.append((label, _with_spread(cost), ratio, *(_cell(peer, column) for column in columns)))
    return _table(("", unit, f"x {OURS}", *(_COLUMNS[column][0] for column in columns)), lines)


def _with_spread(figure: Figure) -> str:
    return f"{_number(figure.median)} ({_number(figure.low)}-{_number(figure.high)})"


def _cell(peer: PeerResult, column: str) -> str:
    _, form, scale = _COLUMNS[column]
    value = peer.get(column)
    return "" if value is None else form.format(value * scale)


def _notes(results: Results, row: Row) -> list[str]:
    run = results.run_of(row)
    rounds = f"{run['rounds']} round{'s' if run['rounds'] > 1 else ''}"
    notes = [f"{rounds} of {run['seconds']:g} s, {run['when']}, commit {run['commit'] or 'unknown'}."]
    for name, peer in results.peers(row).items():
        working = peer.get("load_work_share")
        busy = peer.get("busy_share")
        if working is not None and busy is not None and working > 0.97 and busy < 0.9:
            notes.append(f"The load generator was the bottleneck for {name}.")
        if name == OURS and peer.about.get("engine") == "python":
            notes.append(f"{OURS} ran on its pure Python engine: the native one is not built here.")
    return [" ".join(notes)]


def _machine(results: Results) -> str:
    lines = [f"- {name}: {value}" for name, value in results.machine.items()]
    versions: dict[str, str] = {}
    for row in results.rows():
        for name, peer in results.peers(row).items():
            versions.update(peer.about.get("versions", {}))
            if "engine" in peer.about:
                versions[f"engine of {name}"] = peer.about["engine"]
    lines += [f"- {name}: {version}" for name, version in sorted(versions.items())]
    lines += [f"- {line}" for line in results.missing]
    return "\n".join(lines)
