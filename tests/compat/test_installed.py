"""What installs of the built wheel and of the checkout put into an environment, beside one that has neither."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tornado

from tests.programs import ROOT, run

pytestmark = pytest.mark.xdist_group("installed")

OURS = "tornado_ws.server.handler\n"
TORNADOS = "tornado.websocket\n"
WHOSE = "import tornado.websocket; print(tornado.websocket.WebSocketHandler.__module__, flush=True)"


def call(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Environment:
    """A virtual environment that has Tornado and nothing else."""

    def __init__(self, folder: Path) -> None:
        call(sys.executable, "-m", "venv", "--without-pip", "--symlinks", folder)
        self.python = folder / "bin" / "python"
        self.site_packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        (self.site_packages / "tornado").symlink_to(Path(tornado.__file__).parent)

    def install(self, *what: str | Path) -> None:
        pip = (sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", "install")
        # It is built with our setuptools, since there may be no network to get another one from, and without the native
        # engine, which has tests of its own.
        setuptools = importlib.util.find_spec("setuptools")
        assert setuptools is not None
        assert setuptools.origin is not None
        tools = str(Path(setuptools.origin).parent.parent)
        call(*pip, "--no-index", "--no-deps", "--no-build-isolation", *what, TORNADO_WS_PURE="1", PYTHONPATH=tools)

    def run(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, cwd=self.site_packages.parent, python=self.python, **{"PYTHONPATH": "", **changes})

    def whose(self, *flags: str, **changes: str) -> tuple[str, str]:
        """Return what a program that imports ``tornado.websocket`` says of it, and the errors that it shows."""
        result = self.run(*flags, "-c", WHOSE, **changes)
        assert result.returncode == 0, result.stderr
        return result.stdout, result.stderr


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is made from, without the native engine."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "_tornado_ws_finder.py"):
        shutil.copy(ROOT / name, folder)
    native = shutil.ignore_patterns("_native.*", "_deflate.*", "__pycache__")
    shutil.copytree(ROOT / "tornado_ws", folder / "tornado_ws", ignore=native)
    for name in ("engine/_native.pyx", "deflate/_deflate.pyx"):
        (folder / "tornado_ws" / name).touch()
    return folder


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp(request.param))
    environment.install(*(["--editable"] if request.param == "editable" else []), sources)
    return environment


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("without"))


def starting(python: Path, *flags: str) -> str:
    """Return a program that starts ``python`` with ``flags``, to say whose ``tornado.websocket`` it has."""
    return f"import subprocess\nsubprocess.run({[str(python), *flags, '-c', WHOSE]!r}, check=True)\n"


def test_the_environment_variable_arms_every_program(installed: Environment) -> None:
    """Also one that is to use no other variable of the environment."""
    assert installed.whose(TORNADO_WS="install") == (OURS, "")
    assert installed.whose("-I", TORNADO_WS="install") == (OURS, "")
    assert installed.whose() == installed.whose(TORNADO_WS="") == (TORNADOS, "")


def test_without_the_variable_nothing_is_imported(installed: Environment) -> None:
    loaded = "import sys; print([name for name in sys.modules if 'tornado' in name and 'editable' not in name])"
    assert installed.run("-c", loaded).stdout == "[]\n"
    assert installed.run("-c", loaded, TORNADO_WS="install").stdout == "['_tornado_ws_finder']\n"


def test_another_value_is_told(installed: Environment) -> None:
    assert installed.whose(TORNADO_WS="instal") == (
        TORNADOS,
        "tornado_ws: TORNADO_WS='instal' in the environment has no meaning; TORNADO_WS=install has\n",
    )


@pytest.mark.parametrize("flags", [[], ["-I"]])
def test_children_of_run_have_it_also_if_they_ignore_the_path(
    installed: Environment, flags: list[str], tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(starting(installed.python, *flags))
    result = installed.run("-m", "tornado_ws.run", str(program))
    assert (result.stdout, result.stderr) == (OURS, "")


def test_there_is_a_console_script(installed: Environment, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(WHOSE)
    script = installed.run(str(installed.python.parent / "tornado-ws"), "run", str(tmp_path / "program.py"))
    assert (script.returncode, script.stdout, script.stderr) == (0, OURS, "")


@pytest.mark.parametrize("flags", [[], ["-S"]])
def test_children_in_an_environment_without_it_have_tornados_own(
    installed: Environment, without: Environment, flags: list[str], tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    # With -S, in which nothing at all runs where Python starts, it finds Tornado by the path alone.
    program.write_text(f"import os\nos.environ['PYTHONPATH'] += ':{without.site_packages}'\n")
    with program.open("a") as file:
        file.write(starting(without.python, *flags))
    result = installed.run("-m", "tornado_ws.run", str(program))
    assert (result.stdout, result.stderr) == (TORNADOS, "")


def test_a_variable_that_means_something_elsewhere_is_nothing_here(without: Environment) -> None:
    assert without.whose(TORNADO_WS="install") == (TORNADOS, "")
