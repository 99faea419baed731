"""``python -m tornado_ws.run PROGRAM|-m MODULE ARGS…``: run a program unchanged, with `tornado_ws` installed.

Python programs that it starts have it too, itself among them when it reloads; see `_arm_children`.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import runpy
import sys
from collections.abc import Sequence

from tornado_ws.compat.install import install
from tornado_ws.escaping import shown

_USAGE = "usage: {0} PROGRAM [ARGS...]\n       {0} -m MODULE [ARGS...]"


def main(arguments: Sequence[str] | None = None, name: str = "python -m tornado_ws.run") -> None:
    """Install, then run what ``arguments`` name as Python itself would.

    :param arguments: those of the command line by default.
    :param name: what stands before them, for the usage.
    :raises SystemExit: with 2 where there is no such program or module, after a line that says so.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        is_asked = bool(arguments) and arguments != ["-m"]
        print(_USAGE.format(name), file=sys.stdout if is_asked else sys.stderr)
        raise SystemExit(0 if is_asked else 2)
    install()
    _arm_children()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        # A console script's folder is first there.
        if not _safe_path():
            sys.path[0] = os.getcwd()
        _check(_lack_of_module(arguments[1]), name)
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        _check(_lack_of_program(arguments[0]), name)
        sys.argv = arguments
        # Python puts the program's folder first, unless told not to; -m had put the current one there.
        if not _safe_path():
            sys.path[0] = os.path.dirname(os.path.realpath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


def _check(lack: str | None, name: str) -> None:
    if lack is not None:
        print(f"{_USAGE.format(name)}\n{name}: {lack}", file=sys.stderr)
        raise SystemExit(2)


def _lack_of_program(path: str) -> str | None:
    """Return why ``path`` cannot be run; None where it can be. What it does then is its own affair."""
    if os.path.isdir(path):
        if importlib.machinery.PathFinder.find_spec("__main__", [path]) is None:
            return f"no __main__ in the directory {shown(path)}"
        return None
    try:
        with open(path, "rb"):
            return None
    except OSError as error:
        return f"cannot open {shown(path)}: {error.strerror}"


def _lack_of_module(module: str) -> str | None:
    """Return why ``module`` cannot be run; None where it can be, or where its package fails in another way."""
    try:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{module}.__main__")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            return None
        spec = None
    except (ImportError, ValueError):
        spec = None
    except Exception:
        return None
    return f"no module {shown(module)} that can be run" if spec is None else None


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
