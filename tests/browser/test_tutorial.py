"""Chromium on the page that ``docs/tutorials/chat.md`` has its reader write."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.devtools import Browser, Page, wait_for
from tests.docs.blocks import blocks_of
from tests.ports import unused_port
from tests.programs import ROOT, environment
from tests.support import PATIENCE

pytestmark = pytest.mark.xdist_group("browser")

MESSAGES = "[...document.querySelectorAll('#messages li')].map((line) => line.textContent)"


def write(folder: Path) -> int:
    """Write what the reader writes and copies, with a free port, which is returned."""
    port = unused_port()
    (folder / "static").mkdir()
    for block in blocks_of(ROOT / "docs" / "tutorials" / "chat.md"):
        if block.mark == "file":
            (folder / block.argument).write_text(block.code.replace("8888", str(port)))
    shutil.copy(ROOT / "examples" / "client" / "tornado_ws.js", folder / "static")
    return port


@contextmanager
def running(folder: Path) -> Iterator[None]:
    program = subprocess.Popen([sys.executable, "chat.py"], cwd=folder, env=environment())
    try:
        yield
    finally:
        program.send_signal(signal.SIGTERM)
        program.wait(PATIENCE)


def say(page: Page, text: str) -> None:
    page.until("document.querySelector('#state').value === 'open'")
    page.type("#text", text)


def said(page: Page, *lines: str) -> None:
    wait_for(lambda: page.run(MESSAGES) == list(lines), f"the messages {lines}")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_chat_of_the_tutorial(browser: Browser, tmp_path: Path) -> None:
    port = write(tmp_path)
    with running(tmp_path):
        wait_for(lambda: listens(port), "the server of the tutorial")
        ada, bob = (browser.open(f"http://127.0.0.1:{port}/", "!!document.querySelector('#state')", Page) for _ in "ab")
        bob.until("document.querySelector('#state').value === 'open'")
        say(ada, "hello, <b>Bob</b>")
        for page in (ada, bob):
            said(page, "hello, <b>Bob</b>")
    ada.until("document.querySelector('#state').value !== 'open'")
    with running(tmp_path):
        say(ada, "back")
        said(ada, "hello, <b>Bob</b>", "(some messages are gone)", "back")
        for page in (ada, bob):
            page.forget()
