"""The npm package ``ws`` under Node.js as a peer: a process for each connection, see ``node_ws.js``."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.npm import installed_package
from tests.peers import REFUSAL_HEADER, Closed, Deflate, Options, Refused, Server, Theirs
from tests.support import PATIENCE

VERSION = "8.23.0"
_INSTALL_SECONDS = 90
SCRIPT = Path(__file__).with_suffix(".js")


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def deflate_options(deflate: Deflate | None) -> dict[str, Any] | bool:
    if deflate is None:
        return False
    options: dict[str, Any] = {"threshold": 0}
    if deflate.no_context_takeover:
        options.update(serverNoContextTakeover=True, clientNoContextTakeover=True)
    if deflate.max_window_bits is not None:
        options.update(serverMaxWindowBits=deflate.max_window_bits, clientMaxWindowBits=deflate.max_window_bits)
    return options


class Connection:
    extensions = ""
    subprotocol = ""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._events: defaultdict[str, asyncio.Queue[dict[str, Any]]] = defaultdict(asyncio.Queue)

    async def read_events(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            self._events[event["event"]].put_nowait(event)

    async def next(self, *names: str) -> dict[str, Any]:
        """Return the next event of one of these names; an error of the peer's is ours."""
        waiting = {asyncio.ensure_future(self._events[name].get()): name for name in (*names, "error")}
        done, pending = await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        assert done, f"no {' or '.join(names)} from node in {PATIENCE:.0f} s"
        event = next(iter(done)).result()
        assert event["event"] != "error", event["message"]
        return event

    async def do(self, name: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()

    async def opened(self) -> Theirs:
        event = await self.next("open", "refused")
        if event["event"] == "refused":
            raise Refused(event["status"])
        self.extensions, self.subprotocol = event["extensions"], event["subprotocol"]
        return self

    async def send(self, message: str | bytes) -> None:
        data = message.encode() if isinstance(message, str) else message
        await self.do("send", data=encode(data), binary=isinstance(message, bytes))

    async def send_fragments(self, parts: Sequence[bytes], *, text: bool, ping: bytes) -> None:
        await self.do("fragments", parts=[encode(part) for part in parts], binary=not text, ping=encode(ping))
        assert (await self.next("pong"))["data"] == encode(ping)

    async def receive(self) -> str | bytes:
        event = await self.next("message")
        data = base64.b64decode(event["data"])
        return data if event["binary"] else data.decode()

    async def ping(self, payload: bytes) -> None:
        await self.do("ping", data=encode(payload))
        assert (await self.next("pong"))["data"] == encode(payload)

    async def close(self, code: int | None, reason: str) -> None:
        await self.do("close", code=code, reason=reason)

    async def closed(self) -> Closed:
        event = await self.next("close")
        return Closed(event["code"], event["reason"])


class NodeWs:
    @asynccontextmanager
    async def _start(self) -> AsyncIterator[Connection]:
        process = await asyncio.create_subprocess_exec(
            "node",
            str(SCRIPT),
            env={**os.environ, "NODE_PATH": str(installed_package("ws", VERSION))},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        connection = Connection(process)
        reading = asyncio.ensure_future(connection.read_events())
        try:
            yield connection
        finally:
            assert process.stdin is not None
            # Its end is the end of the script, whatever is still connected.
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), PATIENCE)
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()
            await reading
        assert process.returncode == 0

    @asynccontextmanager
    async def connect(self, url: str, options: Options) -> AsyncIterator[Theirs]:
        async with self._start() as connection:
            deflate = deflate_options(options.deflate)
            await connection.do("connect", url=url, subprotocols=list(options.subprotocols), deflate=deflate)
            yield await connection.opened()

    @asynccontextmanager
    async def serve(self, options: Options) -> AsyncIterator[Server]:
        async with self._start() as connection:
            await connection.do(
                "serve",
                subprotocols=list(options.subprotocols),
                deflate=deflate_options(options.deflate),
                refuse=options.refuse,
                header=REFUSAL_HEADER,
            )
            port = (await connection.next("listening"))["port"]
            yield Server(f"ws://127.0.0.1:{port}/", connection.opened)
