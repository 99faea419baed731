"""``python -m tornado_ws.run``: the Python programs that a program starts, itself among them, have `tornado_ws` too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.programs import ROOT, environment, run
from tests.support import PATIENCE

OURS = "tornado_ws.server.handler"
TORNADOS = "tornado.websocket"
WHOSE = "import tornado.websocket; print(tornado.websocket.WebSocketHandler.__module__, flush=True)"


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


# Programs that reload themselves

RELOADING = """
import sys
import tornado.ioloop, tornado.web, tornado.websocket
with open("log", "a") as log:
    print(tornado.websocket.WebSocketHandler.__module__, *sys.argv[1:], file=log)
tornado.web.Application([], debug=True)
tornado.ioloop.IOLoop.current().start()
"""

#: Ended by what `tornado.autoreload` finds the program's file by, to watch it.
FAILING = RELOADING.partition("tornado.web.Application")[0] + "raise RuntimeError\n"


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (RELOADING, ["app.py", "argument"]),
        (RELOADING, ["-m", "app", "argument"]),
        (FAILING, ["-m", "tornado.autoreload", "app.py", "argument"]),
        (FAILING, ["-m", "tornado.autoreload", "-m", "app", "argument"]),
    ],
)
def test_a_program_that_reloads_itself_keeps_it(program: str, arguments: list[str], tmp_path: Path) -> None:
    app, log = tmp_path / "app.py", tmp_path / "log"
    app.write_text(program)
    process = subprocess.Popen(
        [sys.executable, "-m", "tornado_ws.run", *arguments],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        saved = time.time()
        # Saved again and again, since when it begins to watch its files is its own affair.
        while not log.exists() or len(log.read_text().splitlines()) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.1)
            saved += 1
            os.utime(app, (saved, saved))
    finally:
        process.kill()
        process.wait()
    assert set(log.read_text().splitlines()) == {f"{OURS} argument"}


# Programs that start others

CHILDREN = {
    "exec": f"import os, sys\nos.execv(sys.executable, [sys.executable, '-c', {WHOSE!r}])",
    "subprocess": f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {WHOSE!r}], check=True)",
    "subprocess of a module": "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'whose'], check=True)",
    "subprocess of a subprocess": (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import subprocess, sys; "
        'subprocess.run([sys.executable, "-m", "whose"], check=True)\'], check=True)'
    ),
    "shell": "import os, sys\nos.system(f'{sys.executable} -m whose')",
    **{
        method: (
            "import multiprocessing, runpy\n"
            "def child():\n"
            "    runpy.run_module('whose')\n"
            "if __name__ == '__main__':\n"
            f"    process = multiprocessing.get_context({method!r}).Process(target=child)\n"
            "    process.start()\n"
            "    process.join()\n"
            "    raise SystemExit(process.exitcode)"
        )
        for method in ("fork", "forkserver", "spawn")
    },
}


@pytest.mark.parametrize("way", CHILDREN)
@pytest.mark.parametrize("arguments", [["program.py"], ["-m", "program"]])
def test_a_child_has_it(way: str, arguments: list[str], tmp_path: Path) -> None:
    write(tmp_path / "program.py", CHILDREN[way])
    write(tmp_path / "whose.py", WHOSE)
    result = run("-m", "tornado_ws.run", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{OURS}\n", "")
    # And it was nothing else that gave it.
    result = run(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{TORNADOS}\n", "")


def test_a_child_that_has_no_use_for_it_does_not_import_it(tmp_path: Path) -> None:
    # An editable install has a finder of its own.
    names = "(name for name in sys.modules if 'tornado' in name and not name.startswith('__editable__'))"
    loaded = f"import sys; print(sorted{names})"
    write(tmp_path / "program.py", f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {loaded!r}])")
    result = run("-m", "tornado_ws.run", "program.py", cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("['_tornado_ws_finder']\n", "")


def test_children_of_a_checkout_that_is_the_current_folder_have_it(tmp_path: Path) -> None:
    write(tmp_path / "program.py", f"import os, sys\nos.execv(sys.executable, [sys.executable, '-c', {WHOSE!r}])")
    result = run("-m", "tornado_ws.run", str(tmp_path / "program.py"), cwd=ROOT, PYTHONPATH="")
    assert (result.stdout, result.stderr) == (f"{OURS}\n", "")


def test_a_childs_path_is_what_it_would_be(tmp_path: Path) -> None:
    """Where the path holds more than one entry of ours, as below a second `run`, too."""
    path = "import sys; print(sys.path)"
    write(tmp_path / "program.py", f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {path!r}])")
    alone = run("program.py", cwd=tmp_path)
    for arguments in (["program.py"], ["-m", "tornado_ws.run", "program.py"]):
        result = run("-m", "tornado_ws.run", *arguments, cwd=tmp_path)
        assert (result.stdout, result.stderr) == (alone.stdout, "")


# A sitecustomize that ours hides

HIDDEN = {
    "runs": "print('hidden', __name__, __file__)",
    "fails": "raise ValueError('no')",
    "lacks a module": "import no_such_module",
}


@pytest.mark.parametrize("what", HIDDEN)
def test_a_sitecustomize_that_was_there_before_is_run(what: str, tmp_path: Path) -> None:
    write(tmp_path / "sitecustomize.py", HIDDEN[what])
    child = f"import sitecustomize, sys; print(sys.modules['sitecustomize'].__file__); {WHOSE}"
    write(tmp_path / "program.py", f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    alone = run("program.py", cwd=tmp_path, PYTHONPATH=path)
    result = run("-m", "tornado_ws.run", "program.py", cwd=tmp_path, PYTHONPATH=path)
    assert result.stderr == alone.stderr
    if what == "runs":
        assert result.stderr == ""
        assert result.stdout == alone.stdout.replace(TORNADOS, OURS)
        assert result.stdout.count(f"hidden sitecustomize {tmp_path / 'sitecustomize.py'}\n") == 2
    else:
        # Once by the parent, once by the child as Python starts, once as it imports it.
        assert result.stderr.count(HIDDEN[what].split("'")[1] if what == "fails" else "no_such_module") >= 3


# The finder

FINDER = "import sys; from _tornado_ws_finder import arm; arm(); "


@pytest.mark.parametrize(
    "code",
    [
        "import tornado.websocket as ws",
        "from tornado import websocket as ws",
        "import importlib; ws = importlib.import_module('tornado.websocket')",
        "import importlib.util; importlib.util.find_spec('tornado.websocket'); import tornado.websocket as ws",
        "arm(); import tornado_ws; tornado_ws.install(); import tornado.websocket as ws",
        "from tornado.websocket import WebSocketHandler; ws = sys.modules['tornado.websocket']",
    ],
)
def test_every_form_of_import_is_answered(code: str) -> None:
    result = run(
        "-c",
        FINDER + code + "; import tornado, tornado_ws\n"
        "assert ws is tornado_ws is tornado.websocket is sys.modules['tornado.websocket']\n"
        "assert ws is sys.modules['tornado_ws']\n"
        "assert ws.__spec__.name == ws.__name__ == 'tornado_ws'\n",
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_it_answers_once() -> None:
    result = run(
        "-c",
        FINDER + "before = len(sys.meta_path)\n"
        "import tornado.websocket\n"
        "assert len(sys.meta_path) == before - 1\n"
        "import tornado_ws; tornado_ws.uninstall()\n" + WHOSE,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{TORNADOS}\n", "")


def test_a_package_that_cannot_be_imported_leaves_tornados_own_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "tornado_ws").mkdir()
    write(tmp_path / "tornado_ws" / "__init__.py", "import no_such_module")
    result = run("-c", FINDER + WHOSE, cwd=tmp_path, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert (result.returncode, result.stdout) == (0, f"{TORNADOS}\n")
    assert result.stderr == (
        "tornado_ws: tornado.websocket is Tornado's own, since tornado_ws cannot be imported: "
        "ModuleNotFoundError(\"No module named 'no_such_module'\")\n"
    )
