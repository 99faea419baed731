"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import ssl
import subprocess
from pathlib import Path

from benchmarks.process import ROOT


def describe_machine() -> dict[str, str]:
    """Return what two runs must share for their figures to be compared."""
    return {
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "TLS": ssl.OPENSSL_VERSION,
        "compiler": _first_line("cc", "--version"),
        "tornado": importlib.metadata.version("tornado"),
    }


def describe_checkout() -> str:
    """Return the commit, and whether the tree differs from it; "" where there is no git."""
    commit = _first_line("git", "rev-parse", "--short=12", "HEAD")
    changed = _first_line("git", "status", "--porcelain", "--untracked-files=no", "--", "tornado_ws")
    return f"{commit}, changed since" if commit and changed else commit


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware"):
            return value.strip()
    return platform.machine()


def _memory() -> str:
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{kib / 1024 / 1024:.0f} GiB"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        return ""
    return (done.stdout.splitlines() or [""])[0] if done.returncode == 0 else ""
