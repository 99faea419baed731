"""References as docstrings have them: to a public name of ours, or to the one name of Tornado that ends so."""

from __future__ import annotations

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.intersphinx import InventoryAdapter, missing_reference

import tornado_ws


def _in_tornado(env: BuildEnvironment, name: str) -> str | None:
    """Return the whole name of what ends in ``name``, where that is one thing."""
    inventory = InventoryAdapter(env).named_inventory["tornado"]
    names = {whole for things in inventory.values() for whole in things if whole.endswith(f".{name}")}
    return names.pop() if len(names) == 1 else None


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contents: nodes.TextElement
) -> nodes.reference | None:
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    name = target.rpartition(".")[2]
    # Where it is defined, which has no page.
    if target.startswith("tornado_ws.") and name in tornado_ws.__all__:
        python = env.domains["py"]
        return python.resolve_xref(env, node["refdoc"], app.builder, "obj", f"tornado_ws.{name}", node, contents)
    if whole := _in_tornado(env, target):
        node["reftarget"] = whole
        return missing_reference(app, env, node, contents)
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
