"""What is shown of what a peer says, in a terminal and as lines."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_ws.cli.display import LineDisplay, TerminalDisplay, json_line, warn
from tornado_ws.cli.json_text import compact, indented, is_json
from tornado_ws.cli.lines import MOST, read_lines
from tornado_ws.cli.log_lines import log_shown

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Kept:
    """An output that keeps what it gets."""

    is_full = False

    def __init__(self) -> None:
        self.text = ""

    def put(self, data: bytes) -> None:
        self.text += data.decode()

    def allow_more(self) -> None:
        pass

    async def room(self) -> None:
        pass


def shown(message: str | bytes, write_json: bool = False) -> str:
    kept = Kept()
    TerminalDisplay(kept, lambda segments: "".join(text for text, _ in segments), write_json).message(message)
    return kept.text


@given(st.text() | st.binary(), st.booleans())
def test_no_message_controls_a_terminal_or_looks_like_another_entry(message: str | bytes, write_json: bool) -> None:
    first, *others = shown(message, write_json).removesuffix("\n").split("\n")
    assert first.startswith("< ")
    assert all(line.startswith("  ") for line in others)
    assert all(line.isprintable() for line in (first, *others))


def test_long_binary_messages_are_cut() -> None:
    lines = shown(bytes(5000)).splitlines()
    assert lines[0] == "< 5000 bytes, the first 4096:"
    assert len(lines) == 1 + 4096 // 16
    assert shown(b"") == "< 0 bytes\n"


@given(_VALUES, st.sampled_from([None, 3]), st.booleans())
def test_json_keeps_its_meaning(value: Any, indent: int | None, as_ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=as_ascii)
    assert is_json(text)
    assert json.loads(compact(text)) == value
    assert json.loads("".join(piece for piece, _ in indented(text))) == value
    assert "\n" not in compact(text)


@given(st.text())
def test_what_is_no_json_becomes_a_string(text: str) -> None:
    line = json_line(text)
    assert "\n" not in line
    if not is_json(text):
        assert json.loads(line) == text


@pytest.mark.parametrize("text", ["", "NaN", "[1,]", "{'a': 1}", "[" * 200_000, "1 2"])
def test_what_is_no_json(text: str) -> None:
    assert not is_json(text)


def test_json_that_is_nested_deeply_takes_little_room() -> None:
    depth = 300
    text = "[" * depth + "1" + "]" * depth
    assert is_json(text)
    assert len("".join(piece for piece, _ in indented(text))) < 100 * 2 * depth


def test_numbers_and_members_stay_as_they_are() -> None:
    assert compact('{"a" : 1.50, "a": 1e400,\n"b":"\\" , "}') == '{"a":1.50,"a":1e400,"b":"\\" , "}'
    assert "".join(piece for piece, _ in indented('{"a":[],"b":{}}')) == '{\n  "a": [],\n  "b": {}\n}'


def test_what_is_logged_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("tornado.general")
    notes: list[str] = []
    with log_shown(notes.append, warn, logging.INFO):
        logger.warning("GET /%s", "\x1b[2J\u202e")
        logger.info("an attempt")
        logger.debug("nothing")
    assert capsys.readouterr().err == "tornado_ws: GET /\\x1b[2J\\u202e\n"
    assert notes == ["an attempt"]


def test_lines_for_programs_have_no_notes(capsys: pytest.CaptureFixture[str]) -> None:
    kept = Kept()
    display = LineDisplay(kept, write_json=False, is_verbose=False)
    display.note("connected")
    display.message("\x1b[2J")
    display.problem("\x1b[2J")
    assert kept.text == "\x1b[2J\n"
    assert capsys.readouterr().err == "tornado_ws: \\x1b[2J\n"


def test_a_line_without_an_end_is_refused() -> None:
    async def read() -> None:
        descriptor = os.open("/dev/zero", os.O_RDONLY)
        try:
            async for _ in read_lines(descriptor):
                pass
        finally:
            os.close(descriptor)

    with pytest.raises(ValueError, match=f"a line of the input has 67.* bytes or more; allowed are {MOST}"):
        asyncio.run(read())
