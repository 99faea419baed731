"""Coverage-guided fuzzing: each target is a module with ``check(data)``, which raises AssertionError on a difference.

A target needs no fuzzer, so tests/test_fuzz_corpus.py replays the corpus without one. ``python -m fuzz`` runs them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

TARGETS = ("reader", "oracles", "streams", "channel", "client", "headers", "responses", "urls")
CORPUS = Path(__file__).parent / "corpus"


def is_named_by_content(path: Path) -> bool:
    """Whether the fuzzer has named it so: it may be replaced by others that reach as much."""
    return path.name == hashlib.sha1(path.read_bytes()).hexdigest()
