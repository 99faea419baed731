"""A conversation of ``tornado-ws connect`` in a real terminal, as a page."""

from __future__ import annotations

import html
import tempfile

from tests.cli.commands import PROGRAM
from tests.cli.terminal import CTRL_D, running
from tests.support import Echo, serving

_TYPED = (
    ("hello", "< hello"),
    ('{"id": 7, "tags": ["a", "b"]}', '"b"'),
    ("/ping", "* pong after"),
    ("/binary 00ff 74657874", "< 6 bytes"),
    ("/close 4000 enough", "* closed"),
)
#: Of those that a terminal names.
_COLOURS = {
    "default": "#d8dee9",
    "blue": "#81a1c1",
    "brown": "#ebcb8b",
    "cyan": "#88c0d0",
    "green": "#a3be8c",
    "magenta": "#b48ead",
}


async def conversation() -> str:
    """Have it, and return the page."""
    with tempfile.TemporaryDirectory() as state:
        settings = {"XDG_STATE_HOME": state, "NO_COLOR": ""}
        async with serving(Echo) as url, running(*PROGRAM, "connect", url, "--json", **settings) as terminal:
            await terminal.shows("Ctrl-D closes")
            for text, shown in _TYPED:
                terminal.type(text + "\r")
                await terminal.shows(shown)
            letters = terminal.letters
            terminal.type(CTRL_D)
            await terminal.ends()
    command = [[(letter, "default") for letter in f"$ tornado-ws connect {url} --json"]]
    lines = "\n".join("".join(map(_letter, line)) for line in command + letters)
    return (
        "<!doctype html><meta charset=utf-8><style>body { margin: 0; padding: 14px; background: #2e3440; "
        f"font: 15px/1.35 monospace }}</style><pre style='margin: 0; color: {_COLOURS['default']}'>{lines}</pre>"
    )


def _letter(letter: tuple[str, str]) -> str:
    text, colour = letter
    return f"<span style='color: {_COLOURS.get(colour, colour)}'>{html.escape(text)}</span>"
