"""How to measure, and what a measurement is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.tools import Tools

#: Seconds beside the time that is measured: connecting, or a machine that does something else.
SLACK = 60.0


@dataclass(frozen=True)
class Setup:
    """How to measure."""

    tools: Tools
    tested_core: int
    load_core: int
    warmup: float
    seconds: float


@dataclass(frozen=True)
class Measured:
    """``about`` is what the program said of itself: versions, engine."""

    figures: dict[str, float]
    about: dict[str, Any]
