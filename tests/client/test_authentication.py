"""Basic and digest authentication of an opening handshake, against servers that check what they get."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.request import AbstractDigestAuthHandler

import pytest
from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders

from tests.conftest import Log
from tests.peer import RawPeer, RawServer, Sockets, raw_server
from tests.support import until
from tornado_ws import HandshakeRejectedError, WebSocketClientConnection, websocket_connect
from tornado_ws.client.digest import DigestError, answer_challenge, digest_challenge

FUNCTIONS = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


def parameters(authorization: str | None) -> dict[str, str]:
    """Return what a client answers, as a server reads it."""
    assert authorization is not None
    scheme, _, rest = authorization.partition(" ")
    assert scheme == "Digest"
    return {name: quoted or plain for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^",\s]+))', rest)}


def is_right(peer: RawPeer, user: str, password: str) -> bool:
    """Whether the answer of a client is that of RFC 7616 section 3.4.1."""
    got = parameters(peer.header("Authorization"))
    function = FUNCTIONS[got.get("algorithm", "MD5")]

    def hashed(*parts: str) -> str:
        return function(":".join(parts).encode()).hexdigest()

    target = peer.head.split()[1]
    assert got["uri"] == target
    assert got["username"] == user
    secret, request = hashed(user, got["realm"], password), hashed("GET", target)
    if "qop" in got:
        assert got["nc"] == "00000001"
        wanted = hashed(secret, got["nonce"], got["nc"], got["cnonce"], got["qop"], request)
    else:
        wanted = hashed(secret, got["nonce"], request)
    return got["response"] == wanted


def digest_request(url: str, user: str = "user", password: str = "s3cret") -> HTTPRequest:
    return HTTPRequest(url, auth_username=user, auth_password=password, auth_mode="digest")


async def refuse(server: RawServer, *challenges: str) -> RawPeer:
    """Answer a request with 401 and ``challenges``."""
    peer = await server.accept_tcp()
    await peer.receive_head()
    lines = "".join(f"WWW-Authenticate: {challenge}\r\n" for challenge in challenges)
    await peer.send(f"HTTP/1.1 401 Unauthorized\r\n{lines}Content-Length: 0\r\n\r\n".encode())
    return peer


NONCE = 'Digest realm="all of it", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'

CHALLENGES = {
    "with qop": [f'{NONCE}, qop="auth", opaque="5ccc069c403ebaf9f0171e9517f40e41"'],
    "of two qops": [f'{NONCE}, qop="auth-int, auth", algorithm=MD5'],
    "without qop": [NONCE],
    "SHA-256": [f'{NONCE}, qop="auth", algorithm=SHA-256'],
    "in other letters": [NONCE.replace("Digest", "digest").replace("realm", "Realm") + ", QOP=AUTH, Algorithm=sha-256"],
    "behind Basic": ['Basic realm="x"', f'{NONCE}, qop="auth"'],
    "behind Basic, in one line": [f'Basic realm="a, Digest b", {NONCE}, qop="auth"'],
    "the strongest": [f"{NONCE}, algorithm=MD5, qop=auth", f"{NONCE}, algorithm=SHA-256, qop=auth"],
    "with an unknown one": [f"{NONCE}, algorithm=SHA-512-256, qop=auth", f"{NONCE}, qop=auth"],
}


@pytest.mark.gen_test
@pytest.mark.parametrize("challenge", CHALLENGES)
@pytest.mark.parametrize("target", ["/", "/path%20x?query=1,2"])
async def test_a_challenge_is_answered(challenge: str, target: str, log: Log) -> None:
    async with raw_server() as server:
        connecting = websocket_connect(digest_request(server.url + target))
        first = await refuse(server, *CHALLENGES[challenge])
        assert first.header("Authorization") is None
        peer = await server.accept()
        assert is_right(peer, "user", "s3cret")
        got = parameters(peer.header("Authorization"))
        assert got["nonce"] == "dcd98b7102dd2f0e8b11d0f600bfb0c093"
        assert got.get("opaque") == ("5ccc069c403ebaf9f0171e9517f40e41" if challenge == "with qop" else None)
        if challenge in ("SHA-256", "the strongest", "in other letters"):
            assert got["algorithm"] == "SHA-256"
        (await connecting).close()
        await peer.answer_close()
    assert log.lines == []


@pytest.mark.gen_test
async def test_user_and_password_of_the_url() -> None:
    async with raw_server() as server:
        url = server.url.replace("ws://", "ws://us%20er:p%C3%A4ss@")
        connecting = websocket_connect(HTTPRequest(url, auth_mode="digest"))
        await refuse(server, f"{NONCE}, qop=auth")
        peer = await server.accept()
        assert is_right(peer, "us er", "p\xe4ss")
        (await connecting).close()
        await peer.answer_close()


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_example_of_rfc_7616(algorithm: str, response: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 3.9.1."""
    monkeypatch.setattr(
        AbstractDigestAuthHandler, "get_cnonce", lambda *_: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    )
    header = (
        f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    challenge = digest_challenge(HTTPHeaders({"WWW-Authenticate": header}))
    url = "http://www.example.org/dir/index.html"
    assert parameters(answer_challenge(challenge, url, "Mufasa", "Circle of Life"))["response"] == response


async def refused(url: str, server: RawServer, *challenges: str, count: int = 1) -> HandshakeRejectedError:
    sockets = Sockets()
    connecting = websocket_connect(digest_request(url))
    for _ in range(count):
        (await refuse(server, *challenges)).close()
    with pytest.raises(HandshakeRejectedError, match="HTTP 401: Unauthorized") as caught:
        await connecting
    await until(lambda: not sockets.new())
    assert "s3cret" not in str(caught.value)
    return caught.value


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("challenge", "says"),
    [
        ('Basic realm="x"', "the server asks for no digest authentication"),
        ("Negotiate", "the server asks for no digest authentication"),
        (f"{NONCE}, algorithm=MD5-sess", "wants digest algorithm MD5-SESS; known are SHA-256, MD5"),
        (f'{NONCE}, qop="auth-int"', "qop 'auth-int' is not supported"),
        ('Digest realm="x"', "no realm or no nonce"),
        (r'Digest realm="a\"b", nonce="x"', "the realm of digest authentication has a character that cannot be sent"),
        ('Digest realm="a", nonce', "malformed"),
    ],
)
async def test_a_challenge_that_cannot_be_answered_is_a_refusal_that_says_why(challenge: str, says: str) -> None:
    async with raw_server() as server:
        error = await refused(server.url, server, challenge)
    assert says in str(error)
    assert error.response is not None


@pytest.mark.gen_test
async def test_a_wrong_password_is_refused_once() -> None:
    async with raw_server() as server:
        error = await refused(server.url, server, f"{NONCE}, qop=auth", count=2)
        assert str(error) == "HTTP 401: Unauthorized"


@pytest.mark.gen_test
async def test_a_nonce_that_is_too_old_is_answered_once_more() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(digest_request(server.url))
        await refuse(server, f"{NONCE}, qop=auth")
        await refuse(server, 'Digest realm="all of it", nonce="another", qop=auth, stale=TRUE')
        peer = await server.accept()
        assert parameters(peer.header("Authorization"))["nonce"] == "another"
        assert is_right(peer, "user", "s3cret")
        (await connecting).close()
        await peer.answer_close()
        await refused(server.url, server, f"{NONCE}, qop=auth, stale=true", count=3)


@pytest.mark.gen_test
async def test_a_server_that_does_not_ask() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(digest_request(server.url))
        peer = await server.accept()
        assert peer.header("Authorization") is None
        (await connecting).close()
        await peer.answer_close()


@pytest.mark.gen_test
async def test_digest_without_a_user() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(HTTPRequest(server.url, auth_mode="digest"))
        await refuse(server, NONCE)
        with pytest.raises(HandshakeRejectedError, match="401"):
            await connecting


@pytest.mark.gen_test
async def test_another_origin_gets_no_answer() -> None:
    async with raw_server() as server, raw_server() as other:
        connecting = websocket_connect(digest_request(server.url), follow_redirects=True)
        await refuse(server, f"{NONCE}, qop=auth")
        peer = await server.accept(status="302 Found", Location=other.url, Content_Length="0")
        assert is_right(peer, "user", "s3cret")
        last = await refuse(other, f"{NONCE}, qop=auth")
        assert last.header("Authorization") is None
        with pytest.raises(HandshakeRejectedError, match="401"):
            await connecting


@pytest.mark.gen_test
async def test_after_a_redirect_in_the_same_origin_the_next_challenge_is_answered() -> None:
    async with raw_server() as server:
        connecting = websocket_connect(digest_request(f"{server.url}/a"), follow_redirects=True)
        await refuse(server, f"{NONCE}, qop=auth")
        await server.accept(status="302 Found", Location="/b", Content_Length="0")
        first = await refuse(server, f"{NONCE}, qop=auth")
        assert first.header("Authorization") is None
        peer = await server.accept()
        assert is_right(peer, "user", "s3cret")
        (await connecting).close()
        await peer.answer_close()


@pytest.mark.gen_test
@pytest.mark.parametrize("mode", ["negotiate", "Basic", 1])
async def test_other_modes(mode: Any) -> None:
    with pytest.raises(ValueError, match=r"auth_mode is .*; it has to be 'basic', None"):
        await websocket_connect(HTTPRequest("ws://host/", auth_username="a", auth_mode=mode))
    with pytest.raises(ValueError, match="or with websocket_connect 'digest'"):
        WebSocketClientConnection(HTTPRequest("ws://a:b@host/", auth_mode="digest"))


def test_a_user_that_cannot_be_quoted() -> None:
    with pytest.raises(DigestError, match="the user of digest authentication has a character that cannot be sent"):
        answer_challenge({"realm": "x", "nonce": "y", "algorithm": "MD5"}, "http://host/", 'a"b', "s3cret")
