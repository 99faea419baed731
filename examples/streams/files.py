"""Files of any size over a WebSocket, in bounded memory: ``python examples/streams/files.py server FOLDER``.

``python examples/streams/files.py put URL FILE`` sends a file, and ``get URL NAME FILE`` fetches one. The server writes
what comes to its disk as it comes, and answers with its size and SHA-256; both sides compare them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_ws import MessageStream, WebSocketHandler, WriteStream, websocket_connect

#: Bytes read from a disk at a time.
CHUNK = 64 * 1024
#: A file's name; nothing that leads out of the folder.
NAME = re.compile(r"\w[\w.-]{0,99}")


class Digest:
    """The size and SHA-256 of what passes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def add(self, part: bytes) -> bytes:
        self._hash.update(part)
        self.size += len(part)
        return part

    def said(self) -> dict[str, Any]:
        return {"size": self.size, "sha256": self._hash.hexdigest()}


async def send_file(path: Path, stream: WriteStream) -> dict[str, Any]:
    """Write a file to ``stream``, no faster than the other side takes it."""
    digest = Digest()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            await stream.write(digest.add(part))
    return digest.said()


async def receive_file(stream: Any, path: Path) -> dict[str, Any]:
    """Write what comes to ``path``, which is there when all has come, and not before."""
    digest = Digest()
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            async for part in stream:
                file.write(digest.add(part))
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    return digest.said()


class Files(WebSocketHandler):
    """A text message says what to do: ``{"put": NAME}``, before the file as a binary one, or ``{"get": NAME}``."""

    websocket_max_stream_size = 1024**4

    def initialize(self, folder: Path) -> None:
        self.folder = folder
        self.target: Path | None = None

    async def on_message_stream(self, stream: MessageStream) -> None:
        if stream.is_binary:
            if self.target is None:
                self.close(1008, "a file without a name")
                return
            target, self.target = self.target, None
            await self.write_message(await receive_file(stream, target))
            return
        # It is read as a whole, and may have as much as `websocket_max_message_size`.
        wanted = json.loads(await stream.read_all())
        name = wanted.get("put") or wanted.get("get")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            self.close(1008, "no name of a file")
        elif "put" in wanted:
            self.target = self.folder / name
        elif not (self.folder / name).is_file():
            self.close(1008, "no such file")
        else:
            async with self.write_stream(binary=True) as answer:
                said = await send_file(self.folder / name, answer)
            await self.write_message(said)


async def put(url: str, path: Path) -> dict[str, Any]:
    """Send a file; return what the server says of it. Raises ValueError where that is not what was sent."""
    async with websocket_connect(url) as conn:
        await conn.write_message({"put": path.name})
        async with conn.write_stream(binary=True) as stream:
            sent = await send_file(path, stream)
        return _compared(sent, await conn.read_message())


async def get(url: str, name: str, path: Path) -> dict[str, Any]:
    """Fetch a file. Raises ValueError where it is not what the server says, and `WebSocketClosedError` at an end."""
    async with websocket_connect(url, message_streams=True) as conn:
        await conn.write_message({"get": name})
        received = await receive_file(conn.read_stream(), path)
        return _compared(received, await conn.read_message())


def _compared(ours: dict[str, Any], answer: Any) -> dict[str, Any]:
    theirs = json.loads(answer) if answer is not None else None
    if theirs != ours:
        raise ValueError(f"here it is {ours}, and there {theirs}")
    return ours


async def serve(folder: Path, port: int) -> None:
    server = HTTPServer(Application([("/", Files, {"folder": folder})]))
    sockets = bind_sockets(port, "127.0.0.1")
    server.add_sockets(sockets)
    print(f"ws://127.0.0.1:{sockets[0].getsockname()[1]}/", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("server")
    server.add_argument("folder", type=Path)
    server.add_argument("--port", type=int, default=8765, help="0 for any that is free")
    putting = commands.add_parser("put")
    putting.add_argument("url")
    putting.add_argument("file", type=Path)
    getting = commands.add_parser("get")
    getting.add_argument("url")
    getting.add_argument("name")
    getting.add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "server":
        asyncio.run(serve(arguments.folder, arguments.port))
    elif arguments.command == "put":
        print(json.dumps(asyncio.run(put(arguments.url, arguments.file))))
    else:
        print(json.dumps(asyncio.run(get(arguments.url, arguments.name, arguments.file))))


if __name__ == "__main__":
    main()
