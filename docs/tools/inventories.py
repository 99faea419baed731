"""Make ``docs/inventories``, by which the site links to Python and Tornado: ``python -m docs.tools.inventories``.

It is told where the two inventories (``objects.inv``) are, as files or URLs, and keeps what a page of ours can name.
Debian has both, in python3.11-doc and python-tornado-doc.
"""

from __future__ import annotations

import argparse
import urllib.request
import zlib
from pathlib import Path

INVENTORIES = Path(__file__).parent.parent / "inventories"

#: Modules of Python whose names are kept, and the built-in names.
MODULES = (
    "asyncio",
    "collections.abc",
    "concurrent.futures",
    "contextlib",
    "contextvars",
    "http.cookiejar",
    "json",
    "logging",
    "os.PathLike",
    "pathlib",
    "signal",
    "socket",
    "ssl",
    "typing",
    "unittest",
    "urllib.request",
    "zlib",
)


def reduced(inventory: bytes, modules: tuple[str, ...]) -> bytes:
    """Return an inventory (version 2) with the Python names of ``modules`` alone, and those without a module."""
    *head, packed = inventory.split(b"\n", 4)
    kept = []
    for line in zlib.decompress(packed).decode().splitlines():
        name, kind = line.split(" ")[:2]
        if kind.startswith("py:") and ("." not in name or not modules or name.startswith(modules)):
            kept.append(line)
    return b"\n".join([*head, zlib.compress("\n".join([*kept, ""]).encode(), 9)])


def _read(place: str) -> bytes:
    if "://" not in place:
        return Path(place).read_bytes()
    with urllib.request.urlopen(place) as answer:
        content: bytes = answer.read()
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="objects.inv of Python")
    parser.add_argument("tornado", help="objects.inv of Tornado")
    arguments = parser.parse_args()
    for name, place, modules in (("python", arguments.python, MODULES), ("tornado", arguments.tornado, ())):
        (INVENTORIES / f"{name}.inv").write_bytes(reduced(_read(place), modules))


if __name__ == "__main__":
    main()
