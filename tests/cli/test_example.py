"""``examples/cli``: a shell script with a server and clients."""

from __future__ import annotations

import subprocess
import sys

from tests.programs import ROOT, environment
from tests.support import PATIENCE

PRINTED = """\
{"id":1,"tags":[]}
"no JSON"
measured: 100 round trips
without the certificate: status 3
"""


def test_a_shell_script() -> None:
    done = subprocess.run(
        ["sh", ROOT / "examples" / "cli" / "pipe.sh"],
        cwd=ROOT,
        env=environment(PYTHON=sys.executable),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, PRINTED, "")
