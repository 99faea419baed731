"""``python -m tests.against_tornado NAME [ARGUMENTS…]``: run a program on both, and print what it found."""

from __future__ import annotations

import sys

from tests.against_tornado import run_both


def main() -> None:
    both = run_both(sys.argv[1], *sys.argv[2:])
    print(f"| {sys.argv[1]} | tornado.websocket | tornado_ws |\n|---|---|---|")
    for figure, theirs in both.tornado.items():
        if figure != "stderr":
            print(f"| {figure} | {theirs} | {both.ours.get(figure)} |")


if __name__ == "__main__":
    main()
