"""The payload of a close frame (RFC 6455 sections 5.5.1 and 7.4), and the errors that lead to one."""

from __future__ import annotations

import pickle

import pytest
from tornado.httpclient import HTTPError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError

from tests.engine.test_utf8 import ILL_FORMED
from tornado_ws import close_codes
from tornado_ws.close_codes import decode_close, encode_close
from tornado_ws.errors import (
    HandshakeError,
    HandshakeRejectedError,
    InvalidHandshakeError,
    ProtocolError,
    WebSocketClosedError,
    WebSocketError,
)

#: The registry of IANA without 1004 (reserved) and the three that are never sent, and the two ranges for others.
MAY_BE_SENT = {
    *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014),
    *range(3000, 4000),
    *range(4000, 5000),
}
MAY_NOT_BE_SENT = sorted({*range(5100), 9999, 32768, 65535} - MAY_BE_SENT)


def refused_with(payload: bytes, why: str | None = None) -> int:
    with pytest.raises(ProtocolError, match=why) as caught:
        decode_close(payload)
    encode_close(caught.value.close_code, caught.value.reason)
    return caught.value.close_code


def test_the_codes_have_the_names_of_section_7_4_1() -> None:
    names = {
        "NORMAL_CLOSURE": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "UNSUPPORTED_DATA": 1003,
        "NO_STATUS_RECEIVED": 1005,
        "ABNORMAL_CLOSURE": 1006,
        "INVALID_PAYLOAD": 1007,
        "POLICY_VIOLATION": 1008,
        "MESSAGE_TOO_BIG": 1009,
        "MANDATORY_EXTENSION": 1010,
        "INTERNAL_ERROR": 1011,
    }
    assert {name: getattr(close_codes, name) for name in names} == names


# What is received


@pytest.mark.rfc("6455-7.4.2-ranges")
def test_takes_each_code_that_may_be_sent() -> None:
    for code in MAY_BE_SENT:
        payload = code.to_bytes(2, "big")
        assert decode_close(payload) == (code, None)
        assert decode_close(payload + b"because") == (code, "because")


@pytest.mark.rfc("6455-7.4.2-ranges")
def test_refuses_each_code_that_may_not_be_sent() -> None:
    for code in MAY_NOT_BE_SENT:
        assert refused_with(code.to_bytes(2, "big")) == 1002, code
        assert refused_with(code.to_bytes(2, "big") + b"because") == 1002, code


def test_an_empty_payload_has_neither_code_nor_reason() -> None:
    assert decode_close(b"") == (None, None)


@pytest.mark.parametrize("byte", [b"\x00", b"\x03", b"\x0b", b"\xff"])
@pytest.mark.rfc("6455-5.5.1-close-code")
def test_refuses_half_a_code(byte: bytes) -> None:
    assert refused_with(byte, "payload of 1 byte") == 1002


@pytest.mark.parametrize("reason", ["x", "kölsch 😀", "\x00", "x" * 123, "é" * 61])
def test_takes_a_reason_in_utf8(reason: str) -> None:
    assert decode_close(b"\x03\xe8" + reason.encode()) == (1000, reason)


@pytest.mark.parametrize("sequence", [*(sequence for sequence, _ in ILL_FORMED.values()), b"\xe2\x82", b"\xf0\x9f\x98"])
@pytest.mark.rfc("6455-5.5.1-close-reason")
def test_refuses_a_reason_that_is_not_utf8(sequence: bytes) -> None:
    assert refused_with(b"\x03\xe8" + sequence, "reason that is not UTF-8") == 1007
    assert refused_with(b"\x0f\xa0because " + sequence) == 1007


# What is sent


@pytest.mark.rfc("6455-7.4.2-ranges")
def test_sends_each_code_that_may_be_sent() -> None:
    for code in MAY_BE_SENT:
        assert encode_close(code, None) == code.to_bytes(2, "big")
        assert encode_close(code, "because") == code.to_bytes(2, "big") + b"because"


@pytest.mark.rfc("6455-7.4.2-ranges")
@pytest.mark.rfc("6455-7.4.1-1005", "6455-7.4.1-1006", "6455-7.4.1-1015")
def test_does_not_send_any_other_code() -> None:
    for code in (*MAY_NOT_BE_SENT, -1, -1000, 65536, 66536):
        with pytest.raises(ValueError, match=rf"close code {code} may not be sent; allowed are 1000-1003"):
            encode_close(code, None)
        with pytest.raises(ValueError, match="may not be sent"):
            encode_close(code, "because")


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (None, None, b""),
        (None, "", b"\x03\xe8"),
        (None, "bye", b"\x03\xe8bye"),
        (None, b"bye", b"\x03\xe8bye"),
        (1001, "", b"\x03\xe9"),
        (1001, b"", b"\x03\xe9"),
        (1001, "é", b"\x03\xe9\xc3\xa9"),
        (4999, b"\xc3\xa9", b"\x13\x87\xc3\xa9"),
    ],
)
def test_a_reason_alone_goes_with_1000(code: int | None, reason: str | bytes | None, payload: bytes) -> None:
    assert encode_close(code, reason) == payload


@pytest.mark.parametrize("reason", ["x" * 123, "é" * 61 + "x", b"x" * 123])
def test_sends_a_reason_of_at_most_123_bytes(reason: str | bytes) -> None:
    assert len(encode_close(1000, reason)) == 125


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, b"x" * 124, "x" * 1000])
@pytest.mark.parametrize("code", [None, 1000])
def test_does_not_send_a_longer_reason(code: int | None, reason: str | bytes) -> None:
    with pytest.raises(ValueError, match=rf"reason has {len(reason.encode() if isinstance(reason, str) else reason)}"):
        encode_close(code, reason)


@pytest.mark.parametrize("reason", ["\ud800", b"\xff", b"\xed\xa0\x80", b"because \xe2\x82"])
@pytest.mark.rfc("6455-5.5.1-close-reason")
def test_does_not_send_a_reason_that_is_not_utf8(reason: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (a UnicodeEncodeError from str, and its text is Python's)
        encode_close(1000, reason)


@pytest.mark.parametrize("code", [None, 1000, 1014, 3000, 4999])
@pytest.mark.parametrize("reason", [None, "because", "é" * 61])
def test_reads_what_it_sends(code: int | None, reason: str | None) -> None:
    expected = (1000 if code is None and reason else code, reason)
    assert decode_close(encode_close(code, reason)) == expected


# Errors


def test_a_protocol_error_tells_the_peer_its_reason_and_the_log_its_detail() -> None:
    error = ProtocolError(1009, "message too big", "message of at least 12 bytes; the limit is 10")
    assert (error.close_code, error.reason) == (1009, "message too big")
    assert str(error) == error.detail == "message of at least 12 bytes; the limit is 10"
    assert isinstance(error, WebSocketError)


def test_a_protocol_error_without_a_detail_says_its_reason() -> None:
    assert str(ProtocolError(1002, "no")) == "no"
    assert ProtocolError(1002, "no").detail == "no"


def test_a_protocol_error_survives_a_copy() -> None:
    error = pickle.loads(pickle.dumps(ProtocolError(1002, "no", "no at all")))
    assert (error.close_code, error.reason, error.detail) == (1002, "no", "no at all")


def test_a_failed_handshake_carries_status_headers_and_reason() -> None:
    headers = HTTPHeaders({"Server": "x"})
    for error in (HandshakeError(101, headers, "no"), InvalidHandshakeError(101, headers, "no")):
        assert (error.status, error.headers, error.reason, str(error)) == (101, headers, "no", "HTTP 101: no")
        assert isinstance(error, WebSocketError)


def test_an_invalid_handshake_is_the_stream_closed_error_of_tornado() -> None:
    error = InvalidHandshakeError(101, HTTPHeaders(), "no")
    assert isinstance(error, StreamClosedError)
    assert error.real_error is None


def test_a_rejected_handshake_is_the_http_error_of_tornado() -> None:
    headers = HTTPHeaders({"Retry-After": "5"})
    response = HTTPResponse(HTTPRequest("http://localhost/"), 503, headers, reason="Busy")
    error = HandshakeRejectedError(response)
    assert isinstance(error, HTTPError)
    assert isinstance(error, HandshakeError)
    assert (error.code, error.message, error.response) == (503, "Busy", response)
    assert (error.status, error.headers, error.reason, str(error)) == (503, headers, "Busy", "HTTP 503: Busy")


def test_a_closed_connection_is_a_websocket_error() -> None:
    assert isinstance(WebSocketClosedError(), WebSocketError)
