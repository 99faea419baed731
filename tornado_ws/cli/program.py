"""The program: which command it is, and what every command has in common."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from tornado_ws.cli import statuses
from tornado_ws.cli.lines import OutputError
from tornado_ws.errors import BrokerError
from tornado_ws.escaping import plain


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what ``arguments`` (those of the command line by default) say, and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["run"]:
        # Not by argparse: all that follows is the program's own.
        from tornado_ws.run import main as run

        run(given[1:], f"{_name()} run")
        return statuses.OK
    from tornado_ws.cli.arguments import parser

    options = parser(_name()).parse_args(given)
    _open_missing()
    command: Callable[[argparse.Namespace], int] = importlib.import_module(f"tornado_ws.cli.{options.command}").main
    try:
        return command(options)
    except OutputError as error:
        if error.is_closed:
            return statuses.OUTPUT_CLOSED
        return _complain(error, statuses.FAILED)
    except (BrokerError, ImportError) as error:
        return _complain(error, statuses.FAILED)
    except ValueError as error:
        return _complain(error, statuses.USAGE)


def _open_missing() -> None:
    """Have something behind each standard descriptor: one that was closed would become a socket's."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _name() -> str:
    return "python -m tornado_ws" if os.path.basename(sys.argv[0]) == "__main__.py" else "tornado-ws"


def _complain(error: Exception, status: int) -> int:
    text = str(error)
    print(f"tornado_ws: {plain(text, len(text))}", file=sys.stderr)
    return status
