"""Chromium on the demo's page, driven over the DevTools protocol by the `websockets` library."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from websockets.sync.client import ClientConnection, connect

import tornado_ws
from tests.needs import need
from tests.support import PATIENCE

pytestmark = pytest.mark.xdist_group("browser")

ROOT = Path(__file__).parent.parent

_T = TypeVar("_T")


def wait_for(found: Callable[[], _T], what: str, seconds: float = PATIENCE) -> _T:
    """Return the first true result of ``found``."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)
    return result


# The demo


class Demo:
    """The demo as a program of its own, as `make demo` starts it."""

    def __init__(self, scratch: Path, port: int = 0) -> None:
        self.stdout = scratch / "demo.out"
        self.stderr = scratch / "demo.err"
        # From its own folder the demo finds only an installed tornado_ws; it has to be the one under test.
        path = [str(Path(tornado_ws.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "examples" / "demo" / "demo.py"), "--port", str(port)],
                cwd=ROOT,  # where coverage looks for its settings
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
                stdout=out,
                stderr=err,
            )
        self.url = wait_for(self._address, "the demo's address")

    def _address(self) -> str:
        assert self.process.poll() is None, f"the demo ended:\n{self.stderr.read_text()}"
        line, newline, rest = self.stdout.read_text().partition("\n")
        assert not rest
        return line if newline else ""

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        try:
            status = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
        log = self.stderr.read_text()
        assert status == 0, log
        assert "Traceback" not in log


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo(tmp_path_factory.mktemp("demo"))
    yield demo
    demo.end()


# The browser


class Browser:
    """What these tests need of the DevTools protocol: commands, and the complaints of pages."""

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._last_id = 0
        self.complaints: list[tuple[str, str]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._last_id += 1
        command: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        self._devtools.send(json.dumps(command))
        while True:
            answer: dict[str, Any] = json.loads(self._devtools.recv(PATIENCE))
            if answer.get("id") == self._last_id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        session = event.get("sessionId", "")
        if event["method"] == "Runtime.exceptionThrown":
            self.complaints.append((session, json.dumps(event["params"]["exceptionDetails"])))
        elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.complaints.append((session, event["params"]["entry"]["text"]))

    def open(self, url: str) -> Page:
        # A context for each page: two people with a browser each, and no storage in common.
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, context, target, session)
        page.call("Runtime.enable")
        page.call("Log.enable")
        page.call("Page.enable")
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        page.call("Page.navigate", url=url)
        page.until("document.readyState === 'complete' && globalThis.demo")
        return page


class Page:
    def __init__(self, browser: Browser, context: str, target: str, session: str) -> None:
        self.browser = browser
        self.context = context
        self.target = target
        self.session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def run(self, expression: str) -> Any:
        """Evaluate JavaScript, a promise included, and return its JSON value."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, timeout=PATIENCE * 1000
        )
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        return wait_for(lambda: self.run(f"(() => {expression})()"), expression)

    def both_open(self) -> Page:
        self.until("demo.echo.state === 'open' && demo.chat.state === 'open'")
        return self

    def type(self, selector: str, text: str, *, enter: bool = True) -> None:
        """Type as a person does: into the field that has the focus, and with the Enter key."""
        assert self.run(f"{element(selector)}.focus(), {element(selector)}.select?.(), true")
        self.call("Input.insertText", text=text)
        if enter:
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
            self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
            self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def call_me(self, name: str) -> None:
        self.type("#chat-name", name, enter=False)
        before = self.run("sessionStorage.getItem('name')")
        self.run(f"{element('#chat-name')}.blur()")
        self.until_chat(f"{before} is now {name}")

    def chat(self) -> list[str]:
        """Return the lines of the chat without the times, which each locale writes in another way."""
        texts = "[...line.children].filter((part) => part.tagName !== 'TIME').map((part) => part.textContent)"
        lines: list[str] = self.run(f"[...document.querySelectorAll('#chat-log li')].map((line) => {texts}.join(': '))")
        return lines

    def until_chat(self, line: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while line not in (lines := self.chat()):
            assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {line!r} in {lines}"
            time.sleep(0.02)

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)


def element(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)})"


def processes_of(profile: Path) -> list[str]:
    """Return the command lines that name ``profile``, where the system shows them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(profile) in command:
            found.append(command)
    return found


@contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """Run Chromium and yield the address of its DevTools; all of its processes have ended after."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    need(program, "Chromium")
    assert program is not None
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                "--headless",
                "--no-sandbox",  # it cannot have one in most containers
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                # Pages that are not in front keep their clock: the tests have several open.
                "--disable-background-timer-throttling",
                "--disable-renderer-backgrounding",
                "--disable-backgrounding-occluded-windows",
                "--force-prefers-reduced-motion",
                "--lang=en-GB",
                f"--user-data-dir={profile}",
                "--remote-debugging-port=0",
                "about:blank",
            ],
            env={**os.environ, "HOME": str(profile)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def address() -> str:
        assert process.poll() is None, f"Chromium ended:\n{(profile / 'log').read_text(errors='replace')}"
        try:
            port, path = (profile / "DevToolsActivePort").read_text().split()
        except (OSError, ValueError):
            return ""
        return f"ws://127.0.0.1:{port}{path}"

    try:
        yield wait_for(address, "Chromium's DevTools", 60)
        process.wait(PATIENCE)
        wait_for(lambda: not processes_of(profile), "Chromium's processes to end")
    finally:
        if processes_of(profile) or process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with (
        chromium(tmp_path_factory.mktemp("chromium")) as address,
        connect(address, max_size=None, proxy=None, compression=None, open_timeout=PATIENCE) as devtools,
    ):
        browser = Browser(devtools)
        yield browser
        browser.call("Browser.close")


@pytest.fixture
def open_page(browser: Browser, demo: Demo) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def open_page(url: str | None = None) -> Page:
        pages.append(browser.open(url or demo.url))
        return pages[-1].both_open()

    browser.complaints.clear()
    yield open_page
    for page in pages:
        browser.call("Target.disposeBrowserContext", browserContextId=page.context)
    assert browser.complaints == []


# The page


def test_echo_box_shows_what_comes_back(open_page: Callable[..., Page]) -> None:
    page = open_page()
    for text in ("hello", "Grüße, 世界 🎈", "x" * 2000):
        page.type("#echo-text", text)
        first = "document.querySelector('#echoes li')"
        page.until(f"{first}?.querySelector('.text').textContent === {json.dumps(text)}")
        assert re.fullmatch(r"\d+(\.\d+)? ms", page.run(f"{first}.querySelector('small').textContent"))
        assert page.run("document.querySelector('#echo-text').value") == ""


def test_chat_goes_from_page_to_page(open_page: Callable[..., Page]) -> None:
    ada, grace = open_page(), open_page()
    ada.call_me("Ada")
    grace.call_me("Grace")
    grace.type("#chat-text", "good morning, <b>Ada</b> ☕")
    ada.until_chat("Grace: good morning, <b>Ada</b> ☕")
    ada.type("#chat-text", "good morning, Grace")
    grace.until_chat("Ada: good morning, Grace")
    ada.until_chat("Ada: good morning, Grace")
    ada.until("document.querySelector('#present').textContent === '2 here: Ada, Grace'")
    assert ada.run("document.querySelectorAll('#chat-log .mine').length") == 1

    late = open_page()
    late.until_chat("Grace: good morning, <b>Ada</b> ☕")
    grace.close()
    # What a browser says when a page goes away.
    ada.until_chat("Grace left (1001)")


def test_round_trip_is_drawn(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.until("demo.chart.samples.length >= 5")
    assert page.run("demo.chart.samples.every(({ value }) => value > 0 && value < 5000)")
    page.until("document.querySelector('#chart .line')?.getTotalLength() > 1")
    for figure in ("now", "median", "max"):
        assert re.fullmatch(r"\d+(\.\d+)? ms", page.run(f"document.querySelector('#trip-{figure}').textContent"))


def test_deflate_is_negotiated(open_page: Callable[..., Page]) -> None:
    page = open_page()
    for connection in ("echo", "chat"):
        assert page.run(f"demo.{connection}.socket.extensions").split(";")[0] == "permessage-deflate"
    assert "permessage-deflate" in page.run("document.querySelector('#links').innerText")


def test_page_returns_to_a_restarted_server(open_page: Callable[..., Page], browser: Browser, tmp_path: Path) -> None:
    server = Demo(tmp_path)
    page = open_page(server.url)
    port = server.port
    # By a listener of its own: attempts to come back may have failed by the time that the test looks.
    page.run(
        "globalThis.closes = [];"
        "demo.chat.socket.addEventListener('close', (it) => closes.push([it.code, it.reason, it.wasClean]))"
    )
    server.end(signal.SIGINT)
    assert page.until("closes.length && closes") == [[1001, "the server is shutting down", True]]
    page.until("demo.echo.state !== 'open' && demo.chat.state !== 'open'")
    server = Demo(tmp_path, port)
    page.both_open()
    server.end()
    # Chromium itself tells the console about each connection that it could not make.
    page.run("true")
    browser.complaints[:] = [entry for entry in browser.complaints if "ERR_CONNECTION_REFUSED" not in entry[1]]


# Close codes


def test_close_by_the_server_reaches_the_page(open_page: Callable[..., Page]) -> None:
    page = open_page()
    # The eleventh message within five seconds is one too many.
    page.run("for (let i = 0; i < 11; i++) demo.chat.send(JSON.stringify({ kind: 'say', text: 'flood ' + i }))")
    page.until("demo.chat.state === 'closed'")
    last_close = "[demo.chat.lastClose.code, demo.chat.lastClose.reason, demo.chat.lastClose.wasClean]"
    assert page.run(last_close) == [4001, "more than 10 messages in 5 seconds", True]
    assert "closed: 4001 more than 10 messages in 5 seconds" in page.run(f"{element('#links')}.innerText")
    page.run(f"{element('#links li:nth-child(2) button')}.click()")
    page.both_open()


@pytest.mark.parametrize(
    ("code", "reason", "note"),
    [
        (1000, "good bye", "left (1000 good bye)"),
        (3000, "", "left (3000)"),
        (4002, "Mittagspause ☕", "left (4002 Mittagspause ☕)"),
        (4999, "é" * 61, f"left (4999 {'é' * 61})"),
        # Without a code the close frame is empty; the browser has 1005 for that and the server nothing.
        (None, "", "left"),
    ],
    ids=["1000", "3000", "4002", "4999", "empty"],
)
def test_close_by_the_page_reaches_the_server(
    open_page: Callable[..., Page], code: int | None, reason: str, note: str
) -> None:
    one, other = open_page(), open_page()
    one.call_me(f"Leaver {code}")
    one.run(f"demo.chat.socket.close({f'{code}, {json.dumps(reason)}' if code else ''})")
    other.until_chat(f"Leaver {code} {note}")
    one.until("demo.chat.lastClose")
    assert one.run("[demo.chat.lastClose.code, demo.chat.lastClose.wasClean]") == [code or 1005, True]


# Messages

#: Sends one message on a connection of its own; the promise is for its echo, or for the close in its place.
ROUND_TRIP = """
new Promise((resolve) => {
  const socket = new WebSocket(location.href.replace("http", "ws") + "echo");
  socket.binaryType = "arraybuffer";
  const message = %s;
  socket.onopen = () => socket.send(message);
  socket.onclose = ({ code, reason, wasClean }) => resolve([code, reason, wasClean]);
  socket.onmessage = ({ data }) => {
    const parts = (it) => (typeof it === "string" ? it : "bytes " + new Uint8Array(it).join());
    resolve(parts(data) === parts(message));
    socket.close();
  };
})
"""


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize(
    "message", ["'y'.repeat(%d)", "new Uint8Array(%d).map((_, i) => i * i)"], ids=["text", "binary"]
)
def test_message_comes_back_as_it_went(open_page: Callable[..., Page], message: str, size: int) -> None:
    assert open_page().run(ROUND_TRIP % (message % size)) is True


def test_message_over_the_limit_closes_with_1009(open_page: Callable[..., Page]) -> None:
    code, reason, _ = open_page().run(ROUND_TRIP % "'z'.repeat(65537)")
    assert code == 1009
    assert "too big" in reason
