"""What `shim.c` offers, and how a program is started under it."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

#: In the order of the enum in ``shim.c``.
FUNCTIONS = ("recv", "send", "sendmsg", "peek", "epoll_ctl", "epoll_create", "dup", "accept", "socket", "alloc")

_SENDING = ("EAGAIN", "EINTR", "ECONNRESET", "EPIPE", "ENOBUFS", "ENOMEM", "1 byte", "7 bytes", "1000 bytes")
_RECEIVING = ("EAGAIN", "EINTR", "ECONNRESET", "ETIMEDOUT", "ENOBUFS", "ENOMEM", "1 byte", "7 bytes", "1000 bytes")
_OPENING = ("EMFILE", "ENFILE", "ENOMEM")

#: How each function fails: by an errno, or by moving only so many bytes.
WAYS = {
    "recv": _RECEIVING,
    "send": _SENDING,
    "sendmsg": _SENDING,
    "peek": ("EINTR", "ECONNRESET", "ENOMEM"),
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "epoll_create": _OPENING,
    "dup": _OPENING,
    "accept": ("EAGAIN", "EINTR", "ECONNABORTED", "ENOBUFS", *_OPENING),
    "socket": ("ENOBUFS", *_OPENING),
    "alloc": ("ENOMEM",),
}
#: Those after which the same call is to be made again: nobody may notice them.
PASSING = ("EAGAIN", "EINTR", "1 byte", "7 bytes", "1000 bytes")
_VARIABLE = "TORNADO_WS_FAULTS"


class Fault(NamedTuple):
    """Calls of ``function``, from the ``first`` to the ``last``, fail in the ``way``; None for a storm of that seed."""

    function: str | None
    way: str
    first: int
    last: int
    seed: int = 0

    def __str__(self) -> str:
        if self.function is None:
            return f"a storm of seed {self.seed}"
        calls = f"call {self.first}" if self.last == self.first else f"calls from {self.first} on"
        return f"{self.function}, {calls}: {self.way}"

    @property
    def is_passing(self) -> bool:
        return self.way in PASSING


class Shim:
    """The shim that this process was started under."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[_VARIABLE])
        self._library.faults_add_range.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        for name in ("faults_count", "faults_hits"):
            getattr(self._library, name).restype = ctypes.c_long

    def count_allocations_of(self, modules: Iterable[ModuleType]) -> None:
        """Let allocations fail too, of the code of compiled ``modules``."""
        files = {module.__file__ for module in modules}
        for line in Path("/proc/self/maps").read_text().splitlines():
            where, permissions, _, _, _, *names = line.split(maxsplit=5)
            if "x" in permissions and files.intersection(names):
                start, end = (int(address, 16) for address in where.split("-"))
                assert self._library.faults_add_range(start, end), "too many ranges"

    def spare_open_descriptors(self) -> None:
        """Let no call fail for a descriptor that is open now."""
        self._library.faults_spare_open()

    def plan(self, fault: Fault | None) -> None:
        """Set what is to fail, and begin to count anew."""
        if fault is None:
            self._plan(-1, 0, 0, 0, 0)
        elif fault.function is None:
            self._library.faults_storm(ctypes.c_uint64(fault.seed))
        else:
            amount, _, unit = fault.way.partition(" ")
            error, most = (0, int(amount)) if unit else (getattr(errno, fault.way), 0)
            self._plan(FUNCTIONS.index(fault.function), fault.first, fault.last, error, most)

    def _plan(self, function: int, first: int, last: int, error: int, most: int) -> None:
        self._library.faults_plan(function, ctypes.c_long(first), ctypes.c_long(last), error, ctypes.c_size_t(most))

    def arm(self, on: bool = True) -> None:
        """Count and fail calls of this thread, or no longer."""
        self._library.faults_arm(int(on))

    def counts(self) -> dict[str, int]:
        """Return how often each function was called since `plan`."""
        return {name: self._library.faults_count(index) for index, name in enumerate(FUNCTIONS)}

    def hits(self) -> int:
        """Return how many calls have failed since `plan`."""
        return int(self._library.faults_hits())


def missing() -> str | None:
    """Return what this machine lacks for the shim; None if it is all there."""
    if not sys.platform.startswith("linux"):
        return "Linux"
    return None if shutil.which("cc") else "a C compiler"


def build(folder: Path) -> Path:
    """Compile the shim into ``folder``."""
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", library, source, "-ldl"], check=True
    )
    return library


def environment(library: Path) -> dict[str, str]:
    """Return the environment of a program that is to run under the shim."""
    # A sanitizer has to stay the first.
    before = os.environ.get("LD_PRELOAD", "")
    return {**os.environ, "LD_PRELOAD": f"{before} {library}".strip(), _VARIABLE: str(library)}


class Swept(NamedTuple):
    """What a program of `tests.faults.sweep` has printed."""

    output: str
    #: The fault that something broke at, or that it crashed or hung at; "" if it was none, None where all is well.
    broken: str | None


def sweep(library: Path, *arguments: str) -> Swept:
    """Run `tests.faults.sweep` under the shim, as far as the first fault that breaks something."""
    with tempfile.TemporaryDirectory() as folder:
        now = Path(folder, "now")
        command = [sys.executable, "-m", "tests.faults.sweep", "--now", str(now), *arguments]
        result = subprocess.run(command, env=environment(library), capture_output=True, text=True, check=False)
        broken = None
        if result.returncode:
            broken = now.read_text() if now.exists() else ""
            result.stderr += f"ended with {result.returncode} at: {broken}"
        return Swept(result.stdout + result.stderr, broken)
