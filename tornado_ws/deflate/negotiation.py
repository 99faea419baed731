"""permessage-deflate in the opening handshake (RFC 7692 sections 5 and 7.1), as pure functions over a header."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from zlib import MAX_WBITS

from tornado_ws.deflate.options import DEFAULT_DEFLATE_OPTIONS, MIN_DEFLATE_WBITS, DeflateOptions
from tornado_ws.escaping import shown
from tornado_ws.handshake import MOST_OF_EXTENSIONS, parse_extensions

_DEFLATE = "permessage-deflate"


class DeflateParams(NamedTuple):
    """What was agreed (section 7.1), in the words of the header: windows in bits, None where none was named."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None


def _deflate_params(parameters: list[tuple[str, str | None]], valueless_client_bits: bool) -> DeflateParams:
    """Check parameters against section 7.1, where only an offer may name client_max_window_bits without a value."""
    found: dict[str, Any] = {}
    for name, value in parameters:
        if name in found:
            raise ValueError(f"{_DEFLATE} parameter {shown(name)} given twice")
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise ValueError(f"{_DEFLATE} parameter {shown(name)} has value {shown(value)}; it takes none")
            found[name] = True
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value is None and name == "client_max_window_bits" and valueless_client_bits:
                found[name] = None
            elif value is None or not re.fullmatch("[89]|1[0-5]", value):
                raise ValueError(f"{_DEFLATE} parameter {shown(name)} has value {shown(value)}; allowed are 8 to 15")
            else:
                found[name] = int(value)
        else:
            raise ValueError(f"unknown {_DEFLATE} parameter {shown(name)}")
    return DeflateParams(**found)


def accept_deflate_offer(header: str, options: DeflateOptions = DEFAULT_DEFLATE_OPTIONS) -> DeflateParams | None:
    """Return what a server with ``options`` agrees to: the first offer it can serve, None when there is none.

    Section 5: an offer that is malformed or asks for what we cannot do is declined, never an error.
    """
    if len(header) > MOST_OF_EXTENSIONS:
        return None
    try:
        offers = parse_extensions(header)
    except ValueError:
        return None
    for name, parameters in offers:
        if name != _DEFLATE:
            continue
        try:
            params = _deflate_params(parameters, valueless_client_bits=True)
        except ValueError:
            continue
        if (params.server_max_window_bits or MIN_DEFLATE_WBITS) >= MIN_DEFLATE_WBITS:
            # Section 7.1.2.2: only a client that names its window can be asked for a smaller one.
            may_ask = any(name == "client_max_window_bits" for name, _ in parameters)
            return DeflateParams(
                params.server_no_context_takeover or options.server_no_context_takeover,
                params.client_no_context_takeover or options.client_no_context_takeover,
                _narrow(params.server_max_window_bits, options.max_wbits),
                _narrow(params.client_max_window_bits, options.client_max_wbits) if may_ask else None,
            )
    return None


def _narrow(bits: int | None, largest: int) -> int | None:
    """Return the smaller window; None, where nobody named one, is the largest that there is."""
    if largest == MAX_WBITS:
        return bits
    return min(bits or MAX_WBITS, largest)


def check_extensions_response(
    header: str, offered: bool, options: DeflateOptions = DEFAULT_DEFLATE_OPTIONS
) -> DeflateParams | None:
    """Return what a server agreed to; raises ValueError for what a client with ``options`` did not offer."""
    if len(header) > MOST_OF_EXTENSIONS:
        raise ValueError(f"Sec-WebSocket-Extensions header of {len(header)} bytes; allowed are {MOST_OF_EXTENSIONS}")
    extensions = parse_extensions(header)
    if not extensions:
        return None
    (name, parameters), *others = extensions
    if others or name != _DEFLATE or not offered:
        raise ValueError(
            f"the server selected extensions {shown(header)}; offered was {_DEFLATE if offered else 'none'}"
        )
    agreed = _deflate_params(parameters, valueless_client_bits=False)
    # Sections 7.1.1.1 and 7.1.2.1: a server that does not do what it was asked for has to decline.
    if options.server_no_context_takeover and not agreed.server_no_context_takeover:
        raise ValueError(f"the server selected {shown(header)}; asked for was server_no_context_takeover")
    if (agreed.server_max_window_bits or MAX_WBITS) > options.max_wbits:
        raise ValueError(
            f"the server selected {shown(header)}; asked for was server_max_window_bits={options.max_wbits}"
        )
    return agreed


def encode_deflate_params(params: DeflateParams) -> str:
    """Return the header value that tells ``params``."""
    parts = [_DEFLATE]
    for name in ("server_no_context_takeover", "client_no_context_takeover"):
        if getattr(params, name):
            parts.append(name)
    for name in ("server_max_window_bits", "client_max_window_bits"):
        if (bits := getattr(params, name)) is not None:
            parts.append(f"{name}={bits}")
    return "; ".join(parts)


def encode_deflate_offer(options: DeflateOptions) -> str:
    """Return the header value of a client: what it asks for, and that it takes any smaller window."""
    asked = DeflateParams(
        options.server_no_context_takeover,
        options.client_no_context_takeover,
        _narrow(None, options.max_wbits),
        _narrow(None, options.client_max_wbits),
    )
    return encode_deflate_params(asked) + ("" if asked.client_max_window_bits else "; client_max_window_bits")
