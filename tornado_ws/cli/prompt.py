"""A line that is edited at the bottom of the terminal, while what comes is shown above it: prompt-toolkit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from tornado_ws.cli.display import encoded, escaped


class Prompt:
    """Asks for lines, and is an output beside that: what is put appears above the line that is being typed."""

    def __init__(self) -> None:
        self._session: PromptSession[str] = PromptSession(history=history(), reserve_space_for_menu=0)
        # Or an empty one would stay at the end, below what came last. What was entered is shown again.
        self._session.app.erase_when_done = True
        self._waiting: list[bytes] = []
        self._showing: asyncio.Future[None] | None = None

    async def lines(self) -> AsyncIterator[str]:
        """Yield each line, until Ctrl-D or Ctrl-C."""
        while True:
            try:
                # Signals are for the command.
                line = await self._session.prompt_async("> ", handle_sigint=False, set_exception_handler=False)
            except (EOFError, KeyboardInterrupt):
                return
            _write(encoded(f"> {escaped(line)}\n"))
            yield line

    @property
    def is_full(self) -> bool:
        return False

    def put(self, data: bytes) -> None:
        self._waiting.append(data)
        if self._showing is None or self._showing.done():
            self._showing = asyncio.ensure_future(self._show())

    def allow_more(self) -> None:
        pass

    async def room(self) -> None:
        """Wait until all that was put is shown."""
        if self._showing is not None:
            await asyncio.shield(self._showing)

    async def _show(self) -> None:
        while self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            await run_in_terminal(functools.partial(_write, data))


def _write(data: bytes) -> None:
    # A terminal that has gone away ends this process by a signal.
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def history() -> History:
    """Return what was typed before: in a file for this user alone, or in memory where there can be none."""
    path = history_path()
    try:
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()
    return _KeptHistory(str(path))


def history_path() -> Path:
    """Return the path of the file, by the XDG Base Directory Specification, which ignores what is relative."""
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    state = given if given.is_absolute() else Path(os.path.expanduser("~"), ".local", "state")
    return state / "tornado_ws" / "history"


class _KeptHistory(FileHistory):
    """A file that cannot be read or written any more is no reason to end a conversation."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        # A ValueError is for what has no UTF-8, which is not sent either.
        with contextlib.suppress(OSError, ValueError):
            super().store_string(string)
