"""What a typed line means: text to send, or a command."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

from tornado_ws.escaping import shown

HELP = """\
* a line               is sent as text; to send one that begins with /, type // in its place
* /binary 0aff         sends a binary message, in hexadecimal digits
* /ping TEXT           sends a ping, with at most 125 bytes
* /close CODE REASON   closes the connection; by default with 1000 and no reason
* /help                shows this
* Ctrl-D or Ctrl-C     closes the connection, and ends"""

_COMMANDS = ("/binary", "/close", "/help", "/ping")


class Message(NamedTuple):
    data: str | bytes


class Ping(NamedTuple):
    data: str


class Close(NamedTuple):
    code: int
    reason: str | None


class Help(NamedTuple):
    pass


Entry: TypeAlias = "Message | Ping | Close | Help"


def typed(line: str) -> Entry | None:
    """Return what was typed; None for an empty line. Raises ValueError for what is no command."""
    if not line.startswith("/"):
        return Message(line) if line else None
    if line.startswith("//"):
        return Message(line[1:])
    command, _, rest = line.partition(" ")
    if command == "/binary":
        return Message(from_hex(rest))
    if command == "/ping":
        return Ping(rest)
    if command == "/close":
        code, _, reason = rest.strip().partition(" ")
        if not re.fullmatch("[0-9]{0,9}", code):
            raise ValueError(f"/close got the code {shown(code)}; it has to be a number, 1000 for example")
        return Close(int(code or 1000), reason or None)
    if command == "/help":
        return Help()
    raise ValueError(
        f"no command {shown(command)}; there are {', '.join(_COMMANDS)}, and // for text that begins with /"
    )


def from_hex(text: str) -> bytes:
    """Return bytes from their hexadecimal digits. Raises ValueError for anything else; spaces between bytes may be."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not hexadecimal; it has to be two digits 0-9, a-f for each byte") from None
