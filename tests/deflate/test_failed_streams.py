"""Streams of deflate when memory runs out: the tests of `tests.deflate.failed_streams`, in a process of their own.

Allocations fail in all threads at once, and workers of pytest have one that receives what they are to do.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.programs import ROOT


def test_what_was_lost_is_not_used_afterwards() -> None:
    tests = Path(__file__).with_name("failed_streams.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(tests)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
    assert " passed" in result.stdout
