"""``llms.txt``: a list of the site's pages for language models, each with its Markdown and its first sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import toctree
from sphinx.application import Sphinx

from docs.tools.repository import PAGES


def _first_paragraph(document: nodes.document) -> str:
    paragraph = next(iter(document.findall(nodes.paragraph)), None)
    return " ".join(paragraph.astext().split()) if paragraph is not None else ""


def _lines(app: Sphinx) -> Iterator[str]:
    env = app.env
    home = env.get_doctree(env.config.root_doc)
    yield f"# {env.config.project}"
    yield f"\n> {_first_paragraph(home)}"
    for tree in home.findall(toctree):
        yield f"\n## {tree['caption']}\n"
        for _, docname in tree["entries"]:
            source = Path(env.doc2path(docname)).suffix
            # What stands in docs/ for a file of the repository is only a link.
            path = f"{docname}.html" if docname in PAGES.values() else f"_sources/{docname}{source}"
            yield f"- [{env.titles[docname].astext()}]({path}): {_first_paragraph(env.get_doctree(docname))}"


def _write(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.name == "html":
        (Path(app.outdir) / "llms.txt").write_text("\n".join(_lines(app)) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
