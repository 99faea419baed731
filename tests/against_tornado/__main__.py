"""``python -m tests.against_tornado NAME [ARGUMENT]``: run a program on both, and print what it found."""

from __future__ import annotations

import argparse
import sys

from tests.against_tornado import PROGRAMS, run_both


def main() -> None:
    programs = ", ".join(f"{name} {argument}".rstrip() for name, argument in PROGRAMS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.against_tornado", usage="%(prog)s NAME [ARGUMENT]", epilog=f"Programs: {programs}"
    )
    parser.add_argument("name", metavar="NAME", help="one of the programs below")
    parser.add_argument("argument", metavar="ARGUMENT", nargs="?", help="what stands behind its name there")
    options = parser.parse_args()
    if options.name not in PROGRAMS:
        parser.error(f"there is no program {options.name!r}; there are {programs}")
    wanted, argument = PROGRAMS[options.name], options.argument or ""
    # A word in capitals stands for a number.
    is_number = argument.isdecimal() and any(word.isupper() for word in wanted.split("|"))
    if not is_number and (argument not in wanted.split("|") or argument.isupper()):
        parser.error(f"{options.name} takes {wanted or 'no argument'}")
    try:
        both = run_both(options.name, *([argument] if argument else []))
    except AssertionError as error:
        sys.exit(f"{options.name} failed:\n{error}")
    print(f"| {options.name} | tornado.websocket | tornado_ws |\n|---|---|---|")
    for figure, theirs in both.tornado.items():
        if figure != "stderr":
            print(f"| {figure} | {theirs} | {both.ours.get(figure)} |")


if __name__ == "__main__":
    main()
