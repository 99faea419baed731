"""``serve``: an echo, and files of a directory beside it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import socket
from typing import Any

from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_ws.cli import statuses
from tornado_ws.cli.certificates import self_signed
from tornado_ws.cli.display import warn
from tornado_ws.cli.interrupts import run_to_end
from tornado_ws.cli.lines import writing
from tornado_ws.cli.log_lines import log_shown
from tornado_ws.cli.static_files import PublicFiles
from tornado_ws.escaping import shown
from tornado_ws.server.handler import WebSocketHandler
from tornado_ws.server.http import HTTPServer
from tornado_ws.server.shutdown import close_all


def main(options: argparse.Namespace) -> int:
    """Serve until a signal comes; returns the exit status."""
    if options.directory is not None and not os.path.isdir(options.directory):
        raise ValueError(f"DIRECTORY is {shown(options.directory)}; it has to be a directory")
    if options.save_ca is not None and not options.tls_self_signed:
        raise ValueError("--save-ca is given without --tls-self-signed; it writes who signed that certificate")
    return asyncio.run(_serve(options))


class _Echo(WebSocketHandler):
    def initialize(self, any_origin: bool, compress: bool) -> None:
        self._any_origin = any_origin
        self._compress = compress

    def check_origin(self, origin: str) -> bool:
        return self._any_origin or super().check_origin(origin)

    def get_compression_options(self) -> dict[str, Any] | None:
        return {} if self._compress else None

    def on_message(self, message: str | bytes) -> Any:
        # Whoever sends more than it reads waits.
        return self.write_message(message, binary=isinstance(message, bytes))


async def _serve(options: argparse.Namespace) -> int:
    context = self_signed(options.host, options.save_ca) if options.tls_self_signed else None
    try:
        sockets = bind_sockets(options.port, options.host)
    except OSError as error:
        warn(
            f"cannot listen on {_at(options.host, options.port)}: {error.strerror}; --port 0 takes a port that is free"
        )
        return statuses.FAILED
    stopped = asyncio.Event()
    return await run_to_end(_serving(options, sockets, context, stopped), lambda number: stopped.set())


async def _serving(
    options: argparse.Namespace, sockets: list[socket.socket], context: Any, stopped: asyncio.Event
) -> int:
    application = _application(options)
    server = HTTPServer(application, ssl_options=context)
    server.add_sockets(sockets)
    with log_shown(warn, warn, logging.WARNING):
        try:
            async with writing(1) as out:
                out.put(_addresses(options, sockets[0].getsockname()[1]).encode())
                await out.drain()
                await stopped.wait()
            await close_all(application)
        finally:
            server.stop()
            await server.close_all_connections()
    return statuses.OK


def _application(options: argparse.Namespace) -> Application:
    echo = {"any_origin": options.any_origin, "compress": options.compress}
    path = options.echo or ("/ws" if options.directory else None)
    routes: list[Any] = [(_pattern(path), _Echo, echo)]
    if options.directory is not None:
        files = {"path": options.directory, "default_filename": "index.html"}
        routes.append(("/(.*)", PublicFiles, files))
    return Application(routes)


def _pattern(path: str | None) -> str:
    return ".*" if path is None else re.escape(path)


def _addresses(options: argparse.Namespace, port: int) -> str:
    secure = "s" if options.tls_self_signed else ""
    at = _at(options.host or "localhost", port)
    lines = [f"echo: ws{secure}://{at}{options.echo or ('/ws' if options.directory else '/')}\n"]
    if options.directory is not None:
        lines.append(f"files: http{secure}://{at}/\n")
    return "".join(lines)


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
