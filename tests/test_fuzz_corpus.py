"""The corpus of the fuzzer, replayed without it. A crash that was found stays in it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from fuzz import CORPUS, TARGETS, is_named_by_content
from fuzz.oracles import DIFFERENCES

INPUTS = sorted(CORPUS.glob("*/*"))


def test_each_target_has_a_corpus_and_no_corpus_is_without_a_target() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


def test_what_once_failed_says_in_its_name_what_it_shows() -> None:
    others = [path.name for path in INPUTS if not is_named_by_content(path)]
    assert [name for name in others if not re.fullmatch("crash(-[a-z]+)+", name)] == []


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_input_of_the_corpus_shows_no_difference(path: Path) -> None:
    importlib.import_module(f"fuzz.{path.parent.name}").check(path.read_bytes())


def test_the_page_has_each_difference_from_the_oracles() -> None:
    page = (CORPUS.parents[1] / "docs" / "fuzzing.md").read_text()
    rows = page.partition("## Where the oracles differ")[2].partition("| --- | --- |\n")[2]
    assert rows.strip().splitlines() == [f"| {where} | {what} |" for where, what in DIFFERENCES.items()]
