"""Chromium on the demo's page."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tornado_ws
from tests.browser.devtools import Browser, Page, element
from tests.browser.example import Example
from tests.support import PATIENCE
from tornado_ws import engine

pytestmark = pytest.mark.xdist_group("browser")


def start(scratch: Path, port: int = 0) -> Example:
    """Start the demo as `make demo` does."""
    return Example(scratch, "demo/demo.py", "--port", str(port))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    demo = start(tmp_path_factory.mktemp("demo"))
    yield demo
    demo.end()


class DemoPage(Page):
    def both_open(self) -> DemoPage:
        self.until("demo.echo.state === 'open' && demo.chat.state === 'open'")
        return self

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


@pytest.fixture
def open_page(browser: Browser, demo: Example) -> Iterator[Callable[..., DemoPage]]:
    pages: list[DemoPage] = []

    def open_page(url: str | None = None) -> DemoPage:
        pages.append(browser.open(url or demo.url, "globalThis.demo", DemoPage))
        return pages[-1].both_open()

    browser.complaints.clear()
    yield open_page
    for page in pages:
        page.forget()
    assert browser.complaints == []


# The page


def test_echo_box_shows_what_comes_back(open_page: Callable[..., DemoPage]) -> None:
    page = open_page()
    for text in ("hello", "Grüße, 世界 🎈", "x" * 2000):
        page.type("#echo-text", text)
        first = "document.querySelector('#echoes li')"
        page.until(f"{first}?.querySelector('.text').textContent === {json.dumps(text)}")
        assert re.fullmatch(r"\d+(\.\d+)? ms", page.run(f"{first}.querySelector('small').textContent"))
        assert page.run("document.querySelector('#echo-text').value") == ""


def test_chat_goes_from_page_to_page(open_page: Callable[..., DemoPage]) -> None:
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


def test_round_trip_is_drawn(open_page: Callable[..., DemoPage]) -> None:
    page = open_page()
    page.until("demo.chart.samples.length >= 5")
    assert page.run("demo.chart.samples.every(({ value }) => value > 0 && value < 5000)")
    page.until("document.querySelector('#chart .line')?.getTotalLength() > 1")
    for figure in ("now", "median", "max"):
        assert re.fullmatch(r"\d+(\.\d+)? ms", page.run(f"document.querySelector('#trip-{figure}').textContent"))


def test_deflate_is_negotiated(open_page: Callable[..., DemoPage]) -> None:
    page = open_page()
    for connection in ("echo", "chat"):
        assert page.run(f"demo.{connection}.socket.extensions").split(";")[0] == "permessage-deflate"
    assert "permessage-deflate" in page.run("document.querySelector('#links').innerText")


def test_page_returns_to_a_restarted_server(
    open_page: Callable[..., DemoPage], browser: Browser, tmp_path: Path
) -> None:
    server = start(tmp_path)
    page = open_page(server.url)
    port = server.port
    page.until("/ms$/.test(document.querySelector('#trip-now').textContent)")
    # By a listener of its own: attempts to come back may have failed by the time that the test looks.
    page.run(
        "globalThis.closes = [];"
        "demo.chat.socket.addEventListener('close', (it) => closes.push([it.code, it.reason, it.wasClean]))"
    )
    server.end(signal.SIGINT)
    assert page.until("closes.length && closes") == [[1001, "the server is shutting down", True]]
    # An attempt that finds nobody has nothing to say about why it is lost.
    page.until("demo.echo.lastClose?.code === 1006")
    for shown in (f"{element('#links')}.innerText", LOST % "#echo-form"):
        page.until(f"({shown}).includes('lost: the server is shutting down (1001); back in ')")
    page.until("document.querySelector('#trip-now').textContent === '\\u2013'")
    assert page.run("/ms$/.test(document.querySelector('#trip-median').textContent)")
    server = start(tmp_path, port)
    page.run(f"{element('#echo-form .lost button')}.click(); {element('#chat-form .lost button')}.click()")
    page.both_open()
    assert page.run(LOST % "#echo-form") == ""
    server.end()
    # Chromium itself tells the console of each connection that it could not make, and of each request without success.
    page.run("true")
    told = ("ERR_CONNECTION_REFUSED", "Failed to load resource")
    browser.complaints[:] = [entry for entry in browser.complaints if not any(text in entry[1] for text in told)]


def test_the_hint_to_open_it_again_stays_until_there_are_two(open_page: Callable[..., DemoPage]) -> None:
    page = open_page()
    page.until_chat(f"{page.run('sessionStorage.name')} joined")
    page.until("document.querySelector('#alone').checkVisibility()")
    assert page.run("document.querySelector('#alone a').href") == page.run("location.href")
    other = open_page()
    page.until("!document.querySelector('#alone').checkVisibility()")
    other.close()
    page.until("document.querySelector('#alone').checkVisibility()")


def test_the_page_tells_what_serves_it(open_page: Callable[..., DemoPage]) -> None:
    page = open_page()
    page.until("document.querySelector('#server').textContent")
    told = page.run("document.querySelector('#server').textContent")
    assert told.startswith(f"tornado_ws {tornado_ws.__version__}, {engine.name} engine, Tornado ")


def test_axes_and_median_have_their_names(open_page: Callable[..., DemoPage]) -> None:
    page = open_page()
    page.until("document.querySelector('#chart .median') !== null")
    # In one step: the page draws four times a second.
    texts, median = page.run(
        "[[...document.querySelectorAll('#chart text')].map((it) => it.textContent),"
        " document.querySelector('#trip-median').textContent]"
    )
    assert {"Round trip (logarithmic)", "Time ago", f"median {median}"} <= set(texts)


#: The least contrast of a field's border with what is within it and around it (WCAG 2.2, 1.4.11 asks for 3).
CONTRAST = r"""
(() => {
  const luminance = (color) => {
    const parts = color.match(/[\d.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  return Math.min(...[...document.querySelectorAll("input")].flatMap((input) => {
    const { borderTopColor, backgroundColor } = getComputedStyle(input);
    const card = getComputedStyle(input.closest(".card")).backgroundColor;
    return [contrast(borderTopColor, backgroundColor), contrast(borderTopColor, card)];
  }));
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_borders_of_fields_are_seen(open_page: Callable[..., DemoPage], scheme: str) -> None:
    page = open_page()
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.until(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
    assert page.run(CONTRAST) >= 3


def test_the_log_stays_at_its_end_unless_somebody_reads(open_page: Callable[..., DemoPage]) -> None:
    page = open_page()
    log = element("#chat-log")
    distance = f"{log}.scrollHeight - {log}.scrollTop - {log}.clientHeight"
    page.type("#chat-text", "x" * 999)
    page.until(f"{log}.scrollHeight > {log}.clientHeight + 100 && {distance} < 2")
    page.run(f"{log}.style.height = '6rem'")
    page.until(f"{log}.clientHeight < 100 && {distance} < 2")
    # The event of the scroll comes with the next frame.
    page.run(
        f"new Promise((resolve) => {{ {log}.addEventListener('scroll', resolve, {{ once: true }});"
        f" {log}.scrollTop = 0; }}).then(() => true)"
    )
    other = open_page()
    page.until_chat(f"{other.run('sessionStorage.name')} joined")
    assert page.run(f"{log}.scrollTop") == 0


# Close codes

#: What a form says of its connection, where it says something.
LOST = (
    "[...document.querySelectorAll('%s .lost')].filter((it) => it.checkVisibility()).map((it) => it.innerText).join()"
)


def test_close_by_the_server_reaches_the_page(open_page: Callable[..., DemoPage]) -> None:
    page = open_page()
    # The eleventh message within five seconds is one too many.
    page.run("for (let i = 0; i < 11; i++) demo.chat.send(JSON.stringify({ kind: 'say', text: 'flood ' + i }))")
    page.until("demo.chat.state === 'closed'")
    last_close = "[demo.chat.lastClose.code, demo.chat.lastClose.reason, demo.chat.lastClose.wasClean]"
    assert page.run(last_close) == [4001, "more than 10 messages in 5 seconds", True]
    assert "closed: more than 10 messages in 5 seconds (4001)" in page.run(f"{element('#links')}.innerText")
    assert page.run(LOST % "#echo-form") == ""
    assert page.run(LOST % "#chat-form").startswith("closed: more than 10 messages in 5 seconds (4001)")
    assert page.run(f"{element('#chat-form > button')}.disabled")
    page.run(f"{element('#chat-form .lost button')}.click()")
    page.both_open()
    assert page.run(LOST % "#chat-form") == ""


def test_a_message_that_was_too_quick_goes_back_into_its_field(open_page: Callable[..., DemoPage]) -> None:
    page = open_page()
    # In one turn of the page: the server cannot answer in between.
    page.run(
        "for (let i = 0; i < 11; i++) {"
        f" {element('#chat-text')}.value = 'quick ' + i; {element('#chat-form')}.requestSubmit(); }}"
    )
    page.until("demo.chat.state === 'closed'")
    assert page.run(f"{element('#chat-text')}.value") == "quick 10"
    # An echo that does not come before the end.
    page.run(
        "demo.echo.socket.onmessage = null;"
        f" {element('#echo-text')}.value = 'lost'; {element('#echo-form')}.requestSubmit(); demo.echo.close()"
    )
    page.until("demo.echo.state === 'closed'")
    assert page.run(f"{element('#echo-text')}.value") == "lost"


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
    open_page: Callable[..., DemoPage], code: int | None, reason: str, note: str
) -> None:
    one, other = open_page(), open_page()
    one.call_me(f"Leaver {code}")
    one.run(f"demo.chat.socket.close({f'{code}, {json.dumps(reason)}' if code else ''})")
    other.until_chat(f"Leaver {code} {note}")
    one.until("demo.chat.lastClose")
    assert one.run("[demo.chat.lastClose.code, demo.chat.lastClose.wasClean]") == [code or 1005, True]


# Where and on what it is shown


def test_the_next_free_port_takes_the_place_of_one_that_is_taken(tmp_path: Path, demo: Example) -> None:
    other = start(tmp_path, demo.port)
    assert demo.port < other.port < demo.port + 100
    assert f"port {demo.port} is taken; this is port {other.port}" in other.stderr.read_text()
    other.end()


#: Controls that stand out on the right, or that a finger does not hit (WCAG 2.2, 2.5.8): by name.
WRONG_CONTROLS = """
[...document.querySelectorAll("button, input")].filter((it) => it.checkVisibility())
  .map((it) => [it.id || it.textContent, it.getBoundingClientRect()])
  .filter(([, box]) => box.width < 24 || box.height < 24 || box.left < 0 || box.right > %d)
  .map(([name]) => name)
"""


@pytest.mark.parametrize("width", [320, 390])
def test_the_page_is_as_wide_as_a_phone(open_page: Callable[..., DemoPage], width: int) -> None:
    page = open_page()
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=740, deviceScaleFactor=2, mobile=True)
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    page.until(f"matchMedia('(width: {width}px)').matches")
    name, word = "W" * 24, "W" * 200
    page.call_me(name)
    page.type("#echo-text", word)
    page.until("document.querySelector('#echoes li') !== null")
    page.type("#chat-text", word)
    page.until_chat(f"{name}: {word}")
    page.until("demo.chart.samples.length >= 2")
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.run(WRONG_CONTROLS % width) == []
    page.type("#echo-text", "tapped", enter=False)
    page.tap("#echo-form button")
    page.until("document.querySelector('#echoes li .text').textContent === 'tapped'")


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
def test_message_comes_back_as_it_went(open_page: Callable[..., DemoPage], message: str, size: int) -> None:
    assert open_page().run(ROUND_TRIP % (message % size)) is True


def test_message_over_the_limit_closes_with_1009(open_page: Callable[..., DemoPage]) -> None:
    code, reason, _ = open_page().run(ROUND_TRIP % "'z'.repeat(65537)")
    assert code == 1009
    assert "too big" in reason
