"""One attack from its beginning to its end."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from tests.hostile.attacks import Attack, Attackers
from tests.hostile.from_clients import Clients
from tests.hostile.from_servers import Servers
from tests.hostile.measure import Program, Report, running_client, running_server
from tests.peer import raw_server


class Result(NamedTuple):
    """What the attacked said when the attack had come as far as it gets, and when its connections had vanished."""

    during: Report
    after: Report


async def run_against_server(attack: Attack, memory: str, engine: str | None = None) -> Result:
    """Run ``attack`` against a server of its own with one of the `tests.hostile.meter.METERS`."""
    async with running_server(attack.settings, memory, tls=attack.tls, engine=engine) as program:
        async with contextlib.AsyncExitStack() as stack:
            during = await _during(attack, program, Clients(program, stack))
        return await _over(program, during)


async def run_against_client(attack: Attack, memory: str, engine: str | None = None) -> Result:
    """The same, against a client."""
    async with (
        raw_server(stalling=True) as server,
        running_client(attack.settings, memory, port=server.port, engine=engine) as program,
    ):
        async with contextlib.AsyncExitStack() as stack:
            during = await _during(attack, program, Servers(program, stack, server))
        return await _over(program, during)


async def _during(attack: Attack, program: Program, attackers: Attackers) -> Report:
    await program.ask("begin")
    during = await attack.run(attackers)
    # Another client is served all the while.
    await program.until(lambda report: report.answers > during.answers)
    return during


async def _over(program: Program, during: Report) -> Result:
    return Result(during, await program.until(lambda report: not report.open, "settle"))
