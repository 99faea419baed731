"""How late a timer of 10 ms is while so many clients flood.

The argument is their number. They are one process of their own, which sends the same small messages over and over.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import selectors
import socket
import statistics
import sys
import time

from tornado import websocket

from tests.against_tornado.raw import REQUEST, serve

_DELAY = 0.01
_TIMERS = 60
#: Seconds after which no other timer is begun: with tornado.websocket each may take some.
_LONGEST = 15
_PIECE = bytes((0x81, 0x80 | 5, 0, 0, 0, 0)) + b"flood"


class Counts:
    """What a server has seen."""

    opened = 0
    handled = 0


class Handler(websocket.WebSocketHandler):
    def open(self) -> None:
        Counts.opened += 1

    def on_message(self, message: str | bytes) -> None:
        Counts.handled += 1


def flood(port: int, number: int) -> None:
    """Send to ``port`` over ``number`` connections whatever the kernel takes, until this process is ended."""
    data = _PIECE * 4000
    selector = selectors.DefaultSelector()
    for _ in range(number):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(REQUEST.format(more="").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_WRITE, [0])
    while True:
        for key, _ in selector.select():
            position = key.data
            sent = key.fileobj.send(data[position[0] :])  # type: ignore[union-attr]
            position[0] = (position[0] + sent) % len(data)


async def measure(number: int) -> list[float]:
    while Counts.opened < number or not Counts.handled:
        await asyncio.sleep(0.01)
    late: list[float] = []
    begin = time.perf_counter()
    while len(late) < _TIMERS and time.perf_counter() < begin + _LONGEST:
        start = time.perf_counter()
        await asyncio.sleep(_DELAY)
        late.append((time.perf_counter() - start - _DELAY) * 1000)
    return late


async def flooded(port: int, number: int) -> dict[str, float]:
    """Return how late a timer is while so many clients flood the server at ``port``, which keeps `Counts`."""
    flooding = multiprocessing.get_context("spawn").Process(target=flood, args=(port, number), daemon=True)
    flooding.start()
    try:
        late = await measure(number)
    finally:
        flooding.kill()
        flooding.join()
    return {
        "a timer of 10 ms is late by, median, ms": round(statistics.median(late), 1),
        "a timer of 10 ms is late by, most, ms": round(max(late), 1),
        "messages handled": Counts.handled,
    }


async def main() -> None:
    print(json.dumps(await flooded(serve(Handler), int(sys.argv[1]))))


if __name__ == "__main__":
    asyncio.run(main())
