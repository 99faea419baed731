"""The console script."""

from __future__ import annotations

import configparser
from pathlib import Path

from tests.programs import ROOT, run

PROGRAM = "tornado_ws.cli.program"


def test_the_console_script_runs_programs_too(tmp_path: Path) -> None:
    """What it is called as is in setup.cfg, and so in the metadata of an install."""
    scripts = configparser.ConfigParser()
    scripts.read(ROOT / "setup.cfg")
    assert scripts["options.entry_points"]["console_scripts"].split() == ["tornado-ws", "=", f"{PROGRAM}:main"]
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "tornado-ws"
    script.write_text(f"import sys\nfrom {PROGRAM} import main\nsys.exit(main())\n")
    (tmp_path / "module.py").write_text(
        "import sys, tornado.websocket\nprint(sys.argv[1:], tornado.websocket.__name__)\n"
    )
    for arguments in (["-m", "module"], ["module.py"]):
        result = run(str(script), "run", *arguments, "a", "--help", cwd=tmp_path)
        assert (result.returncode, result.stdout, result.stderr) == (0, "['a', '--help'] tornado_ws\n", "")
    usage = run(str(script), "nothing", cwd=tmp_path)
    assert usage.returncode == 2
    assert usage.stderr.startswith("usage: tornado-ws ")
