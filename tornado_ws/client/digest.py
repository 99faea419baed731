"""Digest authentication (RFC 7616) for an opening handshake, computed by the standard library."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any
from urllib.error import URLError
from urllib.request import (
    AbstractDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    Request,
    parse_http_list,
    parse_keqv_list,
)

from tornado.httputil import HTTPHeaders

#: Algorithms and their functions, the strongest first.
_ALGORITHMS: dict[str, Callable[[bytes], Any]] = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}

#: Where a challenge begins in a header that may hold several (RFC 9110 section 11.6.1).
_SCHEME = re.compile(r"(?:^|,)\s*([A-Za-z0-9-]+)\s+(?=[A-Za-z0-9-]+\s*=)")

#: What would end a quoted string.
_UNQUOTABLE = re.compile(r'["\\\x00-\x1f\x7f]')


class DigestError(Exception):
    """A challenge that cannot be answered; the text says why."""


def digest_challenge(headers: HTTPHeaders) -> dict[str, str]:
    """Return the parameters of the challenge of ``headers`` with the strongest algorithm. Raises DigestError."""
    found: dict[str, dict[str, str]] = {}
    for value in headers.get_list("WWW-Authenticate"):
        parts = _SCHEME.split(value)
        for scheme, parameters in zip(parts[1::2], parts[2::2], strict=True):
            if scheme.lower() == "digest":
                challenge = _parsed(parameters)
                found.setdefault(challenge.get("algorithm", "MD5").upper(), challenge)
    if not found:
        raise DigestError("the server asks for no digest authentication")
    for algorithm in _ALGORITHMS:
        if algorithm in found:
            return {**found[algorithm], "algorithm": algorithm}
    raise DigestError(f"the server wants digest algorithm {', '.join(found)}; known are {', '.join(_ALGORITHMS)}")


def answer_challenge(challenge: dict[str, str], url: str, username: str, password: str) -> str:
    """Return the Authorization header that answers ``challenge`` for ``url``, an http or https one.

    Raises DigestError.
    """
    for name, value in (("user", username), *challenge.items()):
        if _UNQUOTABLE.search(value):
            raise DigestError(f"the {name} of digest authentication has a character that cannot be sent")
    request = Request(url)
    # What is asked for where a URL has no path.
    request.selector = request.selector or "/"
    passwords = HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url, username, password)
    try:
        answer = _Digest(passwords).get_authorization(request, challenge)
    except URLError as error:
        raise DigestError(str(error.reason)) from None
    if not answer:
        raise DigestError("the server's challenge has no realm or no nonce")
    return f"Digest {answer}"


def _parsed(parameters: str) -> dict[str, str]:
    try:
        pairs = parse_keqv_list([part for part in parse_http_list(parameters) if part])
    except ValueError:
        raise DigestError("the server's challenge is malformed") from None
    found = {name.lower(): value for name, value in pairs.items()}
    if "qop" in found:
        # As the standard library looks for one among them.
        found["qop"] = ",".join(part.strip().lower() for part in found["qop"].split(","))
    return found


class _Digest(AbstractDigestAuthHandler):
    """The standard library's, with UTF-8 (RFC 7616 section 4) and an algorithm that it has from Python 3.14 on."""

    def get_algorithm_impls(self, algorithm: str) -> tuple[Callable[[str], str], Callable[[str, str], str]]:
        function = _ALGORITHMS[algorithm]

        def hashed(text: str) -> str:
            return str(function(text.encode()).hexdigest())

        return hashed, lambda secret, data: hashed(f"{secret}:{data}")
