"""What a machine may lack: said in one line and skipped, or a failure where nothing may be skipped."""

from __future__ import annotations

import os

import pytest

#: Set by ``.ci/run``: a missing tool is then a failed test instead of a skipped one.
NOTHING_SKIPPED = "TORNADO_WS_NOTHING_SKIPPED"


def need(found: object, what: str) -> None:
    """Skip the calling test (or fail it in CI) unless ``found`` is true; ``what`` names the tool."""
    if found:
        return
    if os.environ.get(NOTHING_SKIPPED):
        pytest.fail(f"{what} is missing and {NOTHING_SKIPPED} is set")
    pytest.skip(f"{what} is missing on this machine")
