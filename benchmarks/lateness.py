"""``python -m benchmarks.lateness``: how late a timer of 10 ms is while 1, 50 and 600 clients flood, beside picows.

Prints a table of milliseconds: the median and the most of 60 timers. ``python -m benchmarks.lateness NUMBER`` is the
part of picows alone, and prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from typing import Any

from tests.against_tornado import run_both
from tests.against_tornado.lateness import Counts, flooded

_FLOODS = (1, 50, 600)


async def _flood_picows(number: int) -> dict[str, float]:
    from picows import WSFrame, WSListener, WSTransport, ws_create_server  # type: ignore[import-not-found,unused-ignore]

    class Listener(WSListener):  # type: ignore[misc,unused-ignore]
        def on_ws_connected(self, transport: WSTransport) -> None:
            Counts.opened += 1

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            # As the other servers, which make a message of it.
            frame.get_payload_as_ascii_text()
            Counts.handled += 1

    server = await ws_create_server(lambda request: Listener(), "127.0.0.1", 0)
    return await flooded(server.sockets[0].getsockname()[1], number)


def _run_picows(number: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.lateness", str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _cell(result: dict[str, Any]) -> str:
    median, most = list(result.values())[:2]
    return f"{median:,}, {most:,} ms"


def main() -> None:
    print("| floods | tornado.websocket | picows | tornado_ws |\n|---|---|---|---|")
    for number in _FLOODS:
        both = run_both("lateness", str(number))
        cells = [_cell(both.tornado), _cell(_run_picows(number)), _cell(both.ours)]
        print(f"| {number} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lateness")
    parser.add_argument("floods", metavar="FLOODS", nargs="?", type=int, help="of picows alone, as JSON")
    floods = parser.parse_args().floods
    if floods is not None:
        print(json.dumps(asyncio.run(_flood_picows(floods))))
    else:
        main()
