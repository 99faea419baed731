"""Run the targets from the corpus: ``python -m fuzz [--minutes N] [--merge] [TARGET ...]``; needs the extra `fuzz`.

New inputs go to reports/fuzz. ``--merge`` makes the corpus the fewest inputs, of it and of the new ones, that reach as
much. An input that fails becomes a file of the corpus, ``crash-...``, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from fuzz import CORPUS, TARGETS, is_named_by_content

#: Bytes of the longest input. A longer one takes more time and finds nothing else.
_LONGEST = 400
#: Seconds after which an input hangs. Not a measure of speed.
_TOO_LONG = 60
_FOUND = Path("reports/fuzz")


def _fuzz(target: str, arguments: list[str]) -> None:
    """Hand this process over to the fuzzer, which ends it."""
    import atheris

    with atheris.instrument_imports(include=["tornado_ws", "fuzz"]):
        check = importlib.import_module(f"fuzz.{target}").check
    # Merging starts the first argument again, by the shell.
    atheris.Setup([shlex.join([sys.executable, "-m", "fuzz", "--child", target]), *arguments], check)
    atheris.Fuzz()


def _child(target: str, *arguments: str | Path) -> bool:
    """Run the fuzzer in a process of its own; return whether nothing failed. What failed is in the corpus then."""
    flags = [f"-max_len={_LONGEST}", f"-artifact_prefix={CORPUS / target}/", f"-timeout={_TOO_LONG}"]
    flags.append(f"-report_slow_units={_TOO_LONG}")
    return subprocess.run([sys.executable, "-m", "fuzz", "--child", target, *flags, *arguments]).returncode == 0


def _run(target: str, seconds: float, merge: bool) -> bool:
    """Return whether nothing failed."""
    corpus, found = CORPUS / target, _FOUND / target
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    # 0 would be without end.
    seconds = round(seconds)
    good = seconds == 0 or _child(target, "-print_final_stats=1", f"-max_total_time={seconds}", found, corpus)
    return (not merge or _merge(target)) and good


def _merge(target: str) -> bool:
    """Make the corpus the fewest inputs, of it and of those found, that reach as much. What once failed stays."""
    corpus, merged = CORPUS / target, _FOUND / f"{target}-merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir()
    before = [path for path in corpus.iterdir() if is_named_by_content(path)]
    for path in {*corpus.iterdir()}.difference(before):
        shutil.copy(path, merged)
    if not _child(target, "-set_cover_merge=1", merged, corpus, _FOUND / target):
        return False
    for path in before:
        path.unlink()
    for path in merged.iterdir():
        shutil.copy(path, corpus)
    return True


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        _fuzz(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=5, help="for all targets together; 0 to merge alone (5)")
    parser.add_argument("--merge", action="store_true", help="make the corpus the fewest inputs that reach as much")
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    for target in targets:
        if target not in TARGETS:
            parser.error(f"target is {target!r}; there are {', '.join(TARGETS)}")
    seconds = arguments.minutes * 60 / len(targets)
    good = [_run(target, seconds, arguments.merge) for target in targets]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
