"""How Sphinx makes the site: ``make docs`` shows it, ``make docs-check`` builds it with warnings as errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
# The native engine has neither signatures nor annotations.
os.environ["TORNADO_WS_ENGINE"] = "python"

import tornado_ws  # noqa: E402 it is found by the line above

project = "tornado_ws"
author = "the authors of tornado_ws"
version = release = tornado_ws.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "docs.tools.repository",
    "docs.tools.public_names",
    "docs.tools.llms",
]
exclude_patterns = ["inventories", "tools", "__pycache__"]

# Anchors as GitHub makes them, so that a link works there and here.
myst_heading_anchors = 4

# As Tornado's: a name in single backticks is a link where there is one.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # the other use of single backticks
    ("py:class", ".*"),  # in annotations, of what has no page
    ("py:exc", "HTTPTimeoutError"),  # Tornado has no page for it
]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80

# Inventories that stand here: CI has no network, and pages of others that moved are not an error of ours.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", str(HERE / "inventories" / "python.inv")),
    "tornado": ("https://www.tornadoweb.org/en/stable", str(HERE / "inventories" / "tornado.inv")),
}

linkcheck_anchors_ignore_for_url = ["https://github.com/.*"]

html_theme = "furo"
html_title = f"tornado_ws {release}"
html_sourcelink_suffix = ""
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2456a5", "color-brand-content": "#2456a5"},
    "dark_css_variables": {"color-brand-primary": "#8ab4f8", "color-brand-content": "#8ab4f8"},
}
