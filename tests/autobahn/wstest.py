"""The suite's own program, `wstest`: it runs on CPython 2.7 alone, so it is built once and kept outside the checkout.

``python -m tests.autobahn.wstest`` builds it where it is missing and prints the Python that runs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUITE_VERSION = "25.10.1"
VIRTUALENV = "virtualenv==20.15.1"

#: The last releases that still ran on CPython 2.7: a resolver left alone picks some that no longer do.
CONSTRAINTS = """\
argparse==1.4.0
attrs==21.4.0
Automat==22.10.0
cffi==1.15.1
constantly==15.1.0
enum34==1.1.10
hyperlink==21.0.0
idna==2.10
ipaddress==1.0.23
linecache2==1.0.0
pyasn1==0.5.1
pyasn1-modules==0.3.0
pycparser==2.21
PyHamcrest==1.10.1
traceback2==1.4.0
typing==3.10.0.0
ujson==2.0.3
wsaccel==0.6.6
"""

#: Names a CPython 2.7 to use instead of the first one found.
PYTHON27 = "TORNADO_WS_PYTHON27"

BUILD_SECONDS = 600.0

_PROBE = """\
import platform, sys
import pip, ssl, zlib
sys.exit(0 if sys.version_info[:2] == (2, 7) and platform.python_implementation() == "CPython" else 1)
"""


class BuildError(Exception):
    """`wstest` could not be built; the message ends with what the failing command printed."""


@dataclass(frozen=True)
class Wstest:
    """A `wstest` that is ready to run."""

    python: Path
    script: Path

    def command(self, *arguments: str) -> list[str]:
        # Through its Python: the path in the script's first line may be longer than the kernel reads.
        return [str(self.python), str(self.script), *arguments]


def environment27() -> dict[str, str]:
    """The environment without what is meant for the Python 3 around us, which CPython 2.7 would trip over."""
    meant_for_python3 = ("PYTHON", "COVERAGE_", "COV_CORE_", "VIRTUAL_ENV", "__PYVENV")
    where_pip_puts_things = {"PIP_CONSTRAINT", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PIP_TARGET", "PIP_USER"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(meant_for_python3) and name not in where_pip_puts_things
    }
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def find_python27() -> Path | None:
    """The first CPython 2.7 with pip, ssl and zlib on this machine, or None."""
    for candidate in _candidates():
        # Run, not just looked up: a pyenv shim is on PATH even where no version behind it is selected.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [candidate, "-c", _PROBE],
                env=environment27(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                check=True,
            )
            return candidate
    return None


def _candidates() -> Iterator[Path]:
    if named := os.environ.get(PYTHON27):
        yield Path(named)
        return
    for name in ("python2.7", "python2"):
        if found := shutil.which(name):
            yield Path(found)
    for root in dict.fromkeys((os.environ.get("PYENV_ROOT"), "~/.pyenv")):
        if root:
            yield from sorted(Path(root).expanduser().glob("versions/2.7*/bin/python"), reverse=True)


def ensure_wstest(python27: Path) -> Wstest:
    """The cached `wstest`, built first where there is none yet; safe to call from several processes at once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tornado_ws"
    home = cache / f"wstest-{SUITE_VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with _exclusive(cache / f"{home.name}.lock"):
        complete = home / "complete"
        recipe = _recipe(python27)
        wstest = Wstest(home / "bin" / "python", home / "bin" / "wstest")
        if not (complete.is_file() and complete.read_text() == recipe and wstest.script.is_file()):
            # A virtualenv cannot be moved, so it is built in place and counts only once the marker stands in it.
            shutil.rmtree(home, ignore_errors=True)
            _build(python27, home)
            complete.write_text(recipe)
        return wstest


def _recipe(python27: Path) -> str:
    ingredients = "\n".join((str(python27), VIRTUALENV, SUITE_VERSION, CONSTRAINTS))
    return hashlib.sha256(ingredients.encode()).hexdigest()


def _build(python27: Path, home: Path) -> None:
    deadline = time.monotonic() + BUILD_SECONDS
    with tempfile.TemporaryDirectory(prefix="tornado-ws-wstest-") as scratch:
        bootstrap = Path(scratch, "bootstrap")
        constraints = Path(scratch, "constraints.txt")
        constraints.write_text(CONSTRAINTS)
        environment = environment27()
        pip = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        _run([python27, *pip, "--target", bootstrap, VIRTUALENV], environment, deadline)
        _run(
            [python27, "-m", "virtualenv", "--quiet", "--app-data", Path(scratch, "app-data"), home],
            {**environment, "PYTHONPATH": str(bootstrap)},
            deadline,
        )
        suite = f"autobahntestsuite=={SUITE_VERSION}"
        _run([home / "bin" / "python", *pip, "--constraint", constraints, suite], environment, deadline)


def _run(command: list[str | Path], environment: dict[str, str], deadline: float) -> None:
    # In a directory of its own: CPython 2.7 would import modules that lie in the current one.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory() as empty:
        try:
            finished = subprocess.run(
                command,
                env=environment,
                cwd=empty,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=max(1.0, deadline - time.monotonic()),
            )
            outcome = f"exit status {finished.returncode}" if finished.returncode else ""
        except subprocess.TimeoutExpired:
            outcome = f"not done within {BUILD_SECONDS:.0f} s"
        if outcome:
            output.seek(0)
            printed = output.read().decode(errors="replace").splitlines()[-30:]
            spoken = " ".join(map(str, command))
            raise BuildError("\n".join((f"building wstest: {outcome} from {spoken}", *printed)))


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + BUILD_SECONDS + 60
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BuildError(f"{path} is still locked by another process") from None
                time.sleep(0.2)
        yield


def main() -> int:
    python27 = find_python27()
    if python27 is None:
        print(f"no CPython 2.7 with pip on PATH, under pyenv or in {PYTHON27}", file=sys.stderr)
        return 1
    try:
        print(ensure_wstest(python27).python)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
