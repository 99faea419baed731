"""Sec-WebSocket-Extensions (RFC 6455 section 9.1), and what both sides agree on (RFC 7692 sections 5 and 7.1)."""

from __future__ import annotations

import itertools
import time

import pytest

from tornado_ws.deflate.negotiation import (
    DeflateParams,
    accept_deflate_offer,
    check_extensions_response,
    encode_deflate_offer,
    encode_deflate_params,
)
from tornado_ws.deflate.options import DEFAULT_DEFLATE_OPTIONS
from tornado_ws.handshake import MOST_OF_EXTENSIONS, Extension, parse_extensions

# The grammar

WELL_FORMED: dict[str, list[Extension]] = {
    "": [],
    " ": [],
    ",": [],
    "\t, ,,": [],
    "a": [("a", [])],
    " a ": [("a", [])],
    "a,b": [("a", []), ("b", [])],
    ", a,, ,b ,": [("a", []), ("b", [])],
    "a, a": [("a", []), ("a", [])],
    "a;b": [("a", [("b", None)])],
    "a ; b ; c": [("a", [("b", None), ("c", None)])],
    "a;b=1": [("a", [("b", "1")])],
    "a; b = 1 ; c": [("a", [("b", "1"), ("c", None)])],
    "a;\tb\t=\t1\t": [("a", [("b", "1")])],
    'a; b="1"': [("a", [("b", "1")])],
    'a; b = "1" ; c="2"': [("a", [("b", "1"), ("c", "2")])],
    r'a; b="\1\0"': [("a", [("b", "10")])],
    "a; b; b": [("a", [("b", None), ("b", None)])],
    "a; b=1, c; d=2": [("a", [("b", "1")]), ("c", [("d", "2")])],
    "A; b=C": [("A", [("b", "C")])],
    "!#$%&'*+-.^_`|~09azAZ; !=~": [("!#$%&'*+-.^_`|~09azAZ", [("!", "~")])],
    "permessage-deflate; client_max_window_bits": [("permessage-deflate", [("client_max_window_bits", None)])],
}


@pytest.mark.parametrize(("header", "extensions"), WELL_FORMED.items())
def test_parses_what_the_grammar_has(header: str, extensions: list[Extension]) -> None:
    assert parse_extensions(header) == extensions


MALFORMED = [
    ";",
    "=",
    "a;",
    "a; ",
    "a;;",
    "a;;b",
    "a;,",
    "a;,b",
    "a;=",
    "a,;",
    "a,;b",
    "a,=",
    "a; b;",
    "a; b;,c",
    "a; =1",
    "a; b=",
    "a; b=;c",
    "a; b=,c",
    "a b",
    "a; b c",
    "a; b=1 2",
    "a; b==1",
    "a; b=1=2",
    "a=1",
    'a="1"',
    "a, b=1",
    '"a"',
    'a; "b"',
    'a; b=""',
    'a; b="',
    'a; b="1',
    'a; b=1"',
    r'a; b="1\"',
    'a; b="1"2',
    # What stands between quotes has to be a token too, so neither of these is two extensions.
    'a; b="1,c"',
    'a; b="1, permessage-deflate"',
    'a; b="1 2"',
    'a; b="1;2"',
    r'a; b="\""',
    r'a; b="\,"',
    "a; b='1;2'=",
    "a/b",
    "a; b/c",
    "a; b=c/d",
    "(a)",
    "\xe4",
    "a; b=\xe4",
    'a; b="\xe4"',
    "a\x00",
    "\x00",
    "a,b,/",
    # White space in a header is spaces and tabs.
    "a;\xa0b",
    "a\x0b",
]


@pytest.mark.parametrize("header", MALFORMED)
@pytest.mark.rfc("6455-9.1-quoted")
def test_refuses_what_the_grammar_does_not_have(header: str) -> None:
    with pytest.raises(ValueError, match="malformed Sec-WebSocket-Extensions"):
        parse_extensions(header)


@pytest.mark.parametrize(
    "hostile",
    [
        "a" + " " * 20_000 + '"',
        "a;" + " " * 20_000 + '"',
        "a; b" + " " * 20_000 + '"',
        "a; b=" + " " * 20_000 + ";",
        "a; b=1" + " " * 20_000 + '"',
        "a; b=" + "1" * 20_000 + '"',
        'a; b="' + "1" * 20_000,
        'a; b="' + "\\1" * 10_000,
        "a" * 20_000 + '"',
        "a;" * 10_000,
        "a," * 10_000 + '"',
        "," * 20_000 + '"',
        " " * 20_000 + '"',
        " ," * 10_000 + '"',
    ],
    ids=lambda header: f"{header[:6]}...{header[-1]}",
)
def test_a_hostile_header_takes_no_time(hostile: str) -> None:
    # Linear takes milliseconds; what goes with the square of the length takes seconds.
    started = time.process_time()
    with pytest.raises(ValueError, match="malformed"):
        parse_extensions(hostile)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("more", [0, 1])
def test_a_header_is_parsed_up_to_a_length(more: int) -> None:
    header = "permessage-deflate" + " " * (MOST_OF_EXTENSIONS - len("permessage-deflate") + more)
    if more:
        assert accept_deflate_offer(header) is None
        with pytest.raises(ValueError, match="header of 4097 bytes; allowed are 4096"):
            check_extensions_response(header, True)
    else:
        assert accept_deflate_offer(header) == check_extensions_response(header, True) == DeflateParams()


# What a server makes of an offer

DEFAULT = DeflateParams()

ACCEPTED: dict[str, DeflateParams] = {
    "permessage-deflate": DEFAULT,
    "permessage-deflate; client_max_window_bits": DEFAULT,
    "permessage-deflate; client_max_window_bits=8": DeflateParams(client_max_window_bits=8),
    "permessage-deflate; client_max_window_bits=9": DeflateParams(client_max_window_bits=9),
    "permessage-deflate; client_max_window_bits=10": DeflateParams(client_max_window_bits=10),
    'permessage-deflate; client_max_window_bits="15"': DeflateParams(client_max_window_bits=15),
    "permessage-deflate; server_max_window_bits=9": DeflateParams(server_max_window_bits=9),
    "permessage-deflate; server_max_window_bits=15": DeflateParams(server_max_window_bits=15),
    "permessage-deflate; server_no_context_takeover": DeflateParams(server_no_context_takeover=True),
    "permessage-deflate; client_no_context_takeover": DeflateParams(client_no_context_takeover=True),
    "permessage-deflate; client_max_window_bits=11; server_max_window_bits=10; client_no_context_takeover; "
    "server_no_context_takeover": DeflateParams(True, True, 10, 11),
}

BAD_OFFERS = [
    "permessage-deflate; foo",
    "permessage-deflate; foo=1",
    "permessage-deflate; foo=10",
    "permessage-deflate; Server_No_Context_Takeover",
    "permessage-deflate; server_no_context_takeover=1",
    "permessage-deflate; server_no_context_takeover=true",
    "permessage-deflate; client_no_context_takeover=0",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
    "permessage-deflate; client_max_window_bits; client_max_window_bits",
    "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
    "permessage-deflate; server_max_window_bits",
    # zlib deflates with no window of 256 bytes.
    "permessage-deflate; server_max_window_bits=8",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits=0",
    "permessage-deflate; server_max_window_bits=-9",
    "permessage-deflate; server_max_window_bits=+9",
    "permessage-deflate; server_max_window_bits=09",
    "permessage-deflate; server_max_window_bits=015",
    "permessage-deflate; server_max_window_bits=115",
    "permessage-deflate; server_max_window_bits=1_0",
    "permessage-deflate; server_max_window_bits=9.0",
    "permessage-deflate; server_max_window_bits=x",
    "permessage-deflate; client_max_window_bits=7",
    "permessage-deflate; client_max_window_bits=16",
    "permessage-deflate; client_max_window_bits=010",
    "permessage-deflate; client_max_window_bits=1",
]


@pytest.mark.parametrize(("header", "params"), ACCEPTED.items())
@pytest.mark.rfc("6455-9-parameters")
def test_a_server_accepts_a_good_offer(header: str, params: DeflateParams) -> None:
    assert accept_deflate_offer(header) == params


@pytest.mark.parametrize("header", BAD_OFFERS)
@pytest.mark.rfc("7692-7-decline-unknown", "7692-7-decline-value", "7692-7-decline-twice")
@pytest.mark.rfc("7692-7-decline-unsupported", "7692-7.1.1-no-value", "7692-7.1.2-value")
def test_a_server_declines_a_bad_offer(header: str) -> None:
    assert accept_deflate_offer(header) is None


@pytest.mark.parametrize("bad", BAD_OFFERS)
@pytest.mark.rfc("6455-9.1-preference")
@pytest.mark.rfc("7692-5-preference")
def test_a_server_takes_the_first_offer_that_it_can(bad: str) -> None:
    good = "permessage-deflate; server_max_window_bits=12"
    params = DeflateParams(server_max_window_bits=12)
    assert accept_deflate_offer(f"{bad}, {good}, permessage-deflate") == params
    assert accept_deflate_offer(f"{good}, {bad}") == params
    assert accept_deflate_offer(f"x-webkit-deflate-frame, {bad}, other; a=1, {good}") == params


@pytest.mark.parametrize(
    "header", ["", "other", "other; client_max_window_bits", "permessage-bzip2", "Permessage-Deflate"]
)
def test_a_server_has_permessage_deflate_alone(header: str) -> None:
    assert accept_deflate_offer(header) is None


@pytest.mark.parametrize("header", MALFORMED)
@pytest.mark.rfc("6455-9.1-malformed-offer")
def test_a_server_declines_all_that_is_in_a_malformed_header(header: str) -> None:
    assert accept_deflate_offer(f"permessage-deflate, {header}") is None


def test_a_server_accepts_what_our_client_offers() -> None:
    offer = encode_deflate_offer(DEFAULT_DEFLATE_OPTIONS)
    assert accept_deflate_offer(offer) == DEFAULT
    assert parse_extensions(offer) == [("permessage-deflate", [("client_max_window_bits", None)])]


# What a client makes of the answer


@pytest.mark.parametrize("header", ["", " ", ","])
@pytest.mark.parametrize("offered", [True, False])
def test_a_server_need_not_agree(header: str, offered: bool) -> None:
    assert check_extensions_response(header, offered) is None


@pytest.mark.parametrize(
    ("header", "params"),
    [
        ("permessage-deflate", DEFAULT),
        ("permessage-deflate; server_no_context_takeover", DeflateParams(server_no_context_takeover=True)),
        ("permessage-deflate; client_no_context_takeover", DeflateParams(client_no_context_takeover=True)),
        ("permessage-deflate; server_max_window_bits=8", DeflateParams(server_max_window_bits=8)),
        ("permessage-deflate; client_max_window_bits=8", DeflateParams(client_max_window_bits=8)),
        ('permessage-deflate; client_max_window_bits="10"', DeflateParams(client_max_window_bits=10)),
        (
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=15; client_no_context_takeover",
            DeflateParams(False, True, 9, 15),
        ),
    ],
)
@pytest.mark.rfc("7692-7-fail-unsupported")
def test_a_client_takes_what_it_can_keep_to(header: str, params: DeflateParams) -> None:
    assert check_extensions_response(header, offered=True) == params


REFUSED = [
    *(offer for offer in BAD_OFFERS if not offer.endswith("server_max_window_bits=8")),
    # In an answer it has to have a value (section 7.1.2.2).
    "permessage-deflate; client_max_window_bits",
    "other",
    "other; server_max_window_bits=10",
    "permessage-deflate, permessage-deflate",
    "permessage-deflate, other",
    "other, permessage-deflate",
    *MALFORMED,
]


@pytest.mark.parametrize("header", REFUSED)
@pytest.mark.rfc("6455-9.1-malformed-answer")
@pytest.mark.rfc("7692-5-one-answer", "7692-7-fail-unknown", "7692-7-fail-value", "7692-7-fail-twice")
@pytest.mark.rfc("7692-7.1.1-no-value", "7692-7.1.2-value")
def test_a_client_refuses_an_answer_that_it_cannot_take(header: str) -> None:
    with pytest.raises(ValueError, match=r"extensions|malformed|permessage-deflate parameter"):
        check_extensions_response(header, offered=True)


@pytest.mark.parametrize("header", ["permessage-deflate", "other", "permessage-deflate; server_max_window_bits=10"])
def test_a_client_that_offered_nothing_takes_nothing(header: str) -> None:
    with pytest.raises(ValueError, match="none"):
        check_extensions_response(header, offered=False)


# What is written


@pytest.mark.parametrize(
    ("params", "header"),
    [
        (DEFAULT, "permessage-deflate"),
        (DeflateParams(server_no_context_takeover=True), "permessage-deflate; server_no_context_takeover"),
        (DeflateParams(client_no_context_takeover=True), "permessage-deflate; client_no_context_takeover"),
        (DeflateParams(server_max_window_bits=9), "permessage-deflate; server_max_window_bits=9"),
        (DeflateParams(client_max_window_bits=8), "permessage-deflate; client_max_window_bits=8"),
        (
            DeflateParams(True, True, 15, 10),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=15; client_max_window_bits=10",
        ),
    ],
)
def test_writes_what_was_agreed(params: DeflateParams, header: str) -> None:
    assert encode_deflate_params(params) == header


def test_our_client_takes_whatever_our_server_agrees_to() -> None:
    windows = (None, *range(8, 16))
    for params in itertools.starmap(DeflateParams, itertools.product((False, True), (False, True), windows, windows)):
        header = encode_deflate_params(params)
        assert check_extensions_response(header, offered=True) == params
        can_serve = params.server_max_window_bits != 8
        assert accept_deflate_offer(header) == (params if can_serve else None)
