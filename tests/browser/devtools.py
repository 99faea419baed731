"""Chromium, driven over the DevTools protocol by the `websockets` library."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from websockets.sync.client import ClientConnection, connect

from tests.needs import need
from tests.support import PATIENCE

_T = TypeVar("_T")
_P = TypeVar("_P", bound="Page")


def wait_for(found: Callable[[], _T], what: str, seconds: float = PATIENCE) -> _T:
    """Return the first true result of ``found``."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)
    return result


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

    def open(self, url: str, ready: str, kind: type[_P]) -> _P:
        """Open a page, and wait until the expression ``ready`` is true there."""
        # A context for each page: two people with a browser each, and no storage in common.
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = kind(self, context, target, session)
        page.call("Runtime.enable")
        page.call("Log.enable")
        page.call("Page.enable")
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        page.call("Page.navigate", url=url)
        page.until(f"document.readyState === 'complete' && {ready}")
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

    def type(self, selector: str, text: str, *, enter: bool = True) -> None:
        """Type as a person does: into the field that has the focus, and with the Enter key."""
        assert self.run(f"{element(selector)}.focus(), {element(selector)}.select?.(), true")
        self.call("Input.insertText", text=text)
        if enter:
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
            self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
            self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def tap(self, selector: str) -> None:
        """Touch the middle of an element, as a finger does that has scrolled there."""
        self.run(f"{element(selector)}.scrollIntoView({{ block: 'center' }})")
        box = self.run(f"{element(selector)}.getBoundingClientRect().toJSON()")
        spot = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[spot])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)

    def forget(self) -> None:
        """Close it, with all that the browser keeps for it."""
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)


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
def _chromium(profile: Path) -> Iterator[str]:
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


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    with (
        _chromium(profile) as address,
        connect(
            address,
            max_size=None,
            proxy=None,
            compression=None,
            open_timeout=PATIENCE,
            # A thread that pings uses `random`: Hypothesis fails whatever test it is drawing for at that moment.
            ping_interval=None,
        ) as devtools,
    ):
        browser = Browser(devtools)
        yield browser
        browser.call("Browser.close")
