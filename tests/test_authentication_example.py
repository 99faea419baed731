"""``examples/authentication``: every way in, and every way out again, of the program as its reader starts it."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from tests.browser.example import Example
from tests.programs import ROOT, environment
from tests.support import PATIENCE, until
from tornado_ws import HandshakeRejectedError, WebSocketClientConnection, websocket_connect

UNAUTHORIZED, FORBIDDEN, TIMEOUT = 3000, 3003, 3008
Start = Callable[..., Example]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    examples: list[Example] = []

    def start(*options: str) -> Example:
        scratch = tmp_path / str(len(examples))
        scratch.mkdir()
        examples.append(Example(scratch, "authentication/authentication.py", "--port", "0", *options))
        return examples[-1]

    yield start
    for example in examples:
        example.end()


class Person:
    """Somebody who has logged in: with a cookie and a token."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = ""
        self.token = ""

    async def fetch(self, path: str, **options: Any) -> HTTPResponse:
        client = AsyncHTTPClient(force_instance=True)
        try:
            headers = {"Cookie": f"session={self.session}"}
            return await client.fetch(self.url + path, headers=headers, raise_error=False, **options)
        finally:
            client.close()

    async def log_in(self, user: str = "ada", password: str = "lovelace") -> Person:
        answer = await self.fetch("login", method="POST", body=urlencode({"user": user, "password": password}))
        assert answer.code == 200
        (cookie,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
        assert (cookie["httponly"], cookie["samesite"]) == (True, "Strict")
        self.session = cookie.value
        self.token = json.loads(answer.body)["token"]
        return self

    async def new_token(self) -> str:
        token: str = json.loads((await self.fetch("token")).body)["token"]
        return token

    async def connect(self, way: str, secret: str | None = None, **options: Any) -> WebSocketClientConnection:
        """Connect by one of the ways, with ``secret`` in the place of what the login gave."""
        if secret is None:
            secret = self.session if way == "cookie" else self.token
        if way == "cookie":
            options["headers"] = {"Cookie": f"session={secret}", **options.pop("headers", {})}
        elif way == "header":
            options["headers"] = {"Authorization": f"Bearer {secret}"}
        elif way == "subprotocol":
            options["subprotocols"] = ["v1.app", f"bearer.{secret}"]
        conn = await websocket_connect(self.url.replace("http", "ws") + way, **options)
        if way == "first":
            await send_token(conn, secret)
        return conn


async def send_token(conn: WebSocketClientConnection, token: str) -> None:
    await conn.write_message(json.dumps({"token": token}))


async def told(conn: WebSocketClientConnection) -> Any:
    """Return the next message; the connection has to be open."""
    message = await conn.read_message()
    assert message is not None, (conn.close_code, conn.close_reason)
    return json.loads(message)


async def told_until_end(conn: WebSocketClientConnection) -> tuple[list[Any], int | None, str | None]:
    messages = []
    while (message := await conn.read_message()) is not None:
        messages.append(json.loads(message))
    return messages, conn.close_code, conn.close_reason


async def is_let_in(conn: WebSocketClientConnection, user: str = "ada") -> bool:
    await conn.write_message("hello")
    known = (await told(conn))["user"] == user
    return known and bool(await told(conn) == {"from": user, "text": "hello"})


WAYS = ["cookie", "header", "subprotocol", "first"]
AT_THE_HANDSHAKE = ["cookie", "header", "subprotocol"]


@pytest.mark.gen_test
async def test_who_is_known_gets_in_by_every_way(start: Start) -> None:
    server = start()
    person = await Person(server.url).log_in()
    for way in WAYS:
        async with await person.connect(way) as conn:
            assert await is_let_in(conn)
    async with await person.connect("subprotocol") as conn:
        # The name of the subprotocol, and never the token.
        assert conn.selected_subprotocol == "v1.app"
        assert person.token not in str(conn.headers)


@pytest.mark.gen_test
async def test_who_is_not_known_stays_out(start: Start) -> None:
    server = start()
    person = await Person(server.url).log_in()
    signed = base64.urlsafe_b64decode(person.token + "=" * (-len(person.token) % 4))
    other_key, forged = signed.replace(b"2|1:1|", b"2|1:2|"), signed[:-1] + (b"0" if signed[-1:] != b"0" else b"1")
    # Tornado's version 1 knows no keys.
    encoded = [base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in (other_key, forged, b"a|1|b")]
    wrong = ["x", person.token[:-4], *encoded]
    for secret in wrong:
        for way in AT_THE_HANDSHAKE:
            with pytest.raises(HandshakeRejectedError) as refused:
                await person.connect(way, secret)
            assert refused.value.status == 401
            assert refused.value.headers["WWW-Authenticate"] == "Bearer"
    for secret in [*wrong, "", "=", "grüße"]:
        conn = await person.connect("first", secret)
        assert await told_until_end(conn) == ([], UNAUTHORIZED, "token is not good")
    # Each is good for its own purpose alone.
    for way, secret in (("header", person.session), ("cookie", person.token)):
        with pytest.raises(HandshakeRejectedError):
            await person.connect(way, secret)
    with pytest.raises(HandshakeRejectedError):
        await websocket_connect(person.url.replace("http", "ws") + "header")
    refused_login = await person.fetch("login", method="POST", body=urlencode({"user": "ada", "password": ""}))
    assert refused_login.code == 401
    assert (await Person(server.url).fetch("token")).code == 401


@pytest.mark.gen_test
async def test_a_page_of_another_origin_stays_out_with_the_cookie(start: Start) -> None:
    person = await Person(start().url).log_in()
    for origin in ("http://evil.example", "null", person.url.replace("127.0.0.1", "localhost").rstrip("/")):
        with pytest.raises(HandshakeRejectedError) as refused:
            await person.connect("cookie", headers={"Origin": origin})
        assert refused.value.status == 403
    async with await person.connect("cookie", headers={"Origin": person.url.rstrip("/")}) as conn:
        assert await is_let_in(conn)


@pytest.mark.gen_test
async def test_messages_before_the_token_are_refused(start: Start) -> None:
    person = await Person(start().url).log_in()
    for message in ["hello", "{", "[" * 10_000, '{"token": 5}', b"\xff", '{"text": "x"}']:
        conn = await websocket_connect(person.url.replace("http", "ws") + "first")
        await conn.write_message(message, binary=isinstance(message, bytes))
        reason = "the first message has to be a token"
        assert await told_until_end(conn) == ([], UNAUTHORIZED, reason)


@pytest.mark.gen_test
async def test_who_sends_no_token_may_not_stay(start: Start) -> None:
    person = Person(start("--patience", "0.1").url)
    conn = await websocket_connect(person.url.replace("http", "ws") + "first")
    assert await told_until_end(conn) == ([], TIMEOUT, "no token in time")


@pytest.mark.gen_test
async def test_a_token_that_ends_is_asked_for_and_then_ends_the_connection(start: Start) -> None:
    person = await Person(start("--lifetime", "1").url).log_in()
    conn = await person.connect("header")
    messages, code, reason = await told_until_end(conn)
    assert [list(message) for message in messages] == [["user", "seconds"], ["renew"]]
    assert (code, reason) == (UNAUTHORIZED, "token expired")
    with pytest.raises(HandshakeRejectedError):
        await person.connect("header")


@pytest.mark.gen_test
async def test_a_new_token_keeps_the_connection(start: Start) -> None:
    person = await Person(start("--lifetime", "3").url).log_in()
    async with await person.connect("first") as conn:
        assert (await told(conn))["user"] == "ada"
        for _ in range(2):
            assert "renew" in await told(conn)
            await send_token(conn, (await person.log_in()).token)
            assert (await told(conn))["user"] == "ada"


@pytest.mark.gen_test
async def test_a_new_token_has_to_be_good_and_of_the_same_user(start: Start) -> None:
    server = start()
    ada, grace = await Person(server.url).log_in(), await Person(server.url).log_in("grace", "hopper")
    ends = {"x": (UNAUTHORIZED, "token is not good"), grace.token: (FORBIDDEN, "token of somebody else")}
    for token, end in ends.items():
        conn = await ada.connect("cookie")
        await told(conn)
        await send_token(conn, token)
        assert await told_until_end(conn) == ([], *end)


@pytest.mark.gen_test
async def test_two_keys_are_good_at_a_time(start: Start) -> None:
    server = start()
    person = await Person(server.url).log_in()
    old = person.token
    conn = await person.connect("header", old)
    server.process.send_signal(signal.SIGHUP)
    assert await is_let_in(conn)
    # Of the key before.
    async with await person.connect("header", old) as second:
        assert await is_let_in(second)
    await person.log_in()
    server.process.send_signal(signal.SIGHUP)
    async with await person.connect("header") as second:
        assert await is_let_in(second)

    async def is_refused() -> bool:
        try:
            (await person.connect("header", old)).close()
        except HandshakeRejectedError:
            return True
        return False

    # The signal may take a turn of the loop to be handled.
    while not await is_refused():
        pass
    # What is open is not asked again.
    await conn.write_message("still here")
    assert await told(conn) == {"from": "ada", "text": "still here"}
    conn.close()
    await conn.wait_closed()


@pytest.mark.gen_test
async def test_signing_out_ends_all_of_one_user(start: Start) -> None:
    server = start()
    ada, grace = await Person(server.url).log_in(), await Person(server.url).log_in("grace", "hopper")
    conns = [await ada.connect(way) for way in WAYS]
    for conn in conns:
        assert (await told(conn))["user"] == "ada"
    other = await grace.connect("cookie")
    assert (await ada.fetch("logout", method="POST", body="")).code == 200
    for conn in conns:
        assert await told_until_end(conn) == ([], UNAUTHORIZED, "signed out")
    for way in AT_THE_HANDSHAKE:
        with pytest.raises(HandshakeRejectedError):
            await ada.connect(way)
    assert (await ada.fetch("token")).code == 401
    assert await is_let_in(other, "grace")
    other.close()
    await other.wait_closed()
    # The next login is a new one.
    async with await (await ada.log_in()).connect("cookie") as conn:
        assert await is_let_in(conn)


@pytest.mark.gen_test
async def test_no_token_is_in_the_log(start: Start) -> None:
    server = start("--frames")
    person = await Person(server.url).log_in()
    for way in WAYS:
        async with await person.connect(way) as conn:
            assert await is_let_in(conn)
            await send_token(conn, person.token)
            await told(conn)
    conn = await websocket_connect(person.url.replace("http", "ws") + "first")
    await send_token(conn, "short and secret")
    await told_until_end(conn)
    text = ""

    def has_frames() -> bool:
        nonlocal text
        text = server.stderr.read_text()
        return text.count('< TEXT \'{"token": "…') == 6

    await until(has_frames)
    assert "101 GET /subprotocol" in text
    for secret in (person.token[:16], person.session[:16], "short and secret", "lovelace"):
        assert secret not in text


# The client


def run_client(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "authentication" / "signed_in_client.py"), url, *options]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_the_client_renews_its_token(start: Start) -> None:
    done = run_client(start("--lifetime", "2").url, "--renewals", "1")
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(message)) for message in messages if "from" not in message] == ["user", "renew", "user", "renew"]
    assert {"from": "ada", "text": "hello"} in messages


def test_the_client_ends_where_the_login_is_refused(start: Start) -> None:
    done = run_client(start().url, "--password", "guessed")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the login was refused: HTTP 401: Unauthorized\n"


def test_a_wrong_option_is_said() -> None:
    script = str(ROOT / "examples" / "authentication" / "authentication.py")
    done = subprocess.run(
        [sys.executable, script, "--lifetime", "-1"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "argument --lifetime: invalid seconds value: '-1'" in done.stderr
