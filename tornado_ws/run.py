"""``python -m tornado_ws.run PROGRAM|-m MODULE ARGS…``: run a program unchanged, with `tornado_ws` installed.

Python programs that it starts have it too, itself among them when it reloads; see `_arm_children`.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys

from tornado_ws.compat.install import install

_USAGE = "usage: python -m tornado_ws.run PROGRAM [ARGS...]\n       python -m tornado_ws.run -m MODULE [ARGS...]"


def main() -> None:
    """Install, then run what ``sys.argv`` names as Python itself would."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        print(_USAGE, file=sys.stdout if arguments and arguments != ["-m"] else sys.stderr)
        raise SystemExit(0 if arguments and arguments != ["-m"] else 2)
    install()
    _arm_children()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        # Python puts the program's folder first, unless told not to; -m had put the current one there.
        if not _safe_path():
            sys.path[0] = os.path.dirname(os.path.realpath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


def _safe_path() -> bool:
    # Before CPython 3.11 -I alone had Python put no folder first.
    return bool(getattr(sys.flags, "safe_path", sys.flags.isolated))


def _arm_children() -> None:
    """Arm `_tornado_ws_finder` in every Python that inherits this environment.

    A child that is given another PYTHONPATH, or told to ignore it, has ``TORNADO_WS`` still, for which it needs the
    .pth file of an install.
    """
    os.environ["TORNADO_WS"] = "install"
    package = os.path.dirname(os.path.abspath(__file__))
    path = [os.path.join(package, "startup"), *filter(None, [os.environ.get("PYTHONPATH")])]
    if not _children_find_us():
        path.append(os.path.dirname(package))
    os.environ["PYTHONPATH"] = os.pathsep.join(path)


def _children_find_us() -> bool:
    """Whether it was something else than the current folder, which -m puts first, that gave us."""
    path = sys.path[:]
    if not _safe_path():
        del sys.path[0]
    try:
        return importlib.util.find_spec("_tornado_ws_finder") is not None
    finally:
        sys.path[:] = path


if __name__ == "__main__":
    main()
