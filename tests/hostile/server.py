"""The server that is attacked: a program that takes the commands of `tests.hostile.meter.obey`.

The argument is JSON: ``settings`` of the application, ``memory`` ("python" for the peak of what Python has allocated,
"heap" for all that the C library has, looked at with each answer, "none" where time is measured), and ``certificate``,
the name of a file to serve TLS with, or None. The first line printed has the port of the attacked.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from tests.hostile.attacks import COMPRESSED
from tests.hostile.meter import Attacked, begin, obey
from tests.hostile.parts import READERS
from tornado_ws import MessageStream, WebSocketHandler


class Target(WebSocketHandler):
    """Takes everything and answers nothing."""

    def initialize(self, attacked: Attacked) -> None:
        self.attacked = attacked

    def open(self) -> Any:
        self.protocol: Any = self.ws_connection
        self.attacked.opened += 1
        self.attacked.open.add(self)

    def on_message(self, message: str | bytes) -> Any:
        self.attacked.callbacks += 1

    def on_ping(self, data: bytes) -> Any:
        self.attacked.callbacks += 1

    def on_pong(self, data: bytes) -> Any:
        self.attacked.callbacks += 1

    def on_close(self) -> None:
        self.attacked.end(self, f"{self.close_code}")


class Compressed(Target):
    def get_compression_options(self) -> dict[str, Any]:
        return {}


class Offloading(Target):
    """Messages of more than 64 KiB are inflated by threads."""

    def get_compression_options(self) -> dict[str, Any]:
        return {"offload_size": 64 * 1024}


class Slow(Target):
    """Not done with anything before the attack is over."""

    async def _stay(self) -> None:
        self.attacked.callbacks += 1
        await self.attacked.is_over.wait()

    def on_message(self, message: str | bytes) -> Any:
        return self._stay()

    def on_ping(self, data: bytes) -> Any:
        return self._stay()


class Closing(Target):
    """Closes at once."""

    def open(self) -> Any:
        super().open()
        self.close()


class InParts(Target):
    """Does with its messages what one of `tests.hostile.parts.READERS` does."""

    kind: str

    def get_compression_options(self) -> dict[str, Any] | None:
        return {} if self.kind in COMPRESSED else None

    async def on_message_stream(self, stream: MessageStream) -> None:
        await READERS[self.kind](self.attacked, stream)


TARGETS: dict[str, type[Target]] = {
    "plain": Target,
    "compressed": Compressed,
    "offloading": Offloading,
    "slow": Slow,
    "closing": Closing,
    **{kind: type("InParts", (InParts,), {"kind": kind}) for kind in READERS},
}


async def main() -> None:
    arguments = json.loads(sys.argv[1])
    attacked, meter = begin(arguments["memory"])
    targets = [(f"/{name}", target, {"attacked": attacked}) for name, target in TARGETS.items()]
    options = None
    if arguments["certificate"] is not None:
        options = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        options.load_cert_chain(arguments["certificate"])
    sock, port = bind_unused_port()
    HTTPServer(Application(targets, **arguments["settings"]), ssl_options=options).add_sockets([sock])
    await obey(meter, attacked, port, {})


if __name__ == "__main__":
    asyncio.run(main())
