"""Pages as GitHub shows them, made right for the site: links out of ``docs/``, and comments for the tests."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent.parent

#: Files of the repository that are pages of the site; what stands in ``docs/`` for each is a link to it.
PAGES = {
    "CHANGELOG.md": "project/changelog",
    "CODE_OF_CONDUCT.md": "project/conduct",
    "CONTRIBUTING.md": "project/contributing",
    "SECURITY.md": "project/security-policy",
    "benchmarks/results/corpus.md": "project/results-corpus",
    "benchmarks/results/results.md": "project/results",
}
_FILES = {page: file for file, page in PAGES.items()}
_HOME = {"README.md": "index"}

# A block of code, which stays as it is, or a comment.
_BLOCK_OR_COMMENT = re.compile(r"^```.*?^```$|^<!--.*?-->$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)((?:#[^)\s]*)?)(?=\))")


def on_site(text: str, file: str, docname: str) -> str:
    """Return ``text`` of ``file``, a path in the repository, for the page ``docname`` of the site.

    Links lead to pages of the site where there are such, and comments are gone. Each line keeps its number.
    """

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), match[1]))
        page = {**PAGES, **_HOME}.get(target)
        path = f"docs/{page}.md" if page else target
        return posixpath.relpath(path, posixpath.dirname(f"docs/{docname}")) + match[2]

    parts, done = [], 0
    for match in _BLOCK_OR_COMMENT.finditer(text):
        parts.append(_LINK.sub(link, text[done : match.start()]))
        parts.append(match[0] if match[0].startswith("`") else "\n" * match[0].count("\n"))
        done = match.end()
    return "".join([*parts, _LINK.sub(link, text[done:])])


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    if Path(app.env.doc2path(docname)).suffix != ".md":
        return
    file = _FILES.get(docname)
    if file is not None:
        app.env.note_dependency(str(ROOT / file))
        source[0] = (ROOT / file).read_text()
    source[0] = on_site(source[0], file or f"docs/{docname}.md", docname)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _read)
    app.add_lexer("haproxy", TextLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
