"""Links between files, as GitHub follows them; those between pages of the site are checked by Sphinx, with anchors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES
from tests.programs import ROOT

_BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_exists(page: Path) -> None:
    targets = _LINK.findall(_BLOCK.sub("", page.read_text()))
    assert [target for target in targets if not (page.parent / target).exists()] == []
