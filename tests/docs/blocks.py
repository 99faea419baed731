"""The blocks of code in a page, and the comments that say how they are run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.programs import ROOT

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)

#: The language of Python that no reader sees.
HIDDEN = "hidden"

_FENCE = re.compile(r"^( *)```([^`]*)$")
_MARK = re.compile(r"^<!-- test: (not run|file|until) *:? *(.+?) -->$")
_HIDDEN = "<!-- test"


class Block(NamedTuple):
    page: Path
    #: Of its first line of code, from 1.
    line: int
    language: str
    code: str
    #: The mark in front of it: "not run" and why, "file" and its name, "until" and an expression.
    mark: str = ""
    argument: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of ``page`` in order, hidden ones too. Raises ValueError for a comment that means nothing."""
    return list(parsed(page, page.read_text()))


def parsed(page: Path, text: str) -> Iterator[Block]:
    lines = iter(enumerate(text.splitlines(), 1))
    mark = argument = ""
    for number, line in lines:
        if fence := _FENCE.match(line):
            indent, language = fence.groups()
            code = _until(lines, f"{indent}```", f"{page}:{number}", len(indent))
            yield Block(page, number + 1, language, code, mark, argument)
            mark = argument = ""
        elif line == _HIDDEN:
            yield Block(page, number + 1, HIDDEN, _until(lines, "-->", f"{page}:{number}"))
        elif found := _MARK.match(line):
            mark, argument = found.groups()
        elif line.startswith(_HIDDEN):
            raise ValueError(f"{page}:{number}: {line!r} is no comment for the tests (CONTRIBUTING.md has them)")
        elif line and mark:
            raise ValueError(f"{page}:{number}: no block follows the comment '{mark}'")
    if mark:
        raise ValueError(f"{page}: no block follows the comment '{mark}'")


def _until(lines: Iterator[tuple[int, str]], end: str, place: str, indent: int = 0) -> str:
    code: list[str] = []
    for _, line in lines:
        if line == end:
            return "\n".join([*code, ""])
        code.append(line[indent:])
    raise ValueError(f"{place}: nothing ends what begins here")
