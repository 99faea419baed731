"""The client that is attacked: a program that takes the commands of `tests.hostile.meter.obey`.

The argument is JSON: ``port`` to connect to, ``settings`` of the connections, and ``memory`` as for
`tests.hostile.server`. ``connect`` with one of the `TARGETS` begins another connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from abc import abstractmethod
from typing import Any

from tornado.httpclient import HTTPError, HTTPRequest, _RequestProxy

from tests.hostile.attacks import COMPRESSED
from tests.hostile.meter import Attacked, begin, obey
from tests.hostile.parts import READERS
from tornado_ws import WebSocketClientConnection, WebSocketClosedError, WebSocketError


class Target(WebSocketClientConnection):
    """Takes everything and answers nothing."""

    attacked: Attacked

    def on_message(self, message: str | bytes) -> Any:
        self.attacked.callbacks += 1

    def on_ping(self, data: bytes) -> Any:
        self.attacked.callbacks += 1

    def on_pong(self, data: bytes) -> Any:
        self.attacked.callbacks += 1


class Slow(Target):
    """Not done with anything before the attack is over."""

    async def _stay(self) -> None:
        self.attacked.callbacks += 1
        await self.attacked.is_over.wait()

    def on_message(self, message: str | bytes) -> Any:
        return self._stay()

    def on_ping(self, data: bytes) -> Any:
        return self._stay()


class Reading(Target):
    """Leaves its messages to whoever reads them."""

    def on_message(self, message: str | bytes) -> Any:
        return WebSocketClientConnection.on_message(self, message)

    @abstractmethod
    async def read(self) -> None:
        """Read until the connection ends."""


class Unread(Reading):
    """Nobody calls `read_message` before the attack is over."""

    async def read(self) -> None:
        await self.attacked.is_over.wait()
        while await self.read_message() is not None:
            pass


class InParts(Reading):
    """Does with its messages what one of `tests.hostile.parts.READERS` does."""

    kind: str

    async def read(self) -> None:
        with contextlib.suppress(WebSocketClosedError):
            while (stream := await self.read_stream()) is not None:
                await READERS[self.kind](self.attacked, stream)


class Closing(Target):
    """Closes at once."""


def _in_parts(kind: str) -> tuple[type[Target], dict[str, Any]]:
    compression_options: dict[str, Any] | None = {} if kind in COMPRESSED else None
    options = {"message_streams": True, "compression_options": compression_options}
    return type("InParts", (InParts,), {"kind": kind}), options


TARGETS: dict[str, tuple[type[Target], dict[str, Any]]] = {
    "plain": (Target, {}),
    "compressed": (Target, {"compression_options": {}}),
    # Messages of more than 64 KiB are inflated by threads.
    "offloading": (Target, {"compression_options": {"offload_size": 64 * 1024}}),
    "slow": (Slow, {}),
    "unread": (Unread, {}),
    "closing": (Closing, {}),
    **{kind: _in_parts(kind) for kind in READERS},
}


class Attempt:
    """One connection, from the attempt at its opening handshake to its end."""

    protocol: Any = None

    def __init__(self, kind: str, attacked: Attacked, url: str, settings: dict[str, Any]) -> None:
        self._attacked = attacked
        attacked.open.add(self)
        target, options = TARGETS[kind]
        settings = {**options, **settings}
        # As `websocket_connect` does.
        request: Any = HTTPRequest(url, connect_timeout=settings.pop("connect_timeout", None))
        request = _RequestProxy(request, HTTPRequest._DEFAULTS)
        self._conn = target(request, **settings)
        self._conn.attacked = attacked
        self._task = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        conn = self._conn
        try:
            await conn.connect_future
        except (OSError, WebSocketError, HTTPError) as error:
            code = f" {error.code}" if isinstance(error, HTTPError) and error.code != 599 else ""
            self._attacked.end(self, f"`{type(error).__name__}`{code}")
            return
        self._attacked.opened += 1
        self.protocol = conn.protocol
        if isinstance(conn, Closing):
            conn.close()
        elif isinstance(conn, Reading):
            await conn.read()
        await conn.wait_closed()
        self._attacked.end(self, f"{conn.close_code}")


async def main() -> None:
    arguments = json.loads(sys.argv[1])
    attacked, meter = begin(arguments["memory"])
    url = f"ws://127.0.0.1:{arguments['port']}/"

    async def connect(kind: str) -> None:
        Attempt(kind, attacked, url, arguments["settings"])

    await obey(meter, attacked, arguments["port"], {"connect": connect})


if __name__ == "__main__":
    asyncio.run(main())
