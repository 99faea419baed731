"""Four ways to say who it is: run ``python examples/authentication/authentication.py``, and open what it prints.

``/cookie`` wants the signed cookie of a page that has logged in, ``/subprotocol`` a token beside the name of the
subprotocol, ``/first`` one in the first message, and ``/header`` one in the Authorization header, which no page can set
(``signed_in_client.py`` does). A connection is asked for a new token before its own ends. Users are ada (lovelace) and
grace (hopper). SIGHUP rotates the keys that tokens are signed with. docs/authentication.md says why it is done so.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import logging
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from signed_tokens import Identity, Tokens
from tornado.escape import json_decode
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, StaticFileHandler

from tornado_ws import WebSocketHandler, close_all

EXAMPLES = Path(__file__).parent.parent

#: A real application has hashes of them.
PASSWORDS = {"ada": "lovelace", "grace": "hopper"}

# IANA's registry of close codes has these for what HTTP has 401, 403 and 408 for.
UNAUTHORIZED = 3000
FORBIDDEN = 3003
TIMEOUT = 3008

SUBPROTOCOL = "v1.app"
BEARER = "bearer."


class Site:
    """What all handlers share."""

    def __init__(self, tokens: Tokens, patience: float) -> None:
        self.tokens = tokens
        #: Seconds for the first message.
        self.patience = patience
        self.connections: dict[str, set[Secured]] = {}

    def sign_out(self, user: str) -> None:
        """End everything of ``user``: tokens, cookies, and the connections that they have opened."""
        self.tokens.revoke(user)
        for connection in list(self.connections.get(user, ())):
            connection.close(UNAUTHORIZED, "signed out")


# Pages


class Login(RequestHandler):
    def initialize(self, site: Site) -> None:
        self.site = site

    def post(self) -> None:
        user, password = self.get_body_argument("user"), self.get_body_argument("password")
        if not hmac.compare_digest(password.encode(), PASSWORDS.get(user, "").encode()) or user not in PASSWORDS:
            self.set_status(401)
            return
        # No script reads it, and no other site has it sent. Behind TLS it has secure=True too.
        self.set_cookie("session", self.site.tokens.issue("session", user), httponly=True, samesite="Strict")
        self.finish({"token": self.site.tokens.issue("token", user)})


class Session(RequestHandler):
    """What a page may ask that has logged in."""

    def initialize(self, site: Site) -> None:
        self.site = site

    def get_current_user(self) -> Identity | None:
        return self.site.tokens.check("session", self.get_cookie("session"))

    def prepare(self) -> None:
        if self.current_user is None:
            self.set_status(401)
            self.finish()


class NewToken(Session):
    def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.finish({"token": self.site.tokens.issue("token", self.current_user.user)})


class Logout(Session):
    def post(self) -> None:
        self.site.sign_out(self.current_user.user)
        self.clear_cookie("session")


# WebSockets


class Secured(WebSocketHandler):
    """An echo for who is known, for as long as the token is good or a new one comes in time."""

    def initialize(self, site: Site) -> None:
        self.site = site
        self.identity: Identity | None = None
        self.timers: list[asyncio.TimerHandle] = []

    def prepare(self) -> None:
        # There is no connection yet: a refusal costs nothing, and a client learns the status.
        if self.current_user is None:
            self.set_status(401)
            self.set_header("WWW-Authenticate", "Bearer")
            self.finish()

    def open(self) -> None:
        self.let_in(self.current_user)

    def let_in(self, identity: Identity) -> None:
        self.identity = identity
        self.site.connections.setdefault(identity.user, set()).add(self)
        left = identity.expires - time.time()
        self.cancel_timers()
        self.later(left * 2 / 3, self.ask_for_new_token, left / 3)
        self.later(left, self.close, UNAUTHORIZED, "token expired")
        self.write_message({"user": identity.user, "seconds": left})

    def later(self, seconds: float, callback: Any, *args: Any) -> None:
        self.timers.append(asyncio.get_running_loop().call_later(seconds, callback, *args))

    def cancel_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def ask_for_new_token(self, seconds: float) -> None:
        if self.ws_connection is not None:
            self.write_message({"renew": seconds})

    def on_message(self, message: str | bytes) -> None:
        token = token_in(message)
        if token is not None:
            self.take_token(token)
        elif self.identity is None:
            self.close(UNAUTHORIZED, "the first message has to be a token")
        else:
            text = message if isinstance(message, str) else message.hex()
            self.write_message({"from": self.identity.user, "text": text})

    def take_token(self, token: str) -> None:
        identity = self.site.tokens.check("token", token)
        if identity is None:
            self.close(UNAUTHORIZED, "token is not good")
        elif self.identity is not None and identity.user != self.identity.user:
            self.close(FORBIDDEN, "token of somebody else")
        else:
            self.let_in(identity)

    def on_close(self) -> None:
        self.cancel_timers()
        if self.identity is not None:
            connections = self.site.connections[self.identity.user]
            connections.discard(self)
            if not connections:
                del self.site.connections[self.identity.user]


class ByCookie(Secured):
    """The browser sends it by itself, whichever page asks: `check_origin`, as it is, keeps other sites out."""

    def get_current_user(self) -> Identity | None:
        return self.site.tokens.check("session", self.get_cookie("session"))


class ByHeader(Secured):
    def get_current_user(self) -> Identity | None:
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        return self.site.tokens.check("token", token) if scheme.lower() == "bearer" else None


class BySubprotocol(Secured):
    """A page can set no header but this one: ``new WebSocket(url, ["v1.app", `bearer.${token}`])``."""

    def get_current_user(self) -> Identity | None:
        offered = re.split(r"\s*,\s*", self.request.headers.get("Sec-WebSocket-Protocol", ""))
        tokens = [name.removeprefix(BEARER) for name in offered if name.startswith(BEARER)]
        return self.site.tokens.check("token", tokens[0]) if len(tokens) == 1 else None

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        # Never the token: answers are logged, and kept by proxies. A browser wants one of its names, though.
        return SUBPROTOCOL if SUBPROTOCOL in subprotocols else None


class ByFirstMessage(Secured):
    def prepare(self) -> None:
        pass

    def open(self) -> None:
        # Somebody who says nothing may not stay.
        self.later(self.site.patience, self.close, TIMEOUT, "no token in time")


def token_in(message: str | bytes) -> str | None:
    """Return the token of ``{"token": "…"}``, None for any other message."""
    try:
        match json_decode(message):
            case {"token": str(token)}:
                return token
    except (ValueError, RecursionError):
        pass
    return None


class HideTokens(logging.Filter):
    """Takes tokens out of the log of frames, which shows the beginning of each message."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = re.sub(r'("token":\s*")[^"]*', r"\1…", record.getMessage())
        record.args = ()
        return True


def make_app(site: Site) -> Application:
    shared = {"site": site}
    return Application(
        [
            (r"/login", Login, shared),
            (r"/token", NewToken, shared),
            (r"/logout", Logout, shared),
            (r"/cookie", ByCookie, shared),
            (r"/header", ByHeader, shared),
            (r"/subprotocol", BySubprotocol, shared),
            (r"/first", ByFirstMessage, shared),
            (r"/(tornado_ws\.js)", StaticFileHandler, {"path": EXAMPLES / "client"}),
            (r"/(demo\.css|page\.js)", StaticFileHandler, {"path": EXAMPLES / "demo" / "static"}),
            (
                r"/(.*)",
                StaticFileHandler,
                {"path": EXAMPLES / "authentication" / "static", "default_filename": "index.html"},
            ),
        ],
        websocket_ping_interval=20,
        # Who is not known yet may send no more than this either.
        websocket_max_message_size=16 * 1024,
    )


async def serve(port: int, tokens: Tokens, patience: float) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, tokens.rotate)
    try:
        sockets = bind_sockets(port, "127.0.0.1")
    except OSError as error:
        raise SystemExit(f"Cannot listen on port {port}: {error.strerror}. --port 0 takes any free one.") from None
    application = make_app(Site(tokens, patience))
    server = HTTPServer(application)
    server.add_sockets(sockets)
    print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}/", flush=True)
    await stop.wait()
    server.stop()
    await close_all(application, timeout=2)
    await server.close_all_connections()


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    port = os.environ.get("PORT", "8888")
    parser.add_argument("--port", type=int, default=port, help="0 for any free one (default: PORT, or 8888)")
    parser.add_argument("--lifetime", type=seconds, default=300, help="of a token (default: %(default)s)")
    parser.add_argument("--patience", type=seconds, default=5, help="with who sends no token (default: %(default)s)")
    parser.add_argument("--frames", action="store_true", help="show frames in the log")
    given = parser.parse_args()
    handler = logging.StreamHandler()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", handlers=[handler])
    if given.frames:
        frames = logging.getLogger("tornado_ws.frames")
        frames.setLevel(logging.DEBUG)
        frames.addFilter(HideTokens())
    asyncio.run(serve(given.port, Tokens(given.lifetime), given.patience))


if __name__ == "__main__":
    main()
