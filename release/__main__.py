"""``python -m release``: build what is released into a folder, and try it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from release.build import build_sdist, build_wheel, call, sources, unpack
from release.check import sdist_faults, wheel_faults
from release.environments import Environment


def _repair(wheel: Path, out: Path) -> Path:
    """Put ``wheel`` into ``out``, with the tag of the oldest Linux that it runs on; elsewhere as it is."""
    if sys.platform != "linux":
        return Path(shutil.copy(wheel, out))
    before = {*out.glob("*.whl")}
    call(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", out, wheel)
    return ({*out.glob("*.whl")} - before).pop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("dist"), help="where to; %(default)s by default")
    parser.add_argument("--python", action="append", default=[], help="try its wheel of the native engine too")
    parser.add_argument("--native", action="store_true", help="keep the wheel of this Python and platform")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        sdist = build_sdist(work)
        unpacked = unpack(sdist, work)
        wheels = [(build_wheel(unpacked, work, pure=pure), pure) for pure in (True, False)]
        faults = sdist_faults(sdist, sources())
        for wheel, pure in wheels:
            faults += wheel_faults(wheel, pure=pure)
        if faults:
            print(*faults, sep="\n", file=sys.stderr)
            return 1
        pure_wheel, native = wheels[0][0], _repair(wheels[1][0], work / "repaired")
        kept = [sdist, pure_wheel, *([native] if arguments.native else [])]
        print(call(sys.executable, "-m", "twine", "check", "--strict", sdist, pure_wheel, native))
        for name, python, installed, engine in [
            ("pure", sys.executable, pure_wheel, "python"),
            ("native", sys.executable, native, "native"),
            *((f"from-source-{index}", python, sdist, "native") for index, python in enumerate(arguments.python)),
        ]:
            environment = Environment(work / name, python)
            environment.install(installed)
            print(f"{installed.name}: {environment.try_out(unpacked, engine)}", flush=True)
        for path in kept:
            shutil.copy(path, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
