"""``python -m tests.conformance`` writes docs/conformance.md; with ``--check`` it says whether it would change."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys

import pytest

from tests import conformance
from tests.conformance import CHECKOUT, PAGE, Citation


class _Collector:
    """A plugin of pytest that keeps what the markers of collected tests say."""

    def __init__(self) -> None:
        self.cited: dict[str, list[Citation]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self._take(item)

    def _take(self, item: pytest.Item) -> None:
        spec = getattr(item, "callspec", None)
        of_case = list(spec.marks) if spec is not None else []
        file = item.path.relative_to(CHECKOUT).as_posix()
        test = getattr(item, "originalname", item.name)
        for marker in item.iter_markers("rfc"):
            # A case that is cited by its name is found by no other marker of the test.
            citation = Citation(file, test, spec.id if spec is not None and marker in of_case else None)
            for name in marker.args:
                tests = self.cited.setdefault(name, [])
                if citation not in tests:
                    tests.append(citation)


def collect() -> dict[str, list[Citation]]:
    """Return what the tests cite, as pytest collects them."""
    collector = _Collector()
    arguments = ["--collect-only", "-qq", "-p", "no:cacheprovider", "--rootdir", str(CHECKOUT), str(CHECKOUT / "tests")]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = pytest.main(arguments, plugins=[collector])
    if status != pytest.ExitCode.OK:
        sys.exit(f"{output.getvalue()}\nthe tests cannot be collected")
    return collector.cited


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where the page would change")
    check = parser.parse_args().check
    requirements = conformance.load()
    cited = collect()
    problems = conformance.problems(requirements, cited)
    if not problems:
        text = conformance.page(requirements, cited)
        if not check:
            PAGE.write_text(text, encoding="utf-8")
        elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            problems.append(f"{PAGE.relative_to(CHECKOUT)} is not what this makes; run python -m tests.conformance")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
