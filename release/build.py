"""A source distribution of the checkout, and wheels of a source distribution."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def call(*command: str | Path, cwd: Path | None = None, **changes: str) -> str:
    """Run a command in the environment with ``changes``; returns what it prints. Raises SystemExit when it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | changes
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def sources() -> list[str]:
    """Return the files of the checkout that git knows, by their names from its root."""
    listed = call("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return [name for name in listed if name and (ROOT / name).exists()]


def build_sdist(work: Path) -> Path:
    """Return a source distribution in ``work``, built with this Python's setuptools, of a copy without git."""
    copy = work / "copy"
    for name in sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    _run_hook("build_sdist", copy, work)
    return next(work.glob("*.tar.gz"))


def unpack(sdist: Path, work: Path) -> Path:
    """Return the folder that a source distribution is unpacked to, in ``work``."""
    with tarfile.open(sdist) as archive:
        if sys.version_info >= (3, 12):
            archive.extractall(work, filter="data")
        else:
            archive.extractall(work)
    return work / sdist.name.removesuffix(".tar.gz")


def build_wheel(unpacked: Path, out: Path, *, pure: bool) -> Path:
    """Return a wheel in ``out``, built with this Python and its setuptools and Cython."""
    out.mkdir(parents=True, exist_ok=True)
    _run_hook("build_wheel", unpacked, out, TORNADO_WS_PURE="1" if pure else "0")
    return next(path for path in out.glob("*.whl") if path.stem.endswith("-none-any") == pure)


def _run_hook(name: str, folder: Path, out: Path, **changes: str) -> None:
    """Call a hook of PEP 517."""
    program = f"from setuptools import build_meta; build_meta.{name}({str(out)!r})"
    call(sys.executable, "-c", program, cwd=folder, **changes)
