"""``examples/cluster`` in Chromium: pages at two processes, behind nginx and HAProxy, and processes that die."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.devtools import Browser, Page, element, processes_of, wait_for
from tests.browser.example import Example
from tests.needs import need
from tests.ports import unused_port
from tests.programs import ROOT
from tests.support import PATIENCE

pytestmark = pytest.mark.xdist_group("browser")

SCRIPT = "cluster/cluster.py"


def find(program: str) -> str | None:
    # Where Debian keeps servers, which is in the path of root alone.
    return shutil.which(program, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"]))


@contextlib.contextmanager
def running(scratch: Path, proxy: str, ended_by: signal.Signals) -> Iterator[Example]:
    """Run it, end it, and see that nothing is left of it."""
    for program in (proxy, "redis-server"):
        need(find(program), program)
    with pytest.MonkeyPatch.context() as patches:
        # Where it makes its directory.
        patches.setenv("TMPDIR", str(scratch))
        cluster = Example(scratch, SCRIPT, "--port", str(unused_port()), "--proxy", proxy)
    yield cluster
    cluster.end(ended_by)
    assert processes_of(scratch) == []
    assert sorted(path.name for path in scratch.iterdir()) == ["example.err", "example.out"]


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    with running(tmp_path_factory.mktemp("c"), request.param, signal.SIGINT) as cluster:
        yield cluster


class Member(Page):
    """A page of the chat."""

    def is_served(self) -> Member:
        self.until("cluster.chat.state === 'open' && Object.keys(cluster.chat.positions).length")
        return self

    @property
    def name(self) -> str:
        return str(self.run("cluster.served.served_by"))

    @property
    def pid(self) -> int:
        return int(self.run("cluster.served.pid"))

    def texts(self) -> list[str]:
        texts: list[str] = self.run("[...document.querySelectorAll('#log .said p')].map((it) => it.textContent)")
        return texts

    def figure(self, name: str) -> int:
        return int(self.run(f"{element('#' + name)}.textContent"))


@pytest.fixture
def open_pages(browser: Browser, cluster: Example) -> Iterator[Callable[[], tuple[Member, Member]]]:
    """Open two pages that different processes serve."""
    pages: list[Member] = []

    def open_page() -> Member:
        pages.append(browser.open(cluster.url, "globalThis.cluster", Member))
        return pages[-1].is_served()

    def open_pages() -> tuple[Member, Member]:
        first = open_page()
        while (second := open_page()).name == first.name:
            # A process that was just started is not used at once.
            pages.pop().forget()
        return first, second

    yield open_pages
    for page in pages:
        page.forget()
    mistakes = [text for _, text in browser.complaints if "Uncaught" in text]
    assert mistakes == []


def check(*pages: Member) -> None:
    """See that nothing was lost and nothing came twice."""
    for page in pages:
        assert [page.figure(name) for name in ("lost", "doubled")] == [0, 0]


def test_pages_at_two_processes_talk(open_pages: Callable[[], tuple[Member, Member]]) -> None:
    ada, grace = open_pages()
    ada.type("#who", "Ada", enter=False)
    ada.type("#text", "good morning, <b>Grace</b> ☕")
    grace.until("document.querySelector('#log').innerText.includes('good morning, <b>Grace</b> ☕')")
    assert grace.run(f"{element('#log .said b')}.textContent") == "Ada"
    assert grace.run(f"{element('#log .said small')}.textContent") == f"#1 {ada.name}"
    grace.type("#text", "good morning")
    ada.until("document.querySelectorAll('#log .said').length === 2 && cluster.unconfirmed.size === 0")
    check(ada, grace)


def test_a_process_is_killed_under_the_eyes_of_a_page(open_pages: Callable[[], tuple[Member, Member]]) -> None:
    ada, grace = open_pages()
    pid, survivor = ada.pid, grace.name
    # The page stays away until it is woken.
    ada.run("globalThis.later = setTimeout; globalThis.setTimeout = (f) => (globalThis.wake = f, 0)")
    ada.run("cluster.say('before')")
    ada.until("cluster.unconfirmed.size === 0")
    os.kill(pid, signal.SIGKILL)
    ada.until("cluster.chat.state === 'waiting'")
    assert ada.run("cluster.chat.lastClose.code") == 1006
    for number in range(20):
        grace.run(f"cluster.say('{number}')")
    ada.run("cluster.say('typed while there was no connection')")
    assert ada.figure("unconfirmed") == 1
    ada.run("globalThis.setTimeout = later; wake()")
    ada.until("cluster.chat.state === 'open' && cluster.figures.resumed === 1 && cluster.unconfirmed.size === 0")
    expected = ["before", *map(str, range(20))]
    assert [text for text in ada.texts() if not text.startswith("typed")] == expected
    grace.until("document.querySelector('#log').innerText.includes('typed while')")
    assert sorted(grace.texts()) == sorted(ada.texts())
    assert ada.figure("received") == grace.figure("received") == 22
    check(ada, grace)
    assert ada.name == survivor or ada.pid != pid


def test_a_page_kills_process_after_process_while_both_talk(open_pages: Callable[[], tuple[Member, Member]]) -> None:
    ada, grace = open_pages()
    for page in (ada, grace):
        page.run(f"{element('#talk')}.click()")
    for count in range(1, 4):
        ada.until(f"cluster.figures.resumed === {count - 1} && cluster.figures.received > {count * 20}")
        pid = ada.pid
        ada.run(f"{element('#kill')}.click()")
        ada.until(f"cluster.figures.resumed === {count} && cluster.served.pid !== {pid}")
    for page in (ada, grace):
        page.run(f"{element('#talk')}.click()")
        page.until("cluster.chat.state === 'open' && cluster.unconfirmed.size === 0")
    numbers = [page.run("Number(document.querySelectorAll('#log .mine').length)") for page in (ada, grace)]
    said = sum(page.run("cluster.figures.received") for page in (ada,))
    grace.until(f"cluster.figures.received === {said}")
    assert min(numbers) > 20
    check(ada, grace)


def test_a_rolling_restart_is_a_close_with_1012_and_no_loss(
    open_pages: Callable[[], tuple[Member, Member]], cluster: Example
) -> None:
    ada, grace = open_pages()
    pids = {ada.pid, grace.pid}
    for page in (ada, grace):
        page.run(
            "globalThis.codes = []; cluster.chat.addEventListener('state', () =>"
            " cluster.chat.state === 'waiting' && codes.push(cluster.chat.lastClose.code))"
        )
        page.run(f"{element('#talk')}.click()")
    cluster.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: "all processes are new" in cluster.stderr.read_text(), "new processes")
    for page in (ada, grace):
        page.until(f"cluster.chat.state === 'open' && !{json.dumps(sorted(pids))}.includes(cluster.served.pid)")
        page.run(f"{element('#talk')}.click()")
        page.until("cluster.unconfirmed.size === 0")
        # On a busy machine the proxy may find no process then, until it knows that the new one is there.
        assert page.run("codes[0]") == 1012
    check(ada, grace)


def test_a_phone_shows_it_all(open_pages: Callable[[], tuple[Member, Member]]) -> None:
    ada, _ = open_pages()
    ada.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    for text in ("x" * 300, "good morning"):
        ada.run(f"cluster.say({json.dumps(text)})")
    assert ada.run("document.documentElement.scrollWidth") <= 360
    ada.until("cluster.unconfirmed.size === 0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_all_that_it_has_started(number: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path, "nginx", number) as cluster, urllib.request.urlopen(cluster.url, timeout=PATIENCE) as answer:
        assert b"<title>tornado_ws cluster</title>" in answer.read()


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_it_says_in_one_line_what_is_missing(proxy: str, tmp_path: Path) -> None:
    program = f"import shutil, sys; shutil.which = lambda *_, **__: None; sys.argv[1:] = ['--proxy', '{proxy}']\n"
    program += f"import runpy; runpy.run_path({str(ROOT / 'examples' / SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    package = {"nginx": "nginx-light"}.get(proxy, proxy)
    assert done.stderr == (
        f"This needs redis-server and {proxy} in the path; on Debian: apt-get install redis-server {package}\n"
    )


def test_a_port_that_is_taken_is_said_and_nothing_is_left(tmp_path: Path, cluster: Example) -> None:
    command = [sys.executable, str(ROOT / "examples" / SCRIPT), "--port", str(cluster.port)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"port {cluster.port}" in done.stderr
    assert list(tmp_path.iterdir()) == []
