"""Running a page: its Python in one namespace, in a running loop, and its programs in a folder."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.docs.blocks import HIDDEN, Block
from tests.docs.checking import program_of
from tests.docs.commands import check_command, commands_of
from tests.ports import unused_port
from tests.programs import ROOT, environment
from tests.support import PATIENCE, Echo, serving, until
from tornado_ws import WebSocketClientConnection, WebSocketHandler, websocket_connect


class PageRun:
    """What hidden blocks know as ``page``."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.folder = folder
        #: The code of the last block that readers see, as it was run.
        self.shown = ""
        self._stack = stack
        self._replaced: dict[str, str] = {}

    def replace(self, shown: str, run: object) -> None:
        """From here on, have ``run`` in the place of what is shown: an address of loopback for that of a server."""
        self._replaced[shown] = str(run)

    def as_run(self, code: str) -> str:
        for shown, run in self._replaced.items():
            code = code.replace(shown, run)
        return code

    def unused_port(self) -> int:
        return unused_port()

    def at_end(self, callback: Callable[[], Any]) -> None:
        """Have ``callback`` called when the page ends, in whatever way."""
        self._stack.callback(callback)

    async def serve(self, routes: Any, **settings: Any) -> str:
        """Serve to the end of the page; return a ws:// URL."""
        return await self._stack.enter_async_context(serving(routes, alone=False, **settings))

    async def enter(self, manager: Any) -> Any:
        """Enter a context manager, of either kind, to the end of the page."""
        if hasattr(manager, "__aenter__"):
            return await self._stack.enter_async_context(manager)
        return self._stack.enter_context(manager)

    async def connection(self, kind: type[WebSocketHandler] = Echo) -> tuple[Any, WebSocketClientConnection]:
        """Return both ends of a connection: the handler, and the client."""
        handlers: list[Any] = []
        url = await self.serve(type("Noting", (kind,), {"open": lambda self: handlers.append(self)}))
        conn = await self.enter(websocket_connect(url))
        await until(lambda: handlers)
        return handlers[0], conn

    async def connect(self, url: str, **options: Any) -> WebSocketClientConnection:
        """Connect to a program that has been started, when it listens; to the end of the page."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                conn = await websocket_connect(url, **options)
            except ConnectionRefusedError:
                said = [output.read_text() for output in self.folder.glob("*.out")]
                assert asyncio.get_running_loop().time() < deadline, f"nobody listens at {url}: {said}"
                await asyncio.sleep(0.01)
            else:
                self._stack.push_async_exit(conn)
                return conn

    def start(self, file: str, *arguments: str, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a program of the page, by the command ``before`` if there is one; it ends with the page."""
        command = [program_of(before[0]), *before[1:]] if before else []
        with self._output(file).open("wb") as output:
            return self._start([*command, sys.executable, "-u", file, *arguments], output)

    def start_nginx(self, file: Path) -> None:
        with self._output("nginx").open("wb") as output:
            self._start([program_of("nginx"), "-p", str(self.folder), "-c", str(file), "-g", "daemon off;"], output)

    def _output(self, file: str) -> Path:
        return self.folder / f"{file}.out"

    async def prints(self, file: str, text: str) -> None:
        """Wait until the program ``file`` has printed ``text``."""
        await until(lambda: text in self._output(file).read_text())

    def _start(self, command: list[str], output: Any) -> subprocess.Popen[bytes]:
        program = subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=output, stderr=output)

        def end() -> None:
            program.terminate()
            try:
                program.wait(PATIENCE)
            finally:
                program.kill()

        self._stack.callback(end)
        return program


async def run_page(blocks: list[Block], folder: Path) -> None:
    """Run what can be run of ``blocks``, in their order."""
    async with contextlib.AsyncExitStack() as stack:
        page = PageRun(folder, stack)
        names: dict[str, Any] = {"__name__": "page", "page": page, "until": until}
        for block in blocks:
            code = page.as_run(block.code)
            if block.language != HIDDEN:
                page.shown = code
            if block.mark == "not run":
                continue
            if block.mark == "file":
                (folder / block.argument).parent.mkdir(exist_ok=True)
                (folder / block.argument).write_text(code)
                if block.language == "python":
                    compile(code, block.place, "exec")
            elif block.language in ("python", HIDDEN):
                await _run_python(block, code, names)
            elif block.language == "sh":
                for command in commands_of(code):
                    words = shlex.split(command)
                    if words[0] == "python" and (folder / words[1]).exists():
                        page.start(*words[1:])
                    else:
                        check_command(command)


async def _run_python(block: Block, code: str, names: dict[str, Any]) -> None:
    tree = ast.parse(code, block.page.name)
    ast.increment_lineno(tree, block.line - 1)
    compiled = compile(
        tree, str(block.page.relative_to(ROOT)), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )

    async def body() -> None:
        result = eval(compiled, names)
        if inspect.iscoroutine(result):
            await result

    if block.mark != "until":
        await asyncio.wait_for(body(), PATIENCE)
        return
    task = asyncio.create_task(body())
    try:
        await until(lambda: task.done() or _holds(block.argument, names))
        if task.done():
            task.result()
        assert _holds(block.argument, names), f"{block.place} ended before {block.argument}"
    finally:
        task.cancel()
        await asyncio.wait([task])


def _holds(expression: str, names: dict[str, Any]) -> bool:
    try:
        return bool(eval(expression, names))
    except NameError:  # of what the block has not yet made
        return False
