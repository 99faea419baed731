"""What is shown: to a person in a terminal, or as lines to another program."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

from tornado_ws.cli.json_text import compact, indented, is_json
from tornado_ws.escaping import plain

#: A piece of text, which has nothing in it that controls a terminal but line ends, and the name of its style.
Segment = tuple[str, str]

Paint = Callable[[list[Segment]], str]

#: Characters of an entry beyond which it has no colours: they take time, in which nothing else happens.
_MOST_PAINTED = 20_000

#: Bytes of a binary message that are shown in a terminal.
_MOST_BYTES = 4096

_BYTES_PER_ROW = 16

_STYLES = {
    "mark": "bold cyan",
    "note": "dim",
    "problem": "bold red",
    "key": "blue",
    "string": "green",
    "number": "magenta",
    "constant": "yellow",
}


class Output(Protocol):
    """Where a display puts what it shows."""

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nothing should be added that can be left out."""

    def put(self, data: bytes) -> None: ...

    def allow_more(self) -> None:
        """Have more room: what is to come is the end of it, and has to be taken at once."""

    async def room(self) -> None: ...


class Display(Protocol):
    """What the commands show."""

    def message(self, message: str | bytes) -> None: ...

    def note(self, text: str) -> None:
        """Tell what happened."""

    def problem(self, text: str) -> None:
        """Tell what went wrong."""

    def allow_more(self) -> None: ...

    async def room(self) -> None:
        """Wait until there is room for more. Raises `OutputError` when what is shown cannot be written."""


def escaped(text: str) -> str:
    """Return all of ``text`` with what is not printable escaped: what a peer says must not control a terminal."""
    return plain(text, len(text))


def encoded(text: str) -> bytes:
    """Return ``text`` in the encoding of the terminal; letters that this does not have are escaped."""
    return text.encode(sys.stdout.encoding or "utf-8", "backslashreplace")


def warn(text: str) -> None:
    """Print a line for people on standard error."""
    print(f"tornado_ws: {escaped(text)}", file=sys.stderr, flush=True)


class TerminalDisplay:
    """For a person.

    :param write_json: whether JSON is shown indented.
    """

    def __init__(self, output: Output, paint: Paint, write_json: bool) -> None:
        self._output = output
        self._paint = paint
        self._write_json = write_json

    def message(self, message: str | bytes) -> None:
        self._put([("< ", "mark"), *self._segments(message)])

    def note(self, text: str) -> None:
        if not self._output.is_full:
            self._put([(f"* {escaped(text)}", "note")])

    def problem(self, text: str) -> None:
        self._put([(f"! {escaped(text)}", "problem")])

    def help(self, text: str) -> None:
        """Show lines of our own."""
        self._put([(text, "note")])

    def allow_more(self) -> None:
        self._output.allow_more()

    async def room(self) -> None:
        await self._output.room()

    def _segments(self, message: str | bytes) -> Iterator[Segment]:
        if isinstance(message, bytes):
            yield "\n  ".join(_rows(message)), ""
        elif self._write_json and is_json(message):
            for piece, kind in indented(message):
                yield (piece.replace("\n", "\n  "), "") if piece.isspace() else (escaped(piece), kind)
        else:
            # Lines behind the first are indented, or a server could make them look like other entries.
            yield "\n  ".join(map(escaped, message.split("\n"))), ""

    def _put(self, segments: list[Segment]) -> None:
        self._output.put(encoded(self._paint(segments) + "\n"))


def _rows(data: bytes) -> Iterator[str]:
    yield f"{len(data)} bytes" + (f", the first {_MOST_BYTES}:" if len(data) > _MOST_BYTES else ":" if data else "")
    for start in range(0, min(len(data), _MOST_BYTES), _BYTES_PER_ROW):
        row = data[start : start + _BYTES_PER_ROW]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{start:04x}  {row.hex(' '):{_BYTES_PER_ROW * 3}} {letters}"


class LineDisplay:
    """For another program: a line for each message, and everything else on standard error.

    :param write_json: whether a line is always one JSON value.
    """

    def __init__(self, output: Output, write_json: bool, is_verbose: bool) -> None:
        self._output = output
        self._line = json_line if write_json else text_line
        self._is_verbose = is_verbose

    def message(self, message: str | bytes) -> None:
        self._output.put(self._line(message).encode() + b"\n")

    def note(self, text: str) -> None:
        if self._is_verbose:
            warn(text)

    def problem(self, text: str) -> None:
        warn(text)

    def allow_more(self) -> None:
        self._output.allow_more()

    async def room(self) -> None:
        await self._output.room()


def text_line(message: str | bytes) -> str:
    """Return text as it is, and the hexadecimal digits of a binary message."""
    return message if isinstance(message, str) else message.hex()


def json_line(message: str | bytes) -> str:
    """Return JSON on one line, other text as a JSON string, and a binary message as ``{"binary":"0aff"}``."""
    if isinstance(message, bytes):
        return f'{{"binary":"{message.hex()}"}}'
    return compact(message) if is_json(message) else json.dumps(message, ensure_ascii=False)


def is_dumb() -> bool:
    """Whether the terminal knows no escape sequences."""
    return os.environ.get("TERM", "dumb" if os.name == "posix" else "").lower() in ("dumb", "unknown")


def paint() -> Paint:
    """Return what gives text its colours: nothing, without rich and where ``NO_COLOR`` or ``TERM`` says so."""
    if os.environ.get("NO_COLOR") or is_dumb():
        return _without_colours
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return _without_colours
    console = Console(highlight=False)

    def with_colours(segments: list[Segment]) -> str:
        if sum(len(text) for text, _ in segments) > _MOST_PAINTED:
            return _without_colours(segments)
        with console.capture() as capture:
            text = Text.assemble(*((text, _STYLES.get(style, "")) for text, style in segments))
            console.print(text, soft_wrap=True, end="")
        return capture.get()

    return with_colours


def _without_colours(segments: list[Segment]) -> str:
    return "".join(text for text, _ in segments)
