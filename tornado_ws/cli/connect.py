"""``connect URL``: talk to a server."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tornado_ws.cli import statuses
from tornado_ws.cli.connecting import CONNECT_ERRORS, connect_arguments, status_of, words
from tornado_ws.cli.display import Display, LineDisplay, TerminalDisplay, is_dumb, paint, warn
from tornado_ws.cli.entries import HELP, Entry, Help, Message, from_hex, typed
from tornado_ws.cli.interrupts import run_to_end
from tornado_ws.cli.lines import Writer, read_lines, writing
from tornado_ws.cli.log_lines import log_shown
from tornado_ws.cli.session import Session
from tornado_ws.client.connect import websocket_connect
from tornado_ws.client.connection import WebSocketClientConnection
from tornado_ws.client.reconnect import reconnect
from tornado_ws.escaping import shown

if TYPE_CHECKING:
    from tornado_ws.cli.prompt import Prompt

_STDIN, _STDOUT = 0, 1


def main(options: argparse.Namespace) -> int:
    """Converse with the server; returns the exit status."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    is_interactive = os.isatty(_STDIN) and os.isatty(_STDOUT)
    conversation = _Conversation(options, connect_arguments(options))
    work = conversation.typed() if is_interactive else conversation.piped()
    status = await run_to_end(work, conversation.stop)
    # A person has no other way to end it; a program was not waited for.
    return status if is_interactive or conversation.stopped_by is None else statuses.of_signal(conversation.stopped_by)


class _Conversation:
    """The parts of a conversation, put together for a person or for a program."""

    def __init__(self, options: argparse.Namespace, arguments: dict[str, Any]) -> None:
        self._options = options
        self._arguments = arguments
        self._session: Session | None = None
        #: The number of the signal that has ended it.
        self.stopped_by: int | None = None

    def stop(self, number: int) -> None:
        self.stopped_by = number
        if self._session is not None:
            self._session.close()

    async def piped(self) -> int:
        """Send the lines of the input, and show what comes as lines, unless a terminal shows it."""
        options = self._options
        async with writing(_STDOUT) as out:
            display: Display = LineDisplay(out, options.json, options.verbose)
            if os.isatty(_STDOUT):
                display = TerminalDisplay(out, paint(), options.json)
            async with self._begun(display) as session:
                work = session.run(_piped(options.binary), options.wait)
                return await self._told(_while_output_lasts(work, out), display)

    async def typed(self) -> int:
        """Send what is typed, and show what comes above it."""
        prompt = _prompt()
        async with writing(_STDOUT) if prompt is None else contextlib.nullcontext(prompt) as output:
            display = TerminalDisplay(output, paint(), self._options.json)
            async with self._begun(display) as session:
                lines = _decoded() if prompt is None else prompt.lines()
                status = await self._told(session.run(_typed(session, lines, display), None), display)
            await display.room()
            return status

    @contextlib.asynccontextmanager
    async def _begun(self, display: Display) -> AsyncIterator[Session]:
        connections = reconnect(**self._arguments) if self._options.reconnect else _once(self._arguments)
        # Attempts to connect again are told at INFO.
        level = logging.INFO if self._options.reconnect else logging.WARNING
        with log_shown(display.note, display.problem, level):
            async with contextlib.aclosing(connections):  # type: ignore[type-var]
                self._session = Session(connections, display, self._options.verbose)
                yield self._session

    async def _told(self, work: Coroutine[Any, Any, int], display: Display) -> int:
        try:
            return await work
        except CONNECT_ERRORS as error:
            display.problem(words(self._options.url, error))
            return status_of(error)


def _prompt() -> Prompt | None:
    if is_dumb():
        return None
    try:
        from tornado_ws.cli.prompt import Prompt
    except ImportError:
        warn("no history and no editing of lines without prompt-toolkit: pip install 'tornado_ws[cli]'")
        return None
    return Prompt()


async def _once(arguments: dict[str, Any]) -> AsyncIterator[WebSocketClientConnection]:
    async with websocket_connect(**arguments) as conn:
        yield conn


async def _while_output_lasts(work: Coroutine[Any, Any, int], out: Writer) -> int:
    """Do ``work``, or end it when its output cannot be written, also if it has no more of it."""
    working, failing = asyncio.ensure_future(work), asyncio.ensure_future(out.failed())
    try:
        await asyncio.wait({working, failing}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            failing.result()
        return await working
    finally:
        for task in (working, failing):
            task.cancel()
        await asyncio.gather(working, failing, return_exceptions=True)


async def _typed(session: Session, lines: AsyncIterator[str], display: TerminalDisplay) -> AsyncIterator[Entry]:
    await session.connected()
    display.help("* /help shows what else can be typed; Ctrl-D closes")
    async for line in lines:
        try:
            entry = typed(line)
        except ValueError as error:
            display.problem(str(error))
            continue
        if isinstance(entry, Help):
            display.help(HELP)
        elif entry is not None:
            yield entry


async def _decoded() -> AsyncIterator[str]:
    async for line in read_lines(_STDIN):
        yield line.decode(errors="replace")


async def _piped(is_hex: bool) -> AsyncIterator[Entry]:
    decode: Callable[[str], str | bytes] = from_hex if is_hex else str
    number = 0
    async for line in read_lines(_STDIN):
        number += 1
        try:
            yield Message(decode(line.decode()))
        except UnicodeDecodeError:
            raise ValueError(f"line {number} of the input is {shown(line, 40)}; it has to be UTF-8") from None
        except ValueError as error:
            raise ValueError(f"line {number} of the input: {error}") from None
