"""Chromium on the page of ``examples/authentication``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.devtools import Browser, Page, element
from tests.browser.example import Example

pytestmark = pytest.mark.xdist_group("browser")

WAYS = ("cookie", "subprotocol", "first")


def all_are(state: str) -> str:
    return f"Object.values(demo).every((connection) => connection.state === '{state}')"


def test_a_page_is_let_in_by_every_way_and_signed_out(browser: Browser, tmp_path: Path) -> None:
    server = Example(tmp_path, "authentication/authentication.py", "--port", "0", "--lifetime", "6")
    browser.complaints.clear()
    page = browser.open(server.url, "globalThis.demo", Page)
    page.type("#password", "lovelace")
    page.until(all_are("open"))
    for way in WAYS:
        page.until(f"""{element("#log")}.innerText.includes('{way}: {{"from": "ada", "text": "hello"}}')""")
    assert page.run("demo.subprotocol.socket.protocol") == "v1.app"
    assert page.run("document.cookie") == ""
    # Each is asked for a new token, sends it and stays.
    for way in WAYS:
        page.until(f"""{element("#log")}.innerText.split('{way}: {{"user": "ada"').length > 2""")
    page.run(f"{element('#logout')}.click()")
    page.until(all_are("closed"))
    ends = "Object.values(demo).map(({ lastClose }) => [lastClose.code, lastClose.reason])"
    assert page.run(ends) == [[3000, "signed out"]] * 3
    assert browser.complaints == []
    page.forget()
    server.end()


def test_a_page_that_has_not_logged_in_is_told_why(browser: Browser, tmp_path: Path) -> None:
    server = Example(tmp_path, "authentication/authentication.py", "--port", "0")
    browser.complaints.clear()
    page = browser.open(server.url, "globalThis.demo", Page)
    page.run("demo.cookie.connect(), demo.subprotocol.connect(), demo.first.connect()")
    page.until(all_are("closed"))
    # By the request that asks, for the handshakes; by the close frame, for the first message.
    assert page.run("[demo.cookie.lastStatus, demo.first.lastClose.code]") == [401, 3000]
    page.type("#password", "guessed")
    page.until(f"{element('#told')}.textContent === 'no: 401'")
    page.forget()
    server.end()
    # Chromium tells the console of each refusal.
    assert all("401" in text or "HTTP Authentication failed" in text for _, text in browser.complaints)
    browser.complaints.clear()
