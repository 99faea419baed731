"""Signed tokens with an end, of two keys at a time: by Tornado's signed values, which are those of its cookies."""

from __future__ import annotations

import base64
import secrets
import time
from typing import NamedTuple

from tornado.escape import json_decode, json_encode
from tornado.web import create_signed_value, decode_signed_value


class Identity(NamedTuple):
    """Who somebody is, and until when that is to be believed, in seconds since 1970."""

    user: str
    expires: float


class Tokens:
    """Issues tokens and checks them.

    A real application keeps the keys, and who was revoked, where all its processes see them.

    :param lifetime: seconds that a token is good for.
    """

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self._keys = {1: secrets.token_hex(32)}
        #: By user: what tokens have to have, so that older ones are no good.
        self._generations: dict[str, int] = {}

    def rotate(self) -> None:
        """Sign with a new key from now on. What the last one has signed is good until this is called again."""
        newest = max(self._keys)
        self._keys = {newest: self._keys[newest], newest + 1: secrets.token_hex(32)}

    def revoke(self, user: str) -> None:
        """Let no token of ``user`` be good that was issued before now."""
        self._generations[user] = self._generations.get(user, 0) + 1

    def issue(self, purpose: str, user: str) -> str:
        """Return a token for ``user``, which is good for ``purpose`` alone."""
        claims = {"user": user, "expires": time.time() + self.lifetime, "generation": self._generations.get(user, 0)}
        signed = create_signed_value(self._keys, purpose, json_encode(claims), version=2, key_version=max(self._keys))
        # The name of a subprotocol has no ":" and no "=" (RFC 9110 section 5.6.2).
        return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()

    def check(self, purpose: str, token: str | None) -> Identity | None:
        """Return whose ``token`` is, None for one that is not good, whatever it is."""
        if not token:
            return None
        try:
            signed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            return None
        # Version 1 knows no keys, and Tornado asserts that nobody asks for both.
        claims = decode_signed_value(self._keys, purpose, signed, min_version=2)
        if claims is None:
            return None
        found = json_decode(claims)
        if found["expires"] <= time.time() or found["generation"] != self._generations.get(found["user"], 0):
            return None
        return Identity(found["user"], found["expires"])
