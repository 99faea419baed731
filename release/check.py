"""What is wrong with a source distribution or a wheel, by what is in it."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

#: Of the checkout, what is for git and for editors.
_LEFT_OUT = {".editorconfig", ".gitignore"}
#: Bytes of a module of the native engine, more than three times what one has: with symbols it is beyond.
_MODULE_SIZE = 1_500_000
_MODULES = {"tornado_ws/engine/_native", "tornado_ws/deflate/_deflate"}


def sdist_faults(sdist: Path, sources: Iterable[str]) -> list[str]:
    """Return what is wrong with a source distribution of a checkout that has ``sources``."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = sorted({*sources} - names - _LEFT_OUT)
    faults = [f"{sdist.name} lacks {name}" for name in missing]
    return faults + [f"{sdist.name} has {name}" for name in names if re.search(r"\.(so|pyd|pyc)$|/_\w+\.c$", name)]


def wheel_faults(wheel: Path, *, pure: bool) -> list[str]:
    """Return what is wrong with a wheel of the pure engine, or of the native one."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        bill = next((name for name in sizes if name.endswith(".dist-info/sboms/tornado_ws.cdx.json")), None)
        listed = [each["name"] for each in json.loads(archive.read(bill))["components"]] if bill else None
    modules = {name: size for name, size in sizes.items() if re.search(r"\.(so|pyd)$", name)}
    found = {name.partition(".")[0] for name in modules}
    checks = {
        f"has the tag of {'a platform' if pure else 'none'}": wheel.stem.endswith("-py3-none-any") == pure,
        f"has the modules {sorted(found)}": found == (set() if pure else _MODULES),
        f"has modules with symbols: {modules}": all(size < _MODULE_SIZE for size in modules.values()),
        f"has an SBOM of {listed}": listed == ([] if pure else ["cython"]),
        "has sources of modules": not any(re.search(r"\.(c|h|pyx|pxi)$", name) for name in sizes),
        "lacks its license": any(name.endswith("/licenses/LICENSE") for name in sizes),
        "has more than the package": all(re.match(r"_?tornado_ws", name) for name in sizes),
    }
    return [f"{wheel.name} {fault}" for fault, good in checks.items() if not good]
