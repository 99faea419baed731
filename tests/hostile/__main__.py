"""``python -m tests.hostile``: print the tables of docs/security.md.

With arguments, of the attacks alone whose names have one of them in it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from tests.hostile import from_clients, from_servers
from tests.hostile.attacks import KIB, Attack
from tests.hostile.run import Result, run_against_client, run_against_server

_ENGINES = ("native", "python")


def _size(size: int) -> str:
    return f"{size / KIB:,.0f}"


def title(attack: Attack) -> str:
    return attack.name + (f", {attack.connections} connections" if attack.connections > 1 else "")


def bound(attack: Attack) -> str:
    return _size(attack.most_memory)


def _end(result: Result) -> str:
    return ", ".join(result.during.ends) or ("stay open" if result.during.opened else "none opened")


async def row(attack: Attack, run: Callable[..., Awaitable[Result]]) -> str:
    """Measure ``attack``: once for its memory, and once for the time."""
    memory = [await run(attack, attack.memory, engine) for engine in _ENGINES]
    times = [await run(attack, "none", engine) for engine in _ENGINES]
    cells = [
        title(attack),
        bound(attack),
        " / ".join(_size(result.during.peak // attack.connections) for result in memory),
        " / ".join(f"{result.during.most_callbacks}" for result in memory),
        " / ".join(_size(result.during.most_size) for result in memory),
        " / ".join(f"{result.during.most_wait * 1000:.0f}" for result in times),
        _end(memory[0]),
    ]
    return f"| {' | '.join(cells)} |"


_HEAD = (
    "| attack | bound, KiB | measured, KiB | calls between two answers | KiB of it between two answers "
    "| longest wait, ms | its connections |\n|---|---|---|---|---|---|---|"
)


async def main() -> None:
    for heading, attacks, run in (
        ("Servers", from_clients.ATTACKS, run_against_server),
        ("Clients", from_servers.ATTACKS, run_against_client),
    ):
        print(f"### {heading}\n\n{_HEAD}")
        for name, attack in attacks.items():
            if len(sys.argv) == 1 or any(argument in name for argument in sys.argv[1:]):
                print(await row(attack, run), flush=True)
        print()


if __name__ == "__main__":
    asyncio.run(main())
