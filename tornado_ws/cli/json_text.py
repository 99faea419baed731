"""JSON as text: indented or on one line, and in nothing else changed.

Numbers keep their digits, and objects all their members, which Python's own values do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')

#: Steps of indentation, at most: what is nested deeper would take more room for spaces than for itself.
_MOST_STEPS = 40

#: A token or white space, and what it is: "key", "string", "number", "constant" or "".
Piece = tuple[str, str]


def is_json(text: str) -> bool:
    """Whether ``text`` is a JSON text (RFC 8259) that Python can read."""
    try:
        json.loads(text, parse_constant=_refuse, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def compact(text: str) -> str:
    """Return JSON on one line, without white space between its tokens."""
    return "".join(_TOKEN.findall(text))


def indented(text: str) -> Iterator[Piece]:
    """Yield JSON in pieces, over as many lines as it has values."""
    tokens = _TOKEN.findall(text)
    depth = 0
    for index, token in enumerate(tokens):
        before, after = tokens[index - 1] if index else "", tokens[index + 1] if index + 1 < len(tokens) else ""
        if token in "]}":
            depth -= 1
            if before not in "[{":
                yield _line(depth)
        yield token, _kind(token, after)
        if token in "[{":
            depth += 1
            if after not in "]}":
                yield _line(depth)
        elif token == ",":
            yield _line(depth)
        elif token == ":":
            yield " ", ""


def _line(depth: int) -> Piece:
    return "\n" + "  " * min(depth, _MOST_STEPS), ""


def _kind(token: str, after: str) -> str:
    if token[0] == '"':
        return "key" if after == ":" else "string"
    if token in "[]{},:":
        return ""
    return "number" if token[0] in "-0123456789" else "constant"
