"""Every kind of violation of RFC 6455 and RFC 7692, as bytes, with the close code that it has to be answered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tornado_ws.escaping import shown
from tornado_ws.testing.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Builder,
    close_payload,
    deflated,
)

#: Bytes of a message, which the receiving side has to be given as its limit for those violations that are just above.
MAX_MESSAGE_SIZE = 1000


class Violation(NamedTuple):
    """One way to break the protocol."""

    name: str
    #: The close code that it has to be answered with.
    code: int
    #: The requirement that it breaks, by its name in docs/conformance.md.
    rule: str
    #: What is in the line that tornado_ws logs.
    says: str
    #: Gives the bytes; its argument builds frames as the violating side has to send them.
    build: Callable[[Builder], bytes]
    #: Whether permessage-deflate has to be agreed on before.
    deflate: bool = False


def _table() -> list[Violation]:
    both: list[tuple[str, int, str, str, Callable[[Builder], bytes]]] = [
        ("RSV2", 1002, "6455-5.2-rsv-refused", "reserved bits 0x20", lambda f: f(TEXT, b"x", rsv=RSV2)),
        ("RSV3", 1002, "6455-5.2-rsv-refused", "reserved bits 0x10", lambda f: f(BINARY, b"x", rsv=RSV3)),
        ("RSV2 on a ping", 1002, "6455-5.2-rsv-refused", "reserved bits 0x20", lambda f: f(PING, b"x", rsv=RSV2)),
        ("RSV1 on a ping", 1002, "7692-6-rsv1-place-refused", "reserved bits 0x40", lambda f: f(PING, b"x", rsv=RSV1)),
        ("RSV1 on a pong", 1002, "7692-6-rsv1-place-refused", "reserved bits 0x40", lambda f: f(PONG, b"x", rsv=RSV1)),
        (
            "RSV1 on a close",
            1002,
            "7692-6-rsv1-place-refused",
            "reserved bits 0x40",
            lambda f: f(CLOSE, close_payload(1000), rsv=RSV1),
        ),
        (
            "RSV1 on a continuation",
            1002,
            "7692-6-rsv1-place-refused",
            "reserved bits 0x40",
            lambda f: f(TEXT, b"a", fin=False) + f(CONTINUATION, b"b", rsv=RSV1),
        ),
        (
            "fragmented ping",
            1002,
            "6455-5.4-control-not-fragmented",
            "fragmented control frame",
            lambda f: f(PING, b"x", fin=False),
        ),
        (
            "fragmented pong",
            1002,
            "6455-5.4-control-not-fragmented",
            "fragmented control frame",
            lambda f: f(PONG, b"x", fin=False),
        ),
        (
            "fragmented close",
            1002,
            "6455-5.4-control-not-fragmented",
            "fragmented control frame",
            lambda f: f(CLOSE, b"\x03\xe8", fin=False),
        ),
        ("ping of 126 bytes", 1002, "6455-5.5-control-length", "more than 125 bytes", lambda f: f(PING, b"x" * 126)),
        (
            "close of 126 bytes",
            1002,
            "6455-5.5-control-length",
            "more than 125 bytes",
            lambda f: f(CLOSE, close_payload(1000, "x" * 124)),
        ),
        (
            "ping in the 8-byte form",
            1002,
            "6455-5.5-control-length",
            "more than 125 bytes",
            lambda f: f(PING, b"x", length_bytes=8),
        ),
        (
            "continuation of nothing",
            1002,
            "6455-5.4-not-interleaved",
            "no message to continue",
            lambda f: f(CONTINUATION, b"x"),
        ),
        (
            "text inside a text",
            1002,
            "6455-5.4-not-interleaved",
            "inside a fragmented message",
            lambda f: f(TEXT, b"a", fin=False) + f(TEXT, b"b"),
        ),
        (
            "binary inside a text, a ping between",
            1002,
            "6455-5.4-not-interleaved",
            "inside a fragmented message",
            lambda f: f(TEXT, b"a", fin=False) + f(PING) + f(BINARY, b"b", fin=False),
        ),
        (
            "125 in 2 bytes",
            1002,
            "6455-5.2-length-shortest",
            "not the fewest",
            lambda f: f(BINARY, b"x" * 125, length_bytes=2),
        ),
        ("0 in 2 bytes", 1002, "6455-5.2-length-shortest", "not the fewest", lambda f: f(TEXT, b"", length_bytes=2)),
        (
            "200 in 8 bytes",
            1002,
            "6455-5.2-length-shortest",
            "not the fewest",
            lambda f: f(BINARY, b"x" * 200, length_bytes=8),
        ),
        (
            "top bit of the length",
            1002,
            "6455-5.2-length-top-bit",
            "most significant bit",
            lambda f: f(BINARY, b"", length=1 << 63),
        ),
        ("close of 1 byte", 1002, "6455-5.5.1-close-code", "payload of 1 byte", lambda f: f(CLOSE, b"\x03")),
        (
            "close reason not UTF-8",
            1007,
            "6455-5.5.1-close-reason",
            "not UTF-8",
            lambda f: f(CLOSE, close_payload(1000, b"\xff")),
        ),
        (
            "close reason cut short",
            1007,
            "6455-5.5.1-close-reason",
            "not UTF-8",
            lambda f: f(CLOSE, close_payload(1000, b"ok \xe2\x82")),
        ),
        ("text not UTF-8", 1007, "6455-8.1-utf8", "not UTF-8", lambda f: f(TEXT, b"ok \xff")),
        ("text cut short", 1007, "6455-8.1-utf8", "not UTF-8", lambda f: f(TEXT, b"ok \xe2\x82")),
        ("text with a surrogate", 1007, "6455-8.1-utf8", "not UTF-8", lambda f: f(TEXT, b"\xed\xa0\x80")),
        ("text overlong", 1007, "6455-8.1-utf8", "not UTF-8", lambda f: f(TEXT, b"\xc0\x80")),
        ("text beyond Unicode", 1007, "6455-8.1-utf8", "not UTF-8", lambda f: f(TEXT, b"\xf4\x90\x80\x80")),
        # Section 8.1 lets an endpoint fail at once, and no more of these ever comes.
        (
            "text not UTF-8, unfinished message",
            1007,
            "6455-8.1-utf8",
            "not UTF-8",
            lambda f: f(TEXT, b"\xff", fin=False),
        ),
        (
            "text not UTF-8, unfinished frame",
            1007,
            "6455-8.1-utf8",
            "not UTF-8",
            lambda f: f(TEXT, b"ok \xff", length=100),
        ),
        (
            "text with a surrogate, unfinished frame",
            1007,
            "6455-8.1-utf8",
            "not UTF-8",
            lambda f: f(TEXT, b"\xed\xa0", length=100),
        ),
        (
            "text not UTF-8 over two frames",
            1007,
            "6455-8.1-utf8",
            "not UTF-8",
            lambda f: f(TEXT, b"\xe2", fin=False) + f(CONTINUATION, b"\x28\xa1", fin=False),
        ),
        (
            "text cut short over two frames",
            1007,
            "6455-8.1-utf8",
            "not UTF-8",
            lambda f: f(TEXT, b"\xe2", fin=False) + f(CONTINUATION, b"\x82"),
        ),
        ("too big", 1009, "6455-10.4-limits", "1001 bytes; the limit is 1000", lambda f: f(BINARY, b"x" * 1001)),
        (
            "too big, header alone",
            1009,
            "6455-10.4-limits",
            "the limit is 1000",
            lambda f: f(BINARY, b"", length=1 << 40),
        ),
        (
            "too big in two frames",
            1009,
            "6455-10.4-limits",
            "at least 1200 bytes; the limit is 1000",
            lambda f: f(BINARY, b"x" * 600, fin=False) + f(CONTINUATION, b"", fin=False, length=600),
        ),
    ]
    table = [Violation(*row) for row in both]
    for opcode in (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF):
        table.append(_reserved_opcode(opcode))
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        table.append(_close_code(code))
    table += [violation._replace(name=violation.name + ", deflate on", deflate=True) for violation in table[:7]]
    with_deflate: list[tuple[str, int, str, str, Callable[[Builder], bytes]]] = [
        (
            "RSV1 and RSV2",
            1002,
            "6455-5.2-rsv-refused",
            "reserved bits 0x60",
            lambda f: f(TEXT, deflated(b"x"), rsv=RSV1 | RSV2),
        ),
        (
            "RSV1 on a continuation of a compressed message",
            1002,
            "7692-6-rsv1-place-refused",
            "reserved bits 0x40",
            lambda f: f(TEXT, deflated(b"x"), rsv=RSV1, fin=False) + f(CONTINUATION, b"", rsv=RSV1),
        ),
        ("garbage", 1007, "7692-6.2-decompress", "does not inflate", lambda f: f(BINARY, b"\xff" * 20, rsv=RSV1)),
        (
            "garbage, unfinished frame",
            1007,
            "7692-6.2-decompress",
            "does not inflate",
            lambda f: f(BINARY, b"\xff" * 20, rsv=RSV1, length=500),
        ),
        (
            "stream cut short",
            1007,
            "7692-6.2-decompress",
            "message that",
            lambda f: f(TEXT, deflated(b"hello" * 9)[:-3], rsv=RSV1),
        ),
        (
            "compressed text not UTF-8",
            1007,
            "7692-6.2-utf8",
            "not UTF-8",
            lambda f: f(TEXT, deflated(b"ok \xff"), rsv=RSV1),
        ),
        (
            "compressed text not UTF-8, unfinished message",
            1007,
            "7692-6.2-utf8",
            "not UTF-8",
            lambda f: f(TEXT, deflated(b"\xff" * 300), rsv=RSV1, fin=False),
        ),
        (
            "compressed text cut short",
            1007,
            "7692-6.2-utf8",
            "not UTF-8",
            lambda f: f(TEXT, deflated(b"ok \xe2\x82"), rsv=RSV1),
        ),
        (
            "too big when inflated",
            1009,
            "6455-10.4-limits",
            "too big",
            lambda f: f(BINARY, deflated(bytes(1001)), rsv=RSV1),
        ),
        (
            "a bomb, unfinished message",
            1009,
            "6455-10.4-limits",
            "too big",
            lambda f: f(BINARY, deflated(bytes(1 << 20)), rsv=RSV1, fin=False),
        ),
        (
            "too big, not compressed with deflate on",
            1009,
            "6455-10.4-limits",
            "the limit is 1000",
            lambda f: f(BINARY, b"x" * 1001),
        ),
    ]
    table += [Violation(*row, deflate=True) for row in with_deflate]
    table.append(
        Violation(
            "RSV1 without deflate",
            1002,
            "6455-5.2-rsv-refused",
            "reserved bits 0x40",
            lambda f: f(TEXT, deflated(b"x"), rsv=RSV1),
        )
    )
    return table


def _reserved_opcode(opcode: int) -> Violation:
    return Violation(
        f"opcode {opcode:#x}",
        1002,
        "6455-5.2-opcode-refused",
        f"reserved opcode {opcode:#x}",
        lambda f: f(opcode, b"x"),
    )


def _close_code(code: int) -> Violation:
    return Violation(
        f"close code {code}",
        1002,
        "6455-7.4.2-ranges",
        f"code {code}",
        lambda f: f(CLOSE, close_payload(code, "no")),
    )


#: Those that either side can send, in the order of the RFCs.
VIOLATIONS = _table()
#: What a client may not send.
UNMASKED = Violation(
    "unmasked",
    1002,
    "6455-5.1-server-refuses-unmasked",
    "unmasked frame from a client",
    lambda f: f(TEXT, b"x", masked=False),
)
#: What a server may not send.
MASKED = Violation(
    "masked", 1002, "6455-5.1-client-refuses-masked", "masked frame from a server", lambda f: f(TEXT, b"x", masked=True)
)

_NAMED = {violation.name: violation for violation in (*VIOLATIONS, UNMASKED, MASKED)}


def violation_of(violation: str | Violation) -> Violation:
    """Return the violation of a name. Raises ValueError for a name that there is not."""
    if isinstance(violation, Violation):
        return violation
    if violation not in _NAMED:
        raise ValueError(f"violation is {shown(violation)}; it has to be one of {', '.join(map(repr, _NAMED))}")
    return _NAMED[violation]
