"""The clients that the suite tests: they ask its server for case after case and echo what it sends.

There are two, since there are two ways to use the client: `read_message()` in a loop, and `on_message_callback`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.autobahn.cases import TIMED_GROUPS, group_of
from tests.autobahn.echo_server import MAX_MESSAGE_SIZE
from tornado_ws import WebSocketClientConnection, WebSocketClosedError, websocket_connect

Message = str | bytes

#: A connection that lingers is in the report only once the suite has given up on it, which takes 1 to 2 s.
LINGERING_SECONDS = 2.5


async def connect(url: str, on_message: Callable[[Message | None], None] | None = None) -> WebSocketClientConnection:
    return await websocket_connect(
        url,
        connect_timeout=10,
        on_message_callback=on_message,
        compression_options={},
        max_message_size=MAX_MESSAGE_SIZE,
    )


async def echo_by_reading(url: str) -> None:
    connection = await connect(url)
    try:
        while (message := await connection.read_message()) is not None:
            await connection.write_message(message, binary=isinstance(message, bytes))
    except WebSocketClosedError:
        pass
    finally:
        connection.close()


async def echo_by_callback(url: str) -> None:
    connection: WebSocketClientConnection | None = None
    early: list[Message] = []
    closed = asyncio.Event()

    def echo(connection: WebSocketClientConnection, message: Message) -> None:
        try:
            connection.write_message(message, binary=isinstance(message, bytes))
        except WebSocketClosedError:
            closed.set()

    def on_message(message: Message | None) -> None:
        if message is None:
            closed.set()
        elif connection is None:
            # Under Tornado a message that came with the handshake is here before connect() has returned.
            early.append(message)
        else:
            echo(connection, message)

    connection = await connect(url, on_message)
    try:
        for message in early:
            echo(connection, message)
        await closed.wait()
    finally:
        connection.close()


STYLES: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
    "read": echo_by_reading,
    "callback": echo_by_callback,
}


async def case_count(server: str) -> int:
    connection = await connect(f"{server}/getCaseCount")
    message = await connection.read_message()
    connection.close()
    if message is None:
        raise ConnectionError("the suite closed the connection without telling its number of cases")
    return int(json.loads(message))


async def update_reports(server: str, agent: str) -> None:
    connection = await connect(f"{server}/updateReports?{urlencode({'agent': agent})}")
    while await connection.read_message() is not None:
        pass


def missing_from(index: Path, agent: str, cases: Sequence[str]) -> list[str]:
    reported = json.loads(index.read_bytes()).get(agent, {})
    return [case for case in cases if case not in reported]


async def drive(server: str, agent: str, style: str, index: Path, cases: Sequence[str]) -> int:
    """Run ``cases``, which are what ``server`` was started with, and have it write its report to ``index``.

    The result is the number of cases that ended in an error or not at all for the client: the suite sees neither.
    """
    if (count := await asyncio.wait_for(case_count(server), 30)) != len(cases):
        raise RuntimeError(f"the suite has {count} cases to run, not {len(cases)}")
    troubled = 0
    for number, case in enumerate(cases, 1):
        url = f"{server}/runCase?{urlencode({'case': number, 'agent': agent})}"
        try:
            await asyncio.wait_for(STYLES[style](url), 30 if group_of(case) in TIMED_GROUPS else 180)
        except Exception as error:
            troubled += 1
            print(f"case {case}: {type(error).__name__}: {error}", file=sys.stderr)
    await asyncio.wait_for(update_reports(server, agent), 180)
    for _ in range(3):
        if not missing_from(index, agent, cases):
            break
        await asyncio.sleep(LINGERING_SECONDS)
        await asyncio.wait_for(update_reports(server, agent), 180)
    return troubled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="the URL of wstest -m fuzzingserver")
    parser.add_argument("--agent", required=True, help="the name that the reports give this client")
    parser.add_argument("--style", required=True, choices=STYLES)
    parser.add_argument("--index", required=True, type=Path, help="the index.json that the suite will write")
    parser.add_argument("cases", nargs="+", help="the ids of the suite's cases, in its order")
    chosen = parser.parse_args()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    return 1 if asyncio.run(drive(chosen.server, chosen.agent, chosen.style, chosen.index, chosen.cases)) else 0


if __name__ == "__main__":
    sys.exit(main())
