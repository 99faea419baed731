"""Tests of a package, run by pytest in a process of their own, with Tornado's module or with ``install()``."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, cast

_PLUGIN = Path(__file__).with_name("plugin")
#: Seconds that all tests of a package may take.
_PATIENCE = 1800


class Run(TypedDict):
    #: The module of ``tornado.websocket.WebSocketHandler``.
    tested: str | None
    #: That of tornado_ws; None with Tornado's module.
    engine: str | None
    tornado: str
    #: By test: ``passed``, ``failed`` or ``skipped``.
    outcomes: dict[str, str]


def run(python: Path, folder: Path, arguments: Sequence[str], *, installed: bool, path: Sequence[Path] = ()) -> Run:
    """Run pytest with ``arguments`` in ``folder``, under ``tornado_ws.run`` where ``installed`` is true.

    :param path: folders of modules that ``python`` does not have.
    :raises RuntimeError: when pytest runs no test, or tests another module than it should.
    :raises subprocess.TimeoutExpired: after `_PATIENCE`.
    """
    # Or the folder's package is tested in the place of the one that is installed.
    order = ("--import-mode=append", "-p", "no:cacheprovider", "-p", "outcomes_plugin")
    launcher = ("-m", "tornado_ws.run") if installed else ()
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "outcomes.json"
        environment = {name: value for name, value in os.environ.items() if name != "TORNADO_WS"} | {
            "ASYNC_TEST_TIMEOUT": "60",
            "OUTCOMES": str(report),
            "PYTHONPATH": os.pathsep.join(map(str, (_PLUGIN, *path))),
            "PYTHONSAFEPATH": "1",
        }
        done = subprocess.run(
            [python, *launcher, "-m", "pytest", *order, *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
        found = cast(Run, json.loads(report.read_text(encoding="utf-8"))) if report.exists() else None
    print(done.stdout, flush=True)
    wanted = "tornado_ws" if installed else "tornado.websocket"
    if found is None or not found["outcomes"]:
        raise RuntimeError(f"pytest {' '.join(arguments)} in {folder} ran no test:\n{done.stdout[-4000:]}")
    if found["tested"] is None or not f"{found['tested']}.".startswith(f"{wanted}."):
        raise RuntimeError(f"pytest {' '.join(arguments)} in {folder} has tested {found['tested']}, not {wanted}")
    return found
