"""``python -m tests.faults``: all faults of all scenarios, or of those that are named, each in a program of its own."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.scenarios import SCENARIOS
from tests.faults.shim import FUNCTIONS, build, missing, sweep


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; all if none")
    parser.add_argument("--seed", default="1", help="of storms, and of what --most chooses")
    parser.add_argument("--most", help="so many faults for each scenario")
    parser.add_argument("--only", help="one fault, as it is printed")
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, help="those that fail; all if not given")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    lack = missing()
    if lack is not None:
        sys.exit(f"{lack} is missing")
    arguments = ["--seed", options.seed]
    for name in ("most", "only"):
        if getattr(options, name) is not None:
            arguments += [f"--{name}", getattr(options, name)]
    if options.functions:
        arguments += ["--functions", *options.functions]
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder))
        for scenario in options.scenarios or SCENARIOS:
            print(f"{scenario} with seed {options.seed}", flush=True)
            swept = sweep(library, scenario, *arguments)
            print(swept.output, flush=True)
            if swept.broken is not None:
                broken.append(scenario)
            # Without a fault, nothing can be begun behind it.
            while swept.broken:
                swept = sweep(library, scenario, *arguments, "--after", swept.broken)
                print(swept.output, flush=True)
    if broken:
        sys.exit(f"broken: {', '.join(broken)}")


if __name__ == "__main__":
    main()
