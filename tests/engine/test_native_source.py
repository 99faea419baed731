"""What Cython makes wrong code of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tornado_ws

FILES = [path for path in sorted(Path(tornado_ws.__file__).parent.rglob("*.p[yx]*")) if path.suffix in (".pyx", ".pxi")]


def leaving(source: str) -> Iterator[str]:
    """Yield lines of ``source`` that leave a clause of an ``except`` other than by its end or an exception."""
    clause = -1
    for number, line in enumerate(source.splitlines(), 1):
        code = line.strip()
        if not code or code.startswith("#"):
            continue
        depth = len(line) - len(line.lstrip())
        if depth <= clause:
            clause = -1
        if clause < 0 and re.match(r"except\b.*:$", code):
            clause = depth
        elif clause >= 0 and re.match(r"(return|break|continue)\b", code):
            yield f"{number}: {code}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_except_clause_is_left_by_a_jump(path: Path) -> None:
    """Without memory for a traceback, Cython's code releases one that is not there, and crashes."""
    assert list(leaving(path.read_text())) == []


def test_jumps_are_found() -> None:
    source = "try:\n    f()\nexcept A:\n    if b:\n        return 1\nexcept B:\n    raise\nreturn 2\n"
    assert list(leaving(source)) == ["5: return 1"]
