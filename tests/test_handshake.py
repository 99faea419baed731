"""The opening handshake (RFC 6455 section 4), without its extensions."""

from __future__ import annotations

import base64

import pytest
from tornado.httputil import HTTPHeaders

from tornado_ws import handshake
from tornado_ws.handshake import BadRequest

#: The example of section 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def changed(headers: dict[str, str], changes: dict[str, str | None]) -> HTTPHeaders:
    merged = {**headers, **changes}
    return HTTPHeaders({name: value for name, value in merged.items() if value is not None})


def test_there_is_one_version() -> None:
    assert handshake.VERSION == "13"


# Lists of tokens


@pytest.mark.parametrize(
    ("header", "tokens"),
    [
        ("", []),
        (" ", []),
        (",", []),
        (" , ,, ", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (" a ,\tb,,c , ", ["a", "b", "c"]),
        ("a b, c", ["a b", "c"]),
        ("A,a", ["A", "a"]),
    ],
)
def test_empty_elements_of_a_list_are_left_out(header: str, tokens: list[str]) -> None:
    assert handshake.list_tokens(header) == tokens


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Upgrade", True),
        ("upgrade", True),
        ("UPGRADE", True),
        ("keep-alive, Upgrade", True),
        ("Upgrade,keep-alive", True),
        (" , upgrade , ", True),
        ("", False),
        ("keep-alive", False),
        ("upgrades", False),
        ("keep-alive upgrade", False),
        ("h2c-upgrade", False),
    ],
)
def test_a_token_is_looked_for_in_the_list_without_regard_to_case(header: str, found: bool) -> None:
    assert handshake.has_token(HTTPHeaders({"Connection": header}), "Connection", "upgrade") is found


def test_a_missing_header_has_no_tokens() -> None:
    assert not handshake.has_token(HTTPHeaders(), "Connection", "upgrade")


def test_the_lines_of_a_repeated_header_are_one_list() -> None:
    headers = HTTPHeaders()
    headers.add("Connection", "keep-alive")
    headers.add("Connection", "Upgrade")
    assert handshake.has_token(headers, "Connection", "upgrade")


# The accept value


@pytest.mark.parametrize("key", [KEY, KEY.encode()])
@pytest.mark.rfc("6455-4.2.2-answer")
def test_the_accept_value_of_the_rfc(key: str | bytes) -> None:
    assert handshake.compute_accept_value(key) == ACCEPT


def test_each_key_has_an_accept_value_of_its_own() -> None:
    keys = [base64.b64encode(bytes([i] * 16)) for i in range(50)]
    assert len({handshake.compute_accept_value(key) for key in keys}) == 50


# What a server asks of a request

REQUEST = {"Host": "example.com", "Sec-WebSocket-Key": KEY}

GOOD_REQUESTS: dict[str, dict[str, str | None]] = {
    "the least that is asked": {},
    "any 16 bytes as a key": {"Sec-WebSocket-Key": base64.b64encode(bytes(range(240, 256))).decode()},
    "a key of zeros": {"Sec-WebSocket-Key": "A" * 22 + "=="},
    "a host with a port": {"Host": "[::1]:8888"},
    "other headers, of any kind": {"Upgrade": "h2c", "Sec-WebSocket-Version": "8", "Origin": "null"},
}


@pytest.mark.parametrize("changes", GOOD_REQUESTS.values(), ids=GOOD_REQUESTS)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.2"])
def test_takes_an_opening_handshake(changes: dict[str, str | None], version: str) -> None:
    handshake.check_request("GET", version, changed(REQUEST, changes))


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "CONNECT", "PUT", "get", "", None])
@pytest.mark.rfc("6455-4.2.1-method")
def test_refuses_any_method_but_get(method: str | None) -> None:
    with pytest.raises(BadRequest, match="GET") as caught:
        handshake.check_request(method, "HTTP/1.1", HTTPHeaders(REQUEST))
    assert caught.value.status == 400
    assert str(method) in str(caught.value)


def test_refuses_http_1_0() -> None:
    with pytest.raises(BadRequest, match=r"HTTP/1\.0") as caught:
        handshake.check_request("GET", "HTTP/1.0", HTTPHeaders(REQUEST))
    assert caught.value.status == 400


BAD_REQUESTS: dict[str, dict[str, str | None]] = {
    "no host": {"Host": None},
    "an empty host": {"Host": ""},
    "no key": {"Sec-WebSocket-Key": None},
    "an empty key": {"Sec-WebSocket-Key": ""},
    "a key of 15 bytes": {"Sec-WebSocket-Key": base64.b64encode(bytes(15)).decode()},
    "a key of 17 bytes": {"Sec-WebSocket-Key": base64.b64encode(bytes(17)).decode()},
    "a key of 16 characters": {"Sec-WebSocket-Key": "0123456789abcdef"},
    "a key of 24 bytes": {"Sec-WebSocket-Key": base64.b64encode(KEY.encode()).decode()},
    "a key without padding": {"Sec-WebSocket-Key": KEY.rstrip("=")},
    "a key with half its padding": {"Sec-WebSocket-Key": KEY[:-1]},
    "a key with a space": {"Sec-WebSocket-Key": KEY[:10] + " " + KEY[10:]},
    "a key with a character that base64 lacks": {"Sec-WebSocket-Key": KEY[:10] + "!" + KEY[11:]},
    "a key with one such character more": {"Sec-WebSocket-Key": KEY[:10] + "!" + KEY[10:]},
    "a key in the alphabet for URLs": {"Sec-WebSocket-Key": base64.urlsafe_b64encode(b"\xfb" * 16).decode()},
    "a key that is not ASCII": {"Sec-WebSocket-Key": "\xe9" * 22 + "=="},
    "two keys": {"Sec-WebSocket-Key": f"{KEY},{KEY}"},
}


@pytest.mark.parametrize("changes", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
@pytest.mark.rfc("6455-4.2.1-host", "6455-4.2.1-key")
def test_refuses_a_bad_request(changes: dict[str, str | None]) -> None:
    (name,) = changes
    with pytest.raises(BadRequest, match=name) as caught:
        handshake.check_request("GET", "HTTP/1.1", changed(REQUEST, changes))
    assert caught.value.status == 400


def test_a_bad_request_is_a_value_error_with_a_status() -> None:
    error = BadRequest(426, "no")
    assert isinstance(error, ValueError)
    assert (error.status, str(error)) == (426, "no")


# What a client asks of an answer

RESPONSE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}

GOOD_RESPONSES: dict[str, dict[str, str | None]] = {
    "as it is sent by most": {},
    "in another case": {"Upgrade": "WebSocket", "Connection": "upgrade"},
    "with white space": {"Upgrade": " websocket ", "Sec-WebSocket-Accept": f" {ACCEPT}\t"},
    "with other connection options": {"Connection": "keep-alive, Upgrade"},
}


@pytest.mark.parametrize("changes", GOOD_RESPONSES.values(), ids=GOOD_RESPONSES)
@pytest.mark.parametrize("key", [KEY, KEY.encode()])
@pytest.mark.rfc("6455-4.1-response-accept")
def test_takes_an_answer(changes: dict[str, str | None], key: str | bytes) -> None:
    handshake.check_response(changed(RESPONSE, changes), key)


BAD_RESPONSES: dict[str, dict[str, str | None]] = {
    "no upgrade": {"Upgrade": None},
    "an empty upgrade": {"Upgrade": ""},
    "an upgrade to something else": {"Upgrade": "h2c"},
    "an upgrade to several": {"Upgrade": "websocket, h2c"},
    "no connection": {"Connection": None},
    "a connection that is kept alive alone": {"Connection": "keep-alive"},
    "a connection option that only looks alike": {"Connection": "upgraded"},
    "no accept value": {"Sec-WebSocket-Accept": None},
    "an empty accept value": {"Sec-WebSocket-Accept": ""},
    "the accept value of another key": {"Sec-WebSocket-Accept": handshake.compute_accept_value("x" * 24)},
    "the accept value in another case": {"Sec-WebSocket-Accept": ACCEPT.upper()},
    "the key given back": {"Sec-WebSocket-Accept": KEY},
    "an accept value that is not ASCII": {"Sec-WebSocket-Accept": "\xe9"},
}


@pytest.mark.parametrize("changes", BAD_RESPONSES.values(), ids=BAD_RESPONSES)
def test_refuses_a_bad_answer_and_says_which_header(changes: dict[str, str | None]) -> None:
    (name,) = changes
    with pytest.raises(ValueError, match=name):
        handshake.check_response(changed(RESPONSE, changes), KEY)


# Subprotocols


@pytest.mark.parametrize("offered", [[], ["a"], ["a", "b"]])
def test_a_server_need_not_select_a_subprotocol(offered: list[str]) -> None:
    assert handshake.check_selected_subprotocol(HTTPHeaders(), offered) is None


@pytest.mark.parametrize("selected", ["chat", "superchat"])
def test_takes_a_subprotocol_that_was_offered(selected: str) -> None:
    headers = HTTPHeaders({"Sec-WebSocket-Protocol": selected})
    assert handshake.check_selected_subprotocol(headers, ["chat", "superchat"]) == selected


@pytest.mark.parametrize("selected", ["other", "Chat", "", "chat, superchat", "cha"])
@pytest.mark.parametrize("offered", [[], ["chat", "superchat"]])
def test_refuses_a_subprotocol_that_was_not_offered(selected: str, offered: list[str]) -> None:
    with pytest.raises(ValueError, match="subprotocol"):
        handshake.check_selected_subprotocol(HTTPHeaders({"Sec-WebSocket-Protocol": selected}), offered)


def test_refuses_two_subprotocols_in_two_lines() -> None:
    headers = HTTPHeaders()
    headers.add("Sec-WebSocket-Protocol", "chat")
    headers.add("Sec-WebSocket-Protocol", "superchat")
    with pytest.raises(ValueError, match="chat,superchat"):
        handshake.check_selected_subprotocol(headers, ["chat", "superchat"])


def test_a_token_among_the_offered_subprotocols_is_not_shown() -> None:
    headers = HTTPHeaders({"Sec-WebSocket-Protocol": "other"})
    with pytest.raises(ValueError, match=r"offered were \['v1.app', 'bearer.aaaaaaaaaaaaaaaaa'…\]$"):
        handshake.check_selected_subprotocol(headers, ["v1.app", "bearer." + "a" * 40])
