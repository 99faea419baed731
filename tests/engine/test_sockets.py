"""The calls of sockets that the native engine makes, by themselves, in C."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.needs import need, need_compiler
from tests.programs import ROOT


def test_sockets_that_never_block(tmp_path: Path) -> None:
    headers = ROOT / "tornado_ws" / "engine" / "native"
    need(headers.exists() and sys.platform != "win32", "the checkout")
    compiler = need_compiler()
    program = tmp_path / "sockets"
    includes = [f"-I{headers}", f"-I{sysconfig.get_path('include')}"]
    source = Path(__file__).with_name("sockets.c")
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", *includes, source, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
