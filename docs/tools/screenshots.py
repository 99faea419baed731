"""Take the screenshots of the README: ``python -m docs.tools.screenshots [NAME...]``; needs Chromium and ``[test]``.

Each is a function of `SHOTS`, which opens what it shows and returns the page.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from docs.tools.conversation import conversation
from tests.browser.devtools import Browser, Page, open_browser, wait_for
from tests.browser.example import Example

IMAGES = Path(__file__).parent.parent / "images"

#: Bytes that an image may have.
LARGEST = 150_000


class Camera:
    """A browser whose pages have one size."""

    def __init__(self, browser: Browser, width: int, height: int) -> None:
        self._browser = browser
        self._size = {"width": width, "height": height}

    def open(self, url: str, ready: str) -> Page:
        """Open a page, and wait until the expression ``ready`` is true there."""
        page = self._browser.open(url, ready, Page)
        page.call("Emulation.setScrollbarsHidden", hidden=True)
        page.call("Emulation.setDeviceMetricsOverride", **self._size, deviceScaleFactor=1, mobile=False)
        return page


@contextmanager
def demo(camera: Camera, scratch: Path) -> Iterator[Page]:
    """Two people on the page of ``make demo``."""
    server = Example(scratch, "demo/demo.py", "--port", "0")
    ready = "globalThis.demo?.echo.state === 'open' && demo.chat.state === 'open'"
    pages = [camera.open(server.url, ready) for _ in range(2)]
    for page, name in zip(pages, ("Ada", "Grace"), strict=True):
        page.type("#chat-name", name, enter=False)
        page.run("document.querySelector('#chat-name').blur()")
    ada, grace = pages
    ada.type("#chat-text", "Does the page come back by itself?")
    grace.until("document.querySelector('#chat-log').innerText.includes('by itself')")
    grace.type("#chat-text", "Yes: stop the server, start it again, and look.")
    ada.until("document.querySelector('#chat-log').innerText.includes('and look')")
    for text in ("hello", "Grüße"):
        ada.type("#echo-text", text)
        ada.until(f"document.querySelector('#echoes').innerText.includes('{text}')")
    ada.run("document.activeElement.blur(), scrollTo(0, 0)")
    # The chart shows a minute; the first seconds are those of a browser that starts.
    wait_for(lambda: ada.run("performance.now() > 75_000"), "the chart to be full", 120)
    try:
        yield ada
    finally:
        for page in pages:
            page.forget()
        server.end()


@contextmanager
def command_line(camera: Camera, scratch: Path) -> Iterator[Page]:
    """A conversation by ``tornado-ws connect``."""
    file = scratch / "conversation.html"
    file.write_text(asyncio.run(conversation()))
    page = camera.open(file.as_uri(), "document.readyState === 'complete'")
    try:
        yield page
    finally:
        page.forget()


#: By name: what is shown, and the size of the page.
SHOTS: dict[str, tuple[Callable[[Camera, Path], AbstractContextManager[Page]], int, int]] = {
    "demo": (demo, 1100, 930),
    "command-line": (command_line, 700, 420),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SHOTS)}; all without any")
    names = parser.parse_args().names or list(SHOTS)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, open_browser(Path(profile)) as browser:
        for name in names:
            shown, width, height = SHOTS[name]
            with tempfile.TemporaryDirectory() as scratch, shown(Camera(browser, width, height), Path(scratch)) as page:
                image = base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"])
            if len(image) > LARGEST:
                raise SystemExit(f"{name}: {len(image)} bytes are more than {LARGEST}")
            (IMAGES / f"{name}.png").write_bytes(image)
            print(f"docs/images/{name}.png: {len(image)} bytes")


if __name__ == "__main__":
    main()
