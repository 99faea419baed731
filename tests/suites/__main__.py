"""``python -m tests.suites`` runs the tests of packages that use ``tornado.websocket``; see `tests.suites`."""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
from pathlib import Path

from tests.needs import CACHE
from tests.suites import Suite, load
from tests.suites.comparing import Outcomes, compare_runs
from tests.suites.environments import Environment, build_wheel
from tests.suites.page import PAGE, Record, page, read_records, unexplained, write_records
from tests.suites.running import Run, run


def _record(suite: Suite, cache: Path, wheel: Path) -> Record:
    environment = Environment(suite, cache, wheel)
    folder = environment.fetch_sdist(suite.name)
    runs: list[Run] = []

    def run_both() -> tuple[Outcomes, Outcomes]:
        both = [run(environment.python, folder, suite.tests, installed=installed) for installed in (False, True)]
        runs.extend(both)
        return both[0]["outcomes"], both[1]["outcomes"]

    compared = compare_runs(run_both)
    return Record(
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        version=environment.version,
        python=platform.python_version(),
        tornado=runs[-1]["tornado"],
        tornado_ws=environment.version_of_ours,
        engine=str(runs[-1]["engine"]),
        compared=compared,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.suites", description=__doc__)
    suites = load()
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(suites)} (all)")
    parser.add_argument("--cache", type=Path, default=CACHE / "suites", help="a folder for environments (%(default)s)")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page of what is recorded")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.packages if name not in suites]:
        parser.error(f"{', '.join(unknown)}: there is {', '.join(suites)}")
    records = {name: record for name, record in read_records().items() if name in suites}
    failures = []
    if not arguments.page:
        wheel = build_wheel(arguments.cache)
        for name in arguments.packages or suites:
            try:
                records[name] = _record(suites[name], arguments.cache, wheel)
            except (RuntimeError, SystemExit, subprocess.TimeoutExpired) as error:
                # The others are of use all the same.
                failures.append(f"{name}: {error}")
                continue
            write_records(records)
    PAGE.write_text(page(suites, records), encoding="utf-8")
    failures += unexplained(suites, records)
    print("\n".join(failures) or f"{len(records)} packages, {PAGE.name} is written")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
