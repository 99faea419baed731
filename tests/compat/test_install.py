"""`install`, `uninstall` and ``python -m tornado_ws.run``, each in a process of its own."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest

from tests.programs import ROOT, run


def check(code: str) -> None:
    """Run ``code``, which has to come to its end without a word."""
    result = run("-c", textwrap.dedent(code))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# install


def test_every_form_of_import_gives_ours() -> None:
    check(
        """
        import sys
        import tornado_ws
        tornado_ws.install()
        assert sys.modules["tornado.websocket"] is tornado_ws

        import importlib
        import tornado
        import tornado.websocket
        import tornado.websocket as websocket
        from tornado import websocket as from_package
        from tornado.websocket import WebSocketClosedError, WebSocketHandler, websocket_connect
        from tornado.websocket import _default_max_message_size
        assert tornado.websocket is websocket is from_package is tornado_ws
        assert importlib.import_module("tornado.websocket") is tornado_ws
        assert WebSocketHandler is tornado_ws.WebSocketHandler
        assert WebSocketClosedError is tornado_ws.WebSocketClosedError
        assert websocket_connect is tornado_ws.websocket_connect

        scope = {}
        exec("from tornado.websocket import *", scope)
        assert scope["WebSocketHandler"] is tornado_ws.WebSocketHandler

        # As a package does that knows nothing of this one.
        from tornado.web import Application
        class Handler(tornado.websocket.WebSocketHandler):
            pass
        assert issubclass(Handler, tornado_ws.WebSocketHandler)
        """
    )


def test_installing_after_tornado_imported_its_own_and_nobody_took_anything() -> None:
    check(
        """
        import importlib
        importlib.import_module("tornado.websocket")
        import tornado_ws
        tornado_ws.install()
        import tornado.websocket
        assert tornado.websocket is tornado_ws
        """
    )


def test_installing_twice_and_uninstalling_twice() -> None:
    check(
        """
        import sys
        import tornado_ws
        tornado_ws.uninstall()
        for _ in range(2):
            tornado_ws.install()
        tornado_ws.uninstall()
        assert "tornado.websocket" not in sys.modules
        tornado_ws.uninstall()
        import tornado.websocket
        assert tornado.websocket.__file__ != tornado_ws.__file__
        assert tornado.websocket.WebSocketHandler is not tornado_ws.WebSocketHandler
        """
    )


def test_uninstalling_puts_tornados_own_back() -> None:
    check(
        """
        import importlib, sys
        importlib.import_module("tornado.websocket")
        theirs = id(sys.modules["tornado.websocket"])
        import tornado, tornado_ws
        tornado_ws.install()
        assert tornado.websocket is tornado_ws
        tornado_ws.uninstall()
        assert id(sys.modules["tornado.websocket"]) == theirs == id(tornado.websocket)
        tornado_ws.install()
        assert tornado.websocket is tornado_ws
        """
    )


@pytest.mark.parametrize(
    ("taking", "holder"),
    [
        ("import tornado.websocket as ws", "early.ws"),
        ("from tornado import websocket", "early.websocket"),
        ("from tornado.websocket import WebSocketHandler", "early.WebSocketHandler"),
        ("from tornado.websocket import websocket_connect as connect", "early.connect"),
        ("from tornado.websocket import WebSocketClosedError", "early.WebSocketClosedError"),
        (
            "import tornado.websocket\nclass Handler(tornado.websocket.WebSocketHandler): pass\ndel tornado",
            "early.Handler",
        ),
    ],
)
def test_installing_too_late_is_an_error_that_names_who_has_it(taking: str, holder: str, tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text(taking + "\n")
    result = run(
        "-c",
        textwrap.dedent(
            """
            import sys
            import early
            import tornado, tornado_ws
            theirs = id(tornado.websocket)
            try:
                tornado_ws.install()
            except RuntimeError as error:
                print(error)
            # And nothing has changed.
            assert id(sys.modules["tornado.websocket"]) == theirs == id(tornado.websocket)
            """
        ),
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "has to be called before tornado.websocket is imported" in result.stdout
    assert result.stdout.strip().rpartition(": ")[2] == holder


def test_everybody_who_has_it_is_named_once(tmp_path: Path) -> None:
    """multiprocessing, which Tornado imports, gives the program's module a second name."""
    (tmp_path / "one.py").write_text("from tornado.websocket import WebSocketHandler as A, WebSocketHandler as B\n")
    (tmp_path / "two.py").write_text("import one\nclass Sub(one.A):\n    pass\n")
    result = run(
        "-c",
        "from tornado.websocket import WebSocketClosedError\nimport one, two, tornado_ws\ntornado_ws.install()",
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
    )
    assert result.returncode == 1
    names = result.stderr.strip().rpartition(": ")[2]
    assert names == "__main__.WebSocketClosedError, one.A, one.B, two.Sub"


def test_what_tornado_itself_imports_is_no_holder() -> None:
    check(
        """
        import tornado.web, tornado.httpserver, tornado.simple_httpclient, tornado.testing
        import tornado_ws
        tornado_ws.install()
        """
    )


# run

PROGRAM = """
import sys
import tornado.websocket
print(__name__, __file__)
print(sys.argv)
print(sys.path[0])
print(tornado.websocket.WebSocketHandler.__module__)
import beside
sys.exit(int(sys.argv[1]))
"""


def test_a_program_runs_as_python_would_run_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    (folder / "beside.py").write_text("print('beside')\n")
    result = run("-m", "tornado_ws.run", "folder/program.py", "7", "-m", "--help", cwd=tmp_path)
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "__main__ folder/program.py",
        "['folder/program.py', '7', '-m', '--help']",
        str(folder),
        "tornado_ws.server.handler",
        "beside",
    ]
    assert result.returncode == 7


def test_a_module_runs_as_python_would_run_it(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text(PROGRAM.replace("import beside", "from package import beside"))
    (package / "beside.py").write_text("print('beside')\n")
    result = run("-m", "tornado_ws.run", "-m", "package.module", "3", "x", cwd=tmp_path)
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        f"__main__ {package / 'module.py'}",
        f"[{str(package / 'module.py')!r}, '3', 'x']",
        str(tmp_path),
        "tornado_ws.server.handler",
        "beside",
    ]
    assert result.returncode == 3


def test_a_program_that_a_link_leads_to_finds_what_is_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "program.py").write_text("import beside\n")
    (folder / "beside.py").write_text("print('beside')\n")
    (tmp_path / "link.py").symlink_to(folder / "program.py")
    result = run("-m", "tornado_ws.run", "link.py", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "beside\n", "")


def test_a_package_with_a_main_module_runs(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__main__.py").write_text("import sys\nprint(__name__, sys.argv[1:])\n")
    result = run("-m", "tornado_ws.run", "-m", "package", "a", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "__main__ ['a']\n", "")


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["-m"], 2), (["-h"], 0), (["--help"], 0)])
def test_usage(arguments: list[str], status: int) -> None:
    result = run("-m", "tornado_ws.run", *arguments)
    assert result.returncode == status
    text, nothing = (result.stderr, result.stdout) if status else (result.stdout, result.stderr)
    assert text.startswith("usage: python -m tornado_ws.run PROGRAM [ARGS...]\n")
    assert "-m MODULE" in text
    assert nothing == ""


@pytest.mark.parametrize("module", ["tornado_ws.run", "tornado_ws"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_program.py"], "cannot open 'no_such_program.py': No such file or directory"),
        (["folder"], "no __main__ in the directory 'folder'"),
        (["-m", "no_such_module"], "no module 'no_such_module' that can be run"),
        (["-m", "json.no_such_module"], "no module 'json.no_such_module' that can be run"),
        (["-m", "folder"], "no module 'folder' that can be run"),
        (["-m", ".json"], "no module '.json' that can be run"),
    ],
)
def test_what_cannot_be_run_is_told_with_the_usage(
    module: str, arguments: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    words = ["run"] if module == "tornado_ws" else []
    name = " ".join(["python -m", module, *words])
    result = run("-m", module, *words, *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"usage: {name} PROGRAM [ARGS...]",
        f"       {name} -m MODULE [ARGS...]",
        f"{name}: {said}",
    ]


def test_an_error_of_the_program_itself_is_its_own(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("import no_such_dependency\n")
    (package / "module.py").write_text("")
    (tmp_path / "program.py").write_text("open('no_such_file')\n")
    for arguments, said in (
        (["-m", "package.module"], "No module named 'no_such_dependency'"),
        (["program.py"], "'no_such_file'"),
    ):
        result = run("-m", "tornado_ws", "run", *arguments, cwd=tmp_path)
        assert (result.returncode, said in result.stderr, "Traceback" in result.stderr) == (1, True, True)


if sys.version_info >= (3, 11):

    def test_safe_path_is_left_alone(tmp_path: Path) -> None:
        """Where Python is told to put no folder first, the first entry of the path is somebody else's."""
        (tmp_path / "program.py").write_text("import sys\nprint(sys.path)\n")
        as_python = run("-P", "program.py", cwd=tmp_path)
        result = run("-P", "-m", "tornado_ws.run", "program.py", cwd=tmp_path)
        assert (result.returncode, result.stdout, result.stderr) == (0, as_python.stdout, "")
