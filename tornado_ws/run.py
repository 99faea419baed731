"""``python -m tornado_ws.run PROGRAM|-m MODULE ARGS…``: run a program unchanged, with `tornado_ws` installed."""

from __future__ import annotations

import os
import runpy
import sys

from tornado_ws.install import install

_USAGE = "usage: python -m tornado_ws.run PROGRAM [ARGS...]\n       python -m tornado_ws.run -m MODULE [ARGS...]"


def main() -> None:
    """Install, then run what ``sys.argv`` names as Python itself would."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        print(_USAGE, file=sys.stdout if arguments and arguments != ["-m"] else sys.stderr)
        raise SystemExit(0 if arguments and arguments != ["-m"] else 2)
    install()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        # Python puts the program's folder first, unless told not to; -m had put the current one there.
        if not getattr(sys.flags, "safe_path", False):
            sys.path[0] = os.path.dirname(os.path.realpath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
