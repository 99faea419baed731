"""A server of ``examples/`` whose port somebody has says so in a line."""

from __future__ import annotations

import socket

import pytest

from tests.programs import ROOT, run

SERVERS = ["authentication/authentication.py", "metrics/metrics.py", "shutdown/server.py"]
#: Of the socket that Tornado could not bind, and does not close.
QUIET = ("-W", "ignore::ResourceWarning")


@pytest.mark.parametrize("by", ["argument", "environment"])
@pytest.mark.parametrize("script", SERVERS)
def test_a_port_that_is_taken_is_said_in_a_line(script: str, by: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        path = str(ROOT / "examples" / script)
        done = run(*QUIET, path, "--port", port) if by == "argument" else run(*QUIET, path, PORT=port)
    assert done.returncode == 1
    assert done.stderr == f"Cannot listen on port {port}: Address already in use. --port 0 takes any free one.\n"


@pytest.mark.parametrize("script", SERVERS)
def test_a_port_that_is_no_number_is_said_too(script: str) -> None:
    done = run(str(ROOT / "examples" / script), PORT="http")
    assert done.returncode == 2
    assert "argument --port: invalid int value: 'http'" in done.stderr
    assert "Traceback" not in done.stderr
