"""What one large message takes, in both directions at once of memory and of time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.programs import ROOT, environment, untraced

MIB = 1024 * 1024
SIZE = 1024 * MIB
#: Bytes of addresses by which a process may grow that sends and receives so much.
GROWTH = 64 * MIB
#: Seconds: it takes some 5 of a processor, which may have much else to do.
PATIENCE = 280


@pytest.mark.timeout(PATIENCE + 20)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_a_message_of_a_gibibyte_takes_no_memory_in_either_direction() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.connection.large_stream", str(SIZE), str(GROWTH)],
        cwd=ROOT,
        env={**untraced(), "PYTHONPATH": environment()["PYTHONPATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["there"][0] == said["back"][0] == SIZE
    # The same bytes again and again, but other ones in each process.
    assert said["there"] == said["back"]
    assert said["grown"] <= GROWTH
