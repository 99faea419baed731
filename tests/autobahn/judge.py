"""What the suite's reports say about the cases that were asked for, taken strictly."""

from __future__ import annotations

import html
import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.autobahn.cases import INFORMATIONAL, TOTAL, group_of
from tests.autobahn.wstest import SUITE_VERSION

MISSING = "MISSING"

SIDES = {
    "server": "server",
    "client": "client, `read_message()` in a loop",
    "client-callback": "client, `on_message_callback`",
}

GROUPS = {
    1: "Framing",
    2: "Pings and pongs",
    3: "Reserved bits",
    4: "Opcodes",
    5: "Fragmentation",
    6: "UTF-8",
    7: "Closing handshake",
    9: "Large messages, many messages",
    10: "Automatic fragmentation",
    12: "Compression, kinds of payload",
    13: "Compression, parameters",
}


@dataclass(frozen=True)
class Verdict:
    """How one side did in one case."""

    side: str
    case: str
    behavior: str = MISSING
    closing: str = MISSING
    report: Path | None = None

    @property
    def passed(self) -> bool:
        allowed = {"OK", "INFORMATIONAL"} if self.case in INFORMATIONAL else {"OK"}
        return {self.behavior, self.closing} <= allowed

    @property
    def missing(self) -> bool:
        return self.behavior == MISSING

    @property
    def standing(self) -> str:
        """One word for the tables: the suite's word for the behaviour, or for the closing if only that was wrong."""
        only_closing = self.behavior in ("OK", "INFORMATIONAL") and not self.passed
        return self.closing if only_closing else self.behavior

    def detail(self) -> dict[str, Any]:
        """The suite's own account of the case; empty where it gave none."""
        try:
            told = json.loads(self.report.read_bytes()) if self.report else {}
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def explain(self) -> str:
        """What was asked for and what happened, for somebody who has to fix it."""
        wanted = "OK or INFORMATIONAL" if self.case in INFORMATIONAL else "OK"
        lines = [f"{self.side} {self.case}: behaviour {self.behavior}, closing {self.closing}; wanted {wanted}"]
        told = self.detail()
        closed = "no close code from the peer"
        if told.get("remoteCloseCode") is not None:
            closed = f"peer closed with {told['remoteCloseCode']} {told.get('remoteCloseReason') or ''}".rstrip()
        accounts = (
            ("case", told.get("description")),
            ("expected", told.get("expectation")),
            ("", f"events {told.get('expected')}" if told.get("expected") else None),
            ("got", told.get("result")),
            ("", f"events {told.get('received')}" if told.get("received") else None),
            ("closing", f"{told.get('resultClose')} ({closed}; {told.get('wasNotCleanReason') or 'clean'})"),
            ("report", self.report),
        )
        for label, account in accounts:
            if account is not None:
                lines.append(_indented(label, str(account)))
        return "\n".join(lines)


@dataclass
class Outcome:
    """One run of the suite: the verdict on every case asked for, and what went wrong around them."""

    side: str
    verdicts: list[Verdict]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.problems and all(verdict.passed for verdict in self.verdicts)


def judge(side: str, agent: str, cases: Sequence[str], reports: Path) -> list[Verdict]:
    """The verdict on each of ``cases``, whether or not the report in ``reports`` has it, and on no other case."""
    try:
        index = json.loads((reports / "index.json").read_bytes())
        reported = index.get(agent, {})
    except (OSError, ValueError):
        reported = {}
    return [_verdict(side, case, reported.get(case), reports) for case in cases]


def _verdict(side: str, case: str, entry: Mapping[str, Any] | None, reports: Path) -> Verdict:
    if entry is None:
        return Verdict(side, case)
    behavior, closing = str(entry.get("behavior", MISSING)), str(entry.get("behaviorClose", MISSING))
    return Verdict(side, case, behavior, closing, reports / str(entry.get("reportfile", "")))


def _indented(label: str, text: str) -> str:
    words = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())
    shown = textwrap.shorten(words, 600, placeholder=" ...") if " " in words else words[:600]
    return textwrap.fill(shown, 110, initial_indent=f"    {label:<9}", subsequent_indent=" " * 13)


def failures(outcomes: Iterable[Outcome]) -> str:
    """Everything that did not pass, or the empty string."""
    said = []
    for outcome in outcomes:
        said += [f"{outcome.side}: {problem}".rstrip() for problem in outcome.problems]
        said += [verdict.explain() for verdict in outcome.verdicts if not (verdict.passed or verdict.missing)]
        if missing := [verdict.case for verdict in outcome.verdicts if verdict.missing]:
            listed = textwrap.fill(" ".join(missing), 110, initial_indent="    ", subsequent_indent="    ")
            said.append(f"{outcome.side}: asked for and not in the suite's report:\n{listed}")
    return "\n\n".join(said)


def counts(outcomes: Iterable[Outcome]) -> dict[str, Counter[str]]:
    """How many cases of each side stand how."""
    counted: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counted.setdefault(outcome.side, Counter()).update(verdict.standing for verdict in outcome.verdicts)
    return counted


def summary(outcomes: Sequence[Outcome], versions: Mapping[str, str]) -> str:
    """The page of the project's documentation that says how all of it went."""
    verdicts = [verdict for outcome in outcomes for verdict in outcome.verdicts]
    asked = len({verdict.case for verdict in verdicts})
    counted = counts(outcomes)
    standings = ["OK", "INFORMATIONAL"]
    standings += sorted({standing for side in counted.values() for standing in side}.difference(standings))
    lines = [
        "# The Autobahn test suite",
        "",
        "<!-- Written by `make autobahn`: run it again instead of editing this page. -->",
        "",
        f"{asked} of the suite's {TOTAL} cases on each side, with permessage-deflate on and messages of up to "
        f"64 MiB, run {_when(outcomes)}.",
        "A case counts as OK when the suite calls both the behaviour and the closing behaviour OK.",
        f"{', '.join(sorted(INFORMATIONAL))} are INFORMATIONAL for every implementation.",
        "",
        _row("", *standings),
        _row("---", *("---:" for _ in standings)),
        *(_row(SIDES[side], *(str(counted[side][standing]) for standing in standings)) for side in counted),
        "",
        _row("group", "cases", *(SIDES[side] for side in counted)),
        _row("---", "---:", *("---:" for _ in counted)),
    ]
    for group, name in GROUPS.items():
        of_group = [verdict for verdict in verdicts if group_of(verdict.case) == group]
        passed = Counter(verdict.side for verdict in of_group if verdict.passed)
        total = len({verdict.case for verdict in of_group})
        lines.append(_row(f"{group} {name}", str(total), *(f"{passed[side]} passed" for side in counted)))
    lines += ["", _row("software", "version"), _row("---", "---")]
    lines += [_row(name, version) for name, version in {**versions, "autobahntestsuite": SUITE_VERSION}.items()]
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed:
        lines += ["", "## Not passed", "", _row("side", "case", "behaviour", "closing"), _row(*["---"] * 4)]
        lines += [_row(SIDES[bad.side], bad.case, bad.behavior, bad.closing) for bad in failed]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _when(outcomes: Iterable[Outcome]) -> str:
    # The last case of a run tells enough, and the reports of some cases are megabytes.
    started = (str(outcome.verdicts[-1].detail().get("started", ""))[:10] for outcome in outcomes if outcome.verdicts)
    days = sorted({day for day in started if day})
    if not days:
        return "on a day that no report tells"
    return f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
