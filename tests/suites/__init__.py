"""The own tests of packages that use ``tornado.websocket``, with Tornado's module and with ``install()``.

``packages.ini`` says which packages and which of their tests. ``python -m tests.suites`` runs them, keeps what came of
it in ``recorded.json``, and writes docs/compatibility.md from that. It needs a package index, so CI does not run it.
"""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).absolute().parents[2]
_PACKAGES = Path(__file__).with_name("packages.ini")


class Suite(NamedTuple):
    """A package, and those of its tests that are about WebSockets."""

    #: As package indexes have it.
    name: str
    #: What pip installs: the package with the extra of its tests, and what else these need.
    requirements: tuple[str, ...]
    #: Arguments of pytest, in the folder of the package's source distribution.
    tests: tuple[str, ...]
    #: By test, why its outcomes are not those that it has with Tornado's module.
    reasons: dict[str, str]


def load(path: Path = _PACKAGES) -> dict[str, Suite]:
    """Return the packages of ``packages.ini`` by name. Raises ValueError, with the name, for one that is not whole."""
    parser = configparser.ConfigParser(interpolation=None, delimiters="=")
    parser.read_string(path.read_text(encoding="utf-8"))
    return {name: _suite(name, dict(parser[name])) for name in parser.sections()}


def _suite(name: str, fields: dict[str, str]) -> Suite:
    unknown = fields.keys() - {"requirements", "tests", "reasons"}
    if unknown or not fields.get("requirements") or not fields.get("tests"):
        raise ValueError(f"{name} has {sorted(fields)}; it needs requirements and tests, and may have reasons")
    reasons = {}
    for line in filter(None, fields.get("reasons", "").splitlines()):
        test, separator, reason = line.partition(" = ")
        if not separator:
            raise ValueError(f"{name}: a reason is written TEST = REASON, not {line!r}")
        reasons[test] = reason
    return Suite(name, tuple(fields["requirements"].split()), tuple(fields["tests"].split()), reasons)
