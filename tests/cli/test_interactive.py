"""``connect`` in a real terminal, with prompt-toolkit and rich, and without them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import PROGRAM, abort, hiding
from tests.cli.terminal import CTRL_C, CTRL_D, UP, Terminal, running
from tests.support import Echo, serving, until
from tornado_ws import WebSocketHandler

#: What a server sends that wants to have the terminal do something: change its title, clear it, give an answer that is
#: then input, turn the text around.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[6n\x9b31m\u202etxt\x7f\rfake"


class Ends(Echo):
    """Echoes, and remembers how connections have ended."""

    def initialize(self, calls: list[Any]) -> None:
        self.calls = calls

    def on_close(self) -> None:
        self.calls.append((self.close_code, self.close_reason))


@pytest.fixture(params=["prompt-toolkit", "without", "dumb"])
def setup(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of the program: with all that the extra has, without it, and in a terminal that knows nothing."""
    if request.param == "without":
        hidden = tmp_path / "hidden"
        hidden.mkdir()
        return {"PYTHONPATH": hiding(hidden, "prompt_toolkit", "rich")}
    return {"TERM": "dumb"} if request.param == "dumb" else {}


@contextlib.asynccontextmanager
async def connected(url: str, folder: Path, *arguments: str, **changes: str) -> AsyncIterator[Terminal]:
    changes = {"XDG_STATE_HOME": str(folder), "NO_COLOR": "", **changes}
    async with running(*PROGRAM, "connect", url, *arguments, **changes) as terminal:
        await terminal.shows("Ctrl-D closes")
        yield terminal


@pytest.mark.gen_test
async def test_a_conversation(setup: dict[str, str], tmp_path: Path) -> None:
    calls: list[Any] = []
    async with serving(Ends, calls=calls) as url, connected(url, tmp_path, "--json", **setup) as terminal:
        for text, shown in (
            ("hello", "< hello"),
            ('{"a": [1.50, {}]}', "      1.50,"),
            ("//close", "< /close"),
            ("/ping abc", "* pong b'abc' after "),
            ("/binary 00 ff 41", "  0000  00 ff 41                                         ..A"),
            ("/ping " + "x" * 126, "! "),
            ("/close 1005", "! close code 1005 may not be sent; allowed are"),
            ("/close x", "! /close got the code 'x'; it has to be a number"),
            ("/binary 0", "! '0' is not hexadecimal; it has to be two digits"),
            ("/nothing", "! no command '/nothing'; there are /binary, /close, /help, /ping, and //"),
            ("/help", "* /close CODE REASON   closes"),
            ("", "* /help"),
        ):
            terminal.type(text + "\r")
            await terminal.shows(shown)
        terminal.type("/close 4000 enough\r")
        assert await terminal.ends() == 0
        await until(lambda: calls)
    assert calls == [(4000, "enough")]
    await terminal.shows("* closed with 4000")


@pytest.mark.gen_test
@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
async def test_a_key_closes_with_a_closing_handshake(key: str, setup: dict[str, str], tmp_path: Path) -> None:
    calls: list[Any] = []
    async with serving(Ends, calls=calls) as url, connected(url, tmp_path, **setup) as terminal:
        terminal.type("a\r")
        await terminal.shows("< a")
        terminal.type(key)
        assert await terminal.ends() == 0
        await until(lambda: calls)
        assert calls == [(1000, None)]
        await terminal.shows("* closed with 1000")
        assert terminal.echoes()
        assert "Traceback" not in "\n".join(terminal.lines)


class Hostile(WebSocketHandler):
    def open(self) -> None:
        self.write_message(HOSTILE + "\n< faked entry")
        self.write_message(HOSTILE.encode())
        self.write_message('{"' + HOSTILE.replace("\x1b", "\\u001b").replace("\x07", "").replace("\r", "") + '": 1}')
        self.ping(HOSTILE.encode())

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return subprotocols[0]

    def on_message(self, message: str | bytes) -> None:
        self.close(4001, HOSTILE)


@pytest.mark.gen_test
async def test_a_server_does_not_control_the_terminal(setup: dict[str, str], tmp_path: Path) -> None:
    arguments = ["--subprotocol", "chat", "--json", "-v"]
    async with serving(Hostile) as url, connected(url, tmp_path, *arguments, **setup) as terminal:
        await terminal.shows("subprotocol chat")
        await terminal.shows("* Upgrade: websocket")
        await terminal.shows(r"< \x1b]0;owned\x07\x1b[2J\x1b[6n\x9b31m\u202etxt\x7f\rfake")
        await terminal.shows("  < faked entry")
        await terminal.shows("* ping b")
        terminal.type("end\r")
        assert await terminal.ends() == 5
        await terminal.shows(r"closed with 4001: \x1b]0;owned\x07\x1b[2J")
        assert terminal.title == ""
        for raw in ("\x1b]0", "\x1b[2J", "\u202e", "\x7f", "\x9b"):
            assert raw.encode() not in terminal.written, raw
        assert not any(line.startswith("< faked") for line in terminal.lines)


@pytest.mark.gen_test
async def test_history_is_recalled_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with serving(Echo) as url:
        async with connected(url, folder) as terminal:
            terminal.type("first\r")
            await terminal.shows("< first")
            terminal.type(CTRL_D)
            assert await terminal.ends() == 0
        async with connected(url, folder) as terminal:
            terminal.type(UP + "!\r")
            await terminal.shows("< first!")
    path = folder / "tornado_ws" / "history"
    assert "+first!" in path.read_text()
    assert [stat.S_IMODE(one.stat().st_mode) for one in (folder, path.parent, path)] == [0o700, 0o700, 0o600]


@pytest.mark.gen_test
async def test_without_a_place_for_history_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with serving(Echo) as url, connected(url, tmp_path / "file") as terminal:
        terminal.type("first\r")
        await terminal.shows("< first")
        terminal.type(UP + "!\r")
        await terminal.shows("< first!")


@pytest.mark.gen_test
async def test_colours_are_there_unless_they_are_not_wanted(tmp_path: Path) -> None:
    async with serving(Echo) as url:
        for changes, colours in (({}, ["cyan", "blue"]), ({"NO_COLOR": "1"}, ["default"] * 2)):
            async with connected(url, tmp_path, "--json", **changes) as terminal:
                terminal.type('{"a": 1}\r')
                await terminal.shows('    "a": 1')
                assert [terminal.colour_of("<"), terminal.colour_of('  "a"')] == colours
        async with connected(url, tmp_path, TERM="dumb") as terminal:
            terminal.type("text\r")
            await terminal.shows("< text")
            assert b"\x1b" not in terminal.written


@pytest.mark.gen_test
async def test_what_is_typed_stays_below_what_comes_and_may_be_resized(tmp_path: Path) -> None:
    handlers: list[WebSocketHandler] = []

    class Talks(Echo):
        def open(self) -> None:
            handlers.append(self)

    async with serving(Talks) as url, connected(url, tmp_path) as terminal:
        terminal.type("half")
        await terminal.shows("> half")
        handlers[0].write_message("news")
        await terminal.shows("< news")
        await until(lambda: terminal.lines[-1] == "> half")
        terminal.resize(30, 20)
        terminal.type(" and " + "w" * 40 + "\r")
        await terminal.shows("< half and ww")
        handlers[0].close(1001, "bye")
        assert await terminal.ends() == 0
        await until(lambda: terminal.lines[-1] == "* closed with 1001: bye")


@pytest.mark.gen_test
async def test_the_server_is_gone(setup: dict[str, str], tmp_path: Path) -> None:
    class Vanishes(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            abort(self)

    async with serving(Vanishes) as url, connected(url, tmp_path, **setup) as terminal:
        terminal.type("go\r")
        assert await terminal.ends() == 6
        await terminal.shows("! connection closed with 1006")
        assert terminal.echoes()


@pytest.mark.gen_test
async def test_without_the_extra_it_says_what_is_missing(tmp_path: Path) -> None:
    path = hiding(tmp_path, "prompt_toolkit", "rich")
    async with serving(Echo) as url, connected(url, tmp_path, PYTHONPATH=path) as terminal:
        await terminal.shows("pip install 'tornado_ws[cli]'")


@pytest.mark.gen_test
async def test_piped_input_is_shown_in_a_terminal(tmp_path: Path) -> None:
    class Says(Echo):
        def on_message(self, message: str | bytes) -> Any:
            return self.write_message(HOSTILE)

    reader, writer = os.pipe()
    os.write(writer, b"a\n")
    os.close(writer)
    async with serving(Says) as url, running(*PROGRAM, "connect", url, stdin=reader, NO_COLOR="") as terminal:
        os.close(reader)
        await terminal.shows(r"< \x1b]0;owned")
        assert await terminal.ends() == 0
        assert terminal.title == ""
