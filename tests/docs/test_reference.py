"""The reference: every public name stands on one page of it, and what makes the site of the pages."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import tornado_ws
from tests.programs import ROOT

REFERENCE = ROOT / "docs" / "reference"
_DOCUMENTED = re.compile(r"^\.\. (?:auto\w+|data):: (\S+)$", re.MULTILINE)


def documented() -> Counter[str]:
    return Counter(name for page in REFERENCE.glob("*.rst") for name in _DOCUMENTED.findall(page.read_text()))


def test_every_public_name_is_on_one_page() -> None:
    names = documented()
    assert {name: names[f"tornado_ws.{name}"] for name in tornado_ws.__all__ if names[f"tornado_ws.{name}"] != 1} == {}


def test_every_error_that_is_public_is_one_of_them() -> None:
    assert documented() >= Counter(
        f"tornado_ws.{name}" for name in dir(tornado_ws.errors) if name in tornado_ws.__all__ and name.endswith("Error")
    )


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "project").glob("*.md")), ids=lambda page: page.name)
def test_a_page_for_a_file_elsewhere_is_a_link_to_it(page: Path) -> None:
    """GitHub shows the link; `docs/tools/repository.py` has the site show the file."""
    (target,) = re.findall(r"\]\((.*)\)", page.read_text())
    file = (page.parent / target).resolve()
    assert file.exists()
    table = (ROOT / "docs" / "tools" / "repository.py").read_text()
    assert f'"{file.relative_to(ROOT)}": "project/{page.stem}"' in table
