"""Every block of every page is run, checked, or says why it is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.docs.blocks import HIDDEN, PAGES, Block, blocks_of, parsed
from tests.docs.checking import CHECKS
from tests.docs.commands import check_command
from tests.docs.running import run_page
from tests.programs import ROOT

BLOCKS = {page: blocks_of(page) for page in PAGES}
_ALL = [block for blocks in BLOCKS.values() for block in blocks]
_RUN = ("python", "sh", HIDDEN)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language in _RUN for b in BLOCKS[page])], ids=_name)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    asyncio.run(run_page(BLOCKS[page], tmp_path))


@pytest.mark.parametrize(
    "block",
    [block for block in _ALL if block.language in CHECKS and block.mark != "not run"],
    ids=lambda block: block.place,
)
def test_block_is_accepted(block: Block, tmp_path: Path) -> None:
    CHECKS[block.language](block.code, tmp_path)


def test_every_block_says_what_it_is() -> None:
    # Those in braces are for Sphinx, which complains about what it does not know.
    known = {*_RUN, *CHECKS}
    others = [b for b in _ALL if b.language not in known and not b.language.startswith("{") and b.mark != "not run"]
    assert [f"{block.place}: {block.language or 'no language'}" for block in others] == []


def test_few_blocks_are_not_run() -> None:
    left_out = [f"{block.place}: {block.argument}" for block in _ALL if block.mark == "not run"]
    assert len(left_out) * 10 <= len([block for block in _ALL if block.language != HIDDEN]), "\n".join(left_out)


# The tests themselves


def _run(tmp_path: Path, text: str) -> None:
    page = ROOT / "docs" / "page.md"
    asyncio.run(run_page(list(parsed(page, text)), tmp_path))


def test_a_page_has_one_namespace_and_a_running_loop(tmp_path: Path) -> None:
    _run(
        tmp_path,
        """
<!-- test
page.replace("example.com", "loopback")
import asyncio
-->

```python
host = "example.com"
await asyncio.sleep(0)
```

<!-- test
assert host == "loopback"
-->

<!-- test: until seen == 3 -->

```python
seen = 0
while True:
    seen = min(seen + 1, 3)
    await asyncio.sleep(0)
```

<!-- test: not run: it would fail -->

```python
raise AssertionError
```
""",
    )


def test_a_block_that_fails_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as failed:
        _run(tmp_path, "text\n\n```python\nx = 0\n1 / x\n```\n")
    assert (str(failed.traceback[-1].path), failed.traceback[-1].lineno + 1) == ("docs/page.md", 5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- test: not run -->\n```python\n```\n", "is no comment for the tests"),
        ("<!-- test: file a.py -->\n\nSomething else.\n", "no block follows"),
        ("```python\n", "nothing ends"),
    ],
)
def test_a_comment_that_means_nothing_is_an_error(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        list(parsed(ROOT / "docs" / "page.md", text))


@pytest.mark.parametrize(
    "command",
    [
        "make nothing",
        "make fuzz HOURS=1",
        "python -m tornado_ws.nothing",
        "python -m benchmarks --nothing",
        "pip install 'tornado_ws[nothing]'",
        "python examples/nothing.py",
    ],
)
def test_a_command_that_is_not_there_is_found(command: str) -> None:
    with pytest.raises(AssertionError):
        check_command(command)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("nginx", "server { proxy_nothing 1; }\n"),
        ("haproxy", "defaults\n    nothing 1\n"),
        ("ini", "[Service]\nExecStart=relative\nNothing=1\nType=nothing\n"),
        ("js", "const = 1;\n"),
        ("html", "<p><b></p>\n"),
        ("dockerfile", "FROM python:3.13\nNOTHING x\n"),
        ("yaml", "a: [\n"),
        ("json", "{a: 1}\n"),
    ],
)
def test_a_wrong_block_is_found(language: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"(?s)."):
        CHECKS[language](code, tmp_path)
