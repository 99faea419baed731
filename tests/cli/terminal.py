"""A real terminal for tests: a pseudo-terminal that a program controls, and what its screen shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable
from fcntl import ioctl
from typing import Any

import pyte

from tests.programs import ROOT, environment
from tests.support import until

UP, CTRL_C, CTRL_D, ENTER = "\x1b[A", "\x03", "\x04", "\r"

_COLUMNS, _LINES = 100, 40

#: What the terminal makes of Ctrl-C is for the program whose terminal it is.
_TAKE_CONTROL = """
import fcntl, os, sys, termios
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class _Screen(pyte.Screen):
    """Answers what programs ask of a terminal, such as where the cursor is."""

    answer: Callable[[bytes], object]

    def write_process_input(self, data: str) -> None:
        self.answer(data.encode())


class Terminal:
    """The terminal of a program."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = descriptor
        self.process = process
        #: All that the program has written.
        self.written = b""
        self._screen = _Screen(_COLUMNS, _LINES)
        self._screen.answer = lambda data: os.write(descriptor, data)
        self._stream = pyte.ByteStream(self._screen)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            # The program has let go of it.
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self.written += data
        self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        """The lines of the screen that are not empty."""
        return [line for line in map(str.rstrip, self._screen.display) if line]

    @property
    def letters(self) -> list[list[tuple[str, str]]]:
        """The letters of those lines, each with its colour."""
        shown = zip(self._screen.display, range(_LINES), strict=False)
        return [
            [(letter.data, letter.fg) for letter in (self._screen.buffer[number][x] for x in range(len(line.rstrip())))]
            for line, number in shown
            if line.rstrip()
        ]

    def colour_of(self, text: str) -> str:
        """Return the colour of the last letter of ``text`` where the screen shows it first."""
        for number, line in enumerate(self._screen.display):
            if text in line:
                return str(self._screen.buffer[number][line.index(text) + len(text) - 1].fg)
        raise AssertionError(f"{text!r} is not in {self.lines}")

    @property
    def title(self) -> str:
        return str(self._screen.title)

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    async def shows(self, text: str) -> None:
        """Wait until a line of the screen has ``text``."""
        try:
            await until(lambda: any(text in line for line in self.lines))
        except AssertionError:
            raise AssertionError(f"{text!r} is not shown: {self.lines}; {self.written!r}") from None

    async def ends(self) -> int:
        """Wait until the program ends, and return its exit status."""
        try:
            await until(lambda: self.process.poll() is not None)
        except AssertionError:
            raise AssertionError(f"it goes on: {self.lines}") from None
        return int(self.process.returncode)

    def resize(self, columns: int, lines: int) -> None:
        self._screen.resize(lines, columns)
        _set_size(self._descriptor, columns, lines)
        self.process.send_signal(signal.SIGWINCH)

    def echoes(self) -> bool:
        """Whether the terminal itself shows what is typed, as it does for a shell."""
        return bool(termios.tcgetattr(self._descriptor)[3] & termios.ECHO)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)


@contextlib.asynccontextmanager
async def running(*command: str, stdin: Any = None, **changes: str) -> AsyncIterator[Terminal]:
    """Run ``command`` in a terminal, with ``changes`` of the environment."""
    ours, its = pty.openpty()
    _set_size(its, _COLUMNS, _LINES)
    changes = {"TERM": "xterm-256color", "COLUMNS": "", "LINES": "", **changes}
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKE_CONTROL, *command],
        stdin=its if stdin is None else stdin,
        stdout=its,
        stderr=its,
        cwd=ROOT,
        env=environment(**changes),
        start_new_session=True,
    )
    os.close(its)
    terminal = Terminal(ours, process)
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        terminal.close()


def _set_size(descriptor: int, columns: int, lines: int) -> None:
    ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
