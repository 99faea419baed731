"""One attack from its beginning to its end."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from tests.hostile.attacks import Attack, Attackers
from tests.hostile.measure import Report, running_server


class Result(NamedTuple):
    """What the server said when the attack had come as far as it gets, and when its clients had vanished."""

    during: Report
    after: Report


async def run(attack: Attack, memory: str, engine: str | None = None) -> Result:
    """Run ``attack`` against a server of its own with one of the `tests.hostile.server.METERS`."""
    async with running_server(attack.settings, memory, tls=attack.tls, engine=engine) as server:
        await server.ask("begin")
        async with contextlib.AsyncExitStack() as stack:
            during = await attack.run(Attackers(server, stack))
            # Another client is served all the while.
            await server.until(lambda report: report.answers > during.answers)
        return Result(during, await server.until(lambda report: not report.open, "settle"))
