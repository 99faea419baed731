"""``python -m tests.installed ENGINE``: fail where the installed wheel is not whole, or has another engine.

For environments that a wheel was installed into, and a working directory without the checkout's package.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import tornado_ws
from tornado_ws.deflate import backends

#: What a wheel has beside its modules.
_FILES = ("_tornado_ws_finder.py", "tornado_ws.pth", "tornado_ws/py.typed", "tornado_ws/startup/sitecustomize.py")


def faults(engine: str) -> list[str]:
    """Return what is wrong with the installation, if it is to have that engine, "native" or "python"."""
    distribution = importlib.metadata.distribution("tornado_ws")
    listed = {str(file): Path(str(file.locate())) for file in distribution.files or ()}
    bill = next((path for name, path in listed.items() if name.endswith("/sboms/tornado_ws.cdx.json")), None)
    compiled_in = [each["name"] for each in json.loads(bill.read_text())["components"]] if bill else None
    imported = Path(tornado_ws.__file__)
    checks = {
        f"tornado_ws is imported from {imported}": listed.get("tornado_ws/__init__.py", Path()).samefile(imported),
        f"the engine is {tornado_ws.engine.name}: {tornado_ws.engine.reason}": tornado_ws.engine.name == engine,
        f"the version is {tornado_ws.__version__}": tornado_ws.__version__ == distribution.version,
        f"the SBOM lists {compiled_in}": compiled_in == (["cython"] if engine == "native" else []),
        f"{sorted({*_FILES} - {*listed})} are missing": {*_FILES} <= {*listed},
    }
    if engine == "native" and sys.platform != "win32":
        zlib = backends.choose_codecs("zlib", None, 8, 0).deflate_small.backend
        checks["zlib is not called natively"] = backends.library_of(zlib) is not None
    return [fault for fault, good in checks.items() if not good]


def main() -> int:
    found = faults(sys.argv[1])
    for fault in found:
        print(f"tornado_ws, installed: {fault}", file=sys.stderr)
    if not found:
        print(f"tornado_ws {tornado_ws.__version__} is whole, {tornado_ws.engine.name} engine, Python {sys.version}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
