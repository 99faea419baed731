"""What a machine lacks is looked for once in a run, and said in one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.needs import NOTHING_SKIPPED
from tests.programs import run

#: An npm whose registry cannot be reached, and which says where it was called.
NPM = """\
#!/bin/sh
echo called >>"$(dirname "$0")/calls"
echo "npm error code ENOTFOUND" >&2
echo "npm error A complete log of this run can be found in: /logs/$$" >&2
exit 1
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for npm is a shell script")
def test_npm_is_called_once_in_a_run_and_said_to_be_in_vain_in_one_line(tmp_path: Path) -> None:
    for name, text in (("npm", NPM), ("node", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    changes: dict[str, Any] = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    changes |= {"PYTEST_XDIST_TESTRUNUID": "", NOTHING_SKIPPED: ""}
    tests = ["tests/test_peers.py", "-k", "node-ws and refusal"]
    done = run("-W", "default", "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *tests, **changes)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "npm" in line)
    assert "the npm package ws (npm install: npm error code ENOTFOUND" in line
    assert (tmp_path / "calls").read_text() == "called\n"


def test_the_next_run_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "CACHE", tmp_path)
    outcomes = ["away", ""]
    for run_id, outcome in (("1", "away"), ("1", "away"), ("2", "")):
        monkeypatch.setattr(needs, "_RUN", run_id)
        assert needs.once_a_run("it", lambda: outcomes.pop(0)) == outcome
