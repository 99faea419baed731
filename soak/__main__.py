"""Run it: ``python -m soak [--minutes N] [--seed SEED] [--connections N] [--connects N]``; needs the extra `test`.

First come rounds of many connections at a time, for half of the minutes, then connections that end and end, in rounds
too; each until its number is reached at least. The first round of each kind warms up. After each later one, every
process has to hold what it held then. The exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trustme

from soak.plans import CONNECTS, LOAD
from soak.process import HOSTS, PATIENCE, Child, raise_limit
from tornado_ws import engine

#: What may be held in place of what was, for each connection since: the allocators keep some of their own.
_GROWTH = {"Python blocks": 0.5, "malloc bytes": 100.0}
#: The same, however few connections there were.
_SLACK = {"Python blocks": 3000, "malloc bytes": 3 << 20}
#: What has to be as it was.
_EXACT = ("descriptors", "tasks")


class Soak:
    def __init__(self, children: dict[str, Child], seed: str) -> None:
        self.children = children
        self.seed = seed
        self.failures = 0

    async def round(self, phase: str, first: int, last: int, at_a_time: int) -> int:
        """Make the connections from ``first`` to before ``last``; return how many were open at a time, if known."""
        server, drivers = self.children["server"], [self.children["clients"], self.children["peers"]]
        holding = phase == LOAD
        await server.do("begin", phase=phase)
        arguments = {"phase": phase, "first": first, "last": last, "at_a_time": at_a_time, "holding": holding}
        opened = await asyncio.gather(*[driver.do("begin", **arguments) for driver in drivers])
        await asyncio.gather(*[driver.do("end") for driver in drivers])
        await server.do("end", first=first, last=last)
        for name, child in self.children.items():
            found = await child.do("failures")
            self.failures += found["count"]
            for told in found["told"]:
                print(f"WRONG in {name}: {told}")
            if found["count"] > len(found["told"]):
                print(f"WRONG in {name}: {found['count'] - len(found['told'])} more")
        return sum(opened)

    async def held(self, before: dict[str, Any] | None) -> dict[str, Any]:
        """Return what the processes hold, as soon as it is what they held before."""
        deadline = time.monotonic() + PATIENCE
        while True:
            now = {name: await child.do("held") for name, child in self.children.items()}
            if before is None or time.monotonic() > deadline:
                return now
            if all(now[name][what] <= before[name][what] for name in now for what in _EXACT):
                return now
            await asyncio.sleep(0.1)

    def compare(self, before: dict[str, Any], now: dict[str, Any], connections: int) -> None:
        """Print the growth for each connection, and count it if it is too much."""
        for name in now:
            growth = {what: now[name][what] - before[name][what] for what in now[name]}
            each = ", ".join(
                f"{growth[what] / connections:.2f} {what}"
                for what in ("resident bytes", "malloc bytes", "Python blocks")
            )
            left = ", ".join(f"{now[name][what]} {what} ({before[name][what]} before)" for what in _EXACT)
            print(f"  {name}: grown for each connection by {each}; {left}")
            for what, allowed in _GROWTH.items():
                if growth[what] > allowed * connections + _SLACK[what]:
                    self.wrong(f"{name} holds {growth[what]} {what} more after {connections} connections")
            for what in _EXACT:
                if growth[what] > 0:
                    self.wrong(f"{name} holds {growth[what]} {what} more after {connections} connections")

    def wrong(self, what: str) -> None:
        self.failures += 1
        print(f"WRONG: {what}")

    async def phase(self, phase: str, size: int, rounds: int, at_a_time: int, until: float) -> None:
        number, done, before = 0, 0, None
        while number <= rounds or time.monotonic() < until:
            opened = await self.round(phase, number * size, (number + 1) * size, at_a_time)
            now = await self.held(before)
            kind = f"{opened} open at a time" if opened else "of every way to end"
            print(f"{phase}: round {number}{'' if number else ', to warm up'}: {size} connections, {kind}", flush=True)
            if before is None:
                before = now
            else:
                done += size
                self.compare(before, now, done)
            number += 1


async def _run(arguments: argparse.Namespace, certificates: Path) -> int:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(certificates / "authority.pem")
    authority.issue_cert(*HOSTS).private_key_and_cert_chain_pem.write_to_path(certificates / "server.pem")
    async with contextlib.AsyncExitStack() as stack:
        children = {
            name: await stack.enter_async_context(Child.start(name, arguments.seed, certificates))
            for name in ("server", "clients", "peers")
        }
        for servers, users in (("server", ("clients", "peers")), ("peers", ("clients",))):
            addresses = await children[servers].do("listen")
            for name in users:
                await children[name].do("connect_to", servers=addresses)
        soak = Soak(children, arguments.seed)
        start, seconds = time.monotonic(), arguments.minutes * 60
        await soak.phase(LOAD, arguments.connections, arguments.rounds, 100, start + seconds / 2)
        size = min(arguments.connects, 2000)
        rounds = -(-arguments.connects // size)
        await soak.phase(CONNECTS, size, rounds, 100, start + seconds)
    return soak.failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0, help="at least (0)")
    parser.add_argument("--seed", default=f"{random.getrandbits(32):x}", help="of an earlier run; else a new one")
    parser.add_argument("--connections", type=int, default=10000, help="at a time (10000)")
    parser.add_argument("--connects", type=int, default=100000, help="that end and end, at least (100000)")
    parser.add_argument("--rounds", type=int, default=1, help="of connections at a time behind the first, at least (1)")
    arguments = parser.parse_args()
    descriptors = raise_limit()
    if arguments.connections > descriptors - 1000:
        parser.error(f"{arguments.connections} connections need as many descriptors; the limit is {descriptors}")
    print(f"seed {arguments.seed}, {engine.name} engine", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        failures = asyncio.run(_run(arguments, Path(directory)))
    print(f"{failures} wrong; seed {arguments.seed}" if failures else "nothing lost, doubled, reordered or left")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
