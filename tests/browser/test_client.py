"""``examples/client/tornado_ws.js`` in Chromium: when it comes back, how long it waits, and how it resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.devtools import Browser, Page, wait_for
from tests.browser.site import Site, serving_site

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def whole_site() -> Iterator[Site]:
    with serving_site() as site:
        yield site


@pytest.fixture
def site(whole_site: Site) -> Site:
    whole_site.answers.clear()
    whole_site.since.clear()
    whole_site.feeds.clear()
    whole_site.attempts = 0
    return whole_site


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    page = browser.open(site.url, "globalThis.ready", Page)
    yield page
    page.forget()
    # Chromium itself tells the console of each connection that it could not make.
    mistakes = [text for session, text in browser.complaints if session == page.session and "Uncaught" in text]
    assert mistakes == []


def connect(page: Page, path: str = "attempt", **options: Any) -> None:
    """Make a connection, ``it``, and begin to note its states and messages."""
    page.run(
        f"globalThis.it = new Connection({json.dumps(path)}, {json.dumps(options)});"
        "globalThis.states = []; globalThis.got = [];"
        "it.addEventListener('state', () => states.push(it.state));"
        "globalThis.shown = (data) => typeof data === 'string' ? data : [...new Uint8Array(data)];"
        "for (const type of ['message', 'gap', 'begin'])"
        "  it.addEventListener(type, (event) => type === 'message' ? got.push(shown(event.data)) :"
        "    got.push([type, event.topic, event.recovered ?? null]));"
        "it.connect()"
    )


def in_the_end(page: Page) -> str:
    """Return "open" or "closed", where the connection is to stay."""
    state: str = page.until("['open', 'closed'].includes(it.state) && states.length > 2 && it.state")
    return state


# When it comes back


@pytest.mark.parametrize("code", [1000, 0, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 4000, 4999])
def test_after_a_final_close_code_it_does_not_come_back(page: Page, site: Site, code: int) -> None:
    site.answers += [code]
    connect(page)
    page.until("it.state === 'closed' && states.length === 3")
    # The browser has 1005 for a close frame without a code.
    assert page.run("[it.lastClose.code, states]") == [code or 1005, ["connecting", "open", "closed"]]
    assert page.run("waits") == []
    assert site.attempts == 1


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1012, 1013, 1014])
def test_after_any_other_it_does(page: Page, site: Site, code: int) -> None:
    site.answers += [code]
    connect(page)
    wait_for(lambda: site.attempts == 2, "the second attempt")
    assert page.until("states.length === 6 && it.state") == "open"
    assert page.run("it.lastClose.code") == code


def test_the_page_may_say_which_codes_are_final(page: Page, site: Site) -> None:
    site.answers += [4001, 1012]
    page.run(
        "globalThis.it = new Connection('attempt', { isFinal: (code, reason) => code === 1012 && reason === '' });"
        "it.connect()"
    )
    page.until("it.lastClose?.code === 1012 && it.state === 'closed'")
    assert site.attempts == 2


def test_the_wait_is_random_below_a_limit_that_doubles(page: Page, site: Site) -> None:
    site.answers += [1011] * 8
    connect(page, maxDelay=20_000)
    wait_for(lambda: site.attempts == 9, "the last attempt")
    assert page.run("waits") == pytest.approx([500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000], abs=300)
    page.run("it.close(), dice = 0, waits.length = 0")
    site.answers += [1011] * 3
    connect(page)
    page.until("waits.length === 3 && waits.every((milliseconds) => milliseconds === 0)")


def test_after_a_connection_that_lasted_the_limit_is_the_first_again(page: Page, site: Site) -> None:
    site.answers += [1011] * 3
    connect(page, resetAfter=0)
    wait_for(lambda: site.attempts == 4, "the last attempt")
    assert page.run("waits") == pytest.approx([500, 500, 500], abs=300)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "3600"}, 60),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:44 GMT", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 7),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:44 GMT"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({}, 0),
    ],
)
def test_a_server_that_says_when_is_left_alone_for_so_long(
    page: Page, site: Site, headers: dict[str, str], seconds: float
) -> None:
    site.answers += [(503, headers)]
    connect(page)
    assert in_the_end(page) == "open"
    (waited,) = page.run("waits")
    if seconds:
        assert seconds * 1000 - 300 <= waited <= seconds * 1000
    else:
        # The usual wait, without what asking took.
        assert waited <= 500
    assert page.run("it.lastClose.code") == 1006


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_that_blames_the_page_is_final(page: Page, site: Site, status: int) -> None:
    site.answers += [(status, {})]
    connect(page)
    assert in_the_end(page) == "closed"
    assert page.run("it.lastStatus") == status
    assert site.attempts == 1


@pytest.mark.parametrize("status", [400, 408, 425, 426, 429, 500, 502, 503, 504, 302])
def test_a_refusal_that_may_pass_is_not(page: Page, site: Site, status: int) -> None:
    site.answers += [(status, {"Location": "http://127.0.0.1:1/"} if status == 302 else {})]
    connect(page)
    assert in_the_end(page) == "open"
    assert site.attempts == 2


def test_a_page_that_does_not_want_that_does_not_ask(page: Page, site: Site) -> None:
    site.answers += [(404, {})]
    connect(page, asks=False)
    wait_for(lambda: site.attempts > 2, "attempts")
    page.run("it.close()")
    page.until("it.state === 'closed'")
    assert page.run("it.lastStatus") == 0


def test_who_closes_it_has_closed_it(page: Page, site: Site) -> None:
    """While it connects, too: the browser calls that 1006."""
    page.run("globalThis.it = new Connection('attempt'); it.connect(); it.close()")
    page.until("it.state === 'closed'")
    site.answers += [1001]
    page.run("dice = 1e9; globalThis.setTimeout = () => 0; it.connect()")
    page.until("it.state === 'waiting'")
    assert page.run("[it.send('x'), (it.close(), it.state)]") == [False, "closed"]
    page.run("it.connect()")
    page.until("it.state === 'open'")


def test_the_network_is_back(page: Page, site: Site) -> None:
    site.answers += [1012]
    page.run("globalThis.setTimeout = () => 0")
    connect(page)
    page.until("it.state === 'waiting'")
    page.run("dispatchEvent(new Event('online'))")
    page.until("it.state === 'open'")


def test_messages_go_both_ways(page: Page) -> None:
    page.run("globalThis.paths = ['attempt?a=1', 'attempt?a=2']")
    page.run(
        "globalThis.it = new Connection(() => paths.shift(), { protocols: [] }); globalThis.got = [];"
        "it.addEventListener('message', ({ data, topic }) => got.push([data.byteLength ?? data, topic ?? null]));"
        "it.connect()"
    )
    page.until("it.state === 'open'")
    assert page.run("it.send('text')") is True
    assert page.run("it.send(new Uint8Array(3))") is True
    assert page.until("got.length === 2 && got") == [["text", None], [3, None]]
    assert page.run("paths") == ["attempt?a=2"]


# Resuming


def test_it_goes_on_behind_what_came_last(page: Page, site: Site) -> None:
    connect(page, "feed/a+b", resume=True)
    page.until("got.length === 2")
    assert page.run("got.splice(0)") == [["begin", "a", False], ["begin", "b", False]]
    site.publish("a", "0", b"\x01")
    site.publish("b", "0")
    assert page.until("got.length === 3 && got.splice(0)") == ["0", [1], "0"]
    page.run("dice = 0; globalThis.real = setTimeout; globalThis.setTimeout = (f) => (globalThis.wake = f, 0)")
    site.abort()
    page.until("it.state === 'waiting'")
    site.publish("a", "é", b"\x02\x00")
    site.publish("b", "1")
    page.run("globalThis.setTimeout = real; wake()")
    missed = page.until("got.length === 5 && got.splice(0)")
    assert missed == ["é", [2, 0], ["begin", "a", True], "1", ["begin", "b", True]]
    site.publish("a", "new")
    assert page.until("got.length === 1 && got.splice(0)") == ["new"]
    assert site.since[0] == ""
    assert set(json.loads(str(site.since[1]))) == {"a", "b"}


def test_numbers_come_in_order_and_once_whatever_breaks(page: Page, site: Site) -> None:
    page.run("dice = 0")
    connect(page, "feed/a", resume=True)
    page.until("got.length === 1 && got.splice(0)")
    for number in range(300):
        site.publish("a", str(number))
        if number % 20 == 10:
            site.abort()
    page.until("got.includes('299')")
    numbers = page.run("got.filter((it) => !Array.isArray(it))")
    assert numbers == [str(number) for number in range(300)]
    assert len(site.feeds) > 1


def test_a_gap_is_told(page: Page, site: Site) -> None:
    connect(page, "feed/few", resume=True)
    page.until("got.length === 1 && got.splice(0)")
    page.run("globalThis.real = setTimeout; globalThis.setTimeout = (f) => (globalThis.wake = f, 0)")
    site.abort()
    page.until("it.state === 'waiting'")
    site.publish("few", "0", "1", "2")
    page.run("globalThis.setTimeout = real; wake()")
    assert page.until("got.length === 2 && got") == [["gap", "few", None], ["begin", "few", False]]


def test_a_page_goes_on_with_the_positions_that_it_kept(page: Page, site: Site) -> None:
    connect(page, "feed/a", resume=True)
    page.until("got.length === 1")
    positions = page.run("it.close(), it.positions")
    site.publish("a", "missed")
    connect(page, "feed/a", resume=True, positions=positions)
    assert page.until("got.length === 2 && got") == ["missed", ["begin", "a", True]]


def test_messages_in_no_envelope_pass_and_those_of_prefixes_do_not_count(page: Page, site: Site) -> None:
    connect(page, "feed/a+b*", resume=True)
    page.until("got.length === 1 && got.splice(0)")
    own: list[str | bytes] = [
        "text",
        "null",
        "{}",
        '{"topic": "a"}',
        b"",
        b"\x02",
        b"\x01\x09",
        b"\x01\x00\x00\x02\xff\xff",
    ]
    for message in own:
        site.run(lambda: site.feeds[-1].write_message(message, binary=isinstance(message, bytes)))  # noqa: B023
    site.publish("b1", "x")
    expected = [*(list(message) if isinstance(message, bytes) else message for message in own), "x"]
    assert page.until(f"got.length === {len(expected)} && got") == expected
    assert page.run("Object.keys(it.positions)") == ["a"]


def test_a_server_cannot_have_a_page_keep_what_it_likes(page: Page, site: Site) -> None:
    connect(page, "feed/a", resume=True)
    page.until("got.length === 1")
    for number in range(150):
        said = json.dumps({"topic": f"__proto__{number or ''}", "position": "0-0-1", "recovered": False})
        site.run(lambda: site.feeds[-1].write_message(said))  # noqa: B023
    page.until("got.length === 151")
    assert page.run("[Object.keys(it.positions).length, Object.hasOwn(it.positions, '__proto__')]") == [100, True]
